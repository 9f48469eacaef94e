"""Policies behind an openpi server: pi0, pi0-FAST, pi0.5 and whatever else speaks its protocol.

Enters: observations of the robot. Leaves: its chunks of actions. For DROID's Panda, for which the
published pi policies are trained, a request and its answer are::

    observation/exterior_image_1_left   (224, 224, 3) uint8 RGB, resized without distortion, padded
    observation/wrist_image_left        likewise
    observation/joint_position          (7,) float32 rad
    observation/gripper_position        (1,) float32, 0 open to 1 closed
    prompt                              the instruction
    -> actions (H, 8)                   7 joint velocities, 1 gripper position, at 15 Hz

Which camera goes where is data, ``RequestKeys``; ``openpi://host:8000?keys=my_robot.toml`` reads
them from a file for another robot.

As in openpi's own loop for DROID the gripper is opened or closed wholly and actions are clipped to
the robot's bounds (``gripper=continuous``, ``clip=false`` leave them). It is cut at the middle of
the robot's own bounds, 0.5 for DROID's [0, 1], or at ``gripper_at``; how many numbers were clipped
is reported at the end. How many steps H a chunk has
is learnt by asking once with a made-up observation, which also lets a JAX server compile.

A request carries all that its answer depends on, except the server's own randomness: openpi draws
the noise of a flow policy on the server, where no client can seed it, so a real pi0 answers
otherwise when asked again.
"""

from __future__ import annotations

import logging
from typing import Any

from worldeval.errors import ConfigError, MismatchError
from worldeval.policies.checking import check_spec
from worldeval.policies.commands_sent import told_cuts
from worldeval.policies.servers import options
from worldeval.policies.servers.conventions import read_conventions
from worldeval.policies.servers.link import ServerSettings
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.remote import Server, websocket_url
from worldeval.policies.servers.remote_policy import RemotePolicy, spec_for, with_chunk
from worldeval.policies.servers.request_keys import droid_keys, read_keys
from worldeval.robots import RobotSpec

log = logging.getLogger(__name__)


@options.connecting
def load(
    rest: str,
    robot: RobotSpec,
    connecting: Connecting,
    *,
    name: str | None = None,
    chunk: int | None = None,
    execute: int | None = None,
    exterior: str = "exterior_2",
    keys: str | None = None,
    gripper: str | None = None,
    gripper_at: float | None = None,
    clip: bool | None = None,
    conventions: str | None = None,
    tls: bool = False,
) -> RemotePolicy:
    """The policy behind ``openpi:REST``. See the module docstring and ``Connecting``.

    conventions: TOML file of what the server means, compared before the first step.
    """
    from worldeval.policies.servers import roboarena

    settings = websocket_settings("openpi", rest, connecting, tls=tls)
    said = read_conventions(conventions)
    wanted = read_keys(keys) if keys is not None else droid_keys(exterior)
    server = Server(settings)
    try:
        metadata = server.connect()
        if keys is None and roboarena.describes_itself(metadata):
            log.warning(
                "%s describes itself as a RoboArena server (action_space %r); it is asked as one",
                settings.url,
                metadata["action_space"],
            )
            return roboarena.policy(
                server,
                robot,
                name=name,
                chunk=chunk,
                execute=execute,
                exterior=exterior,
                gripper=gripper,
                gripper_at=gripper_at,
                clip=clip,
                said=said,
            )
        spec = spec_for(wanted, robot, name or default_name(settings.url))
        try:
            check_spec(spec, robot)
        except MismatchError as error:
            remedy = "correct that file" if keys else "say keys=FILE for another robot than DROID's"
            raise MismatchError(f"{error}, or {remedy}") from error
        how: dict[str, Any] = {
            "gripper": "binary" if gripper is None else gripper,
            "gripper_at": gripper_at,
            "clip": True if clip is None else clip,
        }
        policy = RemotePolicy(server, wanted, robot, spec, **how)
        if keys is not None:  # whoever wrote them may think of another robot's gripper
            told = told_cuts(robot, policy.grippers)
            log.warning("policy %r for robot %r: %s", spec.name, robot.name, told)
        return with_chunk(policy, robot, chunk, execute, said)
    except BaseException:
        server.close()
        raise


def websocket_settings(
    scheme: str, rest: str, connecting: Connecting, *, tls: bool
) -> ServerSettings:
    """How the server behind ``scheme:REST`` is reached. tls: through wss."""
    uri = f"{scheme}:{rest}"
    if not isinstance(tls, bool):
        raise ConfigError(f"policy {uri!r}: tls is {tls!r}, expected true or false")
    return connecting.settings(websocket_url(rest, uri, tls=tls), uri)


def default_name(url: str) -> str:
    """``ws://host:8000`` as a name that can be part of a key: openpi-host-8000."""
    return "openpi-" + url.partition("://")[2].strip("/").replace("/", "-").replace(":", "-")
