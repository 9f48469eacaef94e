"""Policies behind a RoboArena server, which says what it wants in its first message.

Enters: observations of DROID's Panda. Leaves: its chunks of actions. The metadata is RoboArena's
``PolicyServerConfig`` and is compared with the robot before the first step::

    image_resolution    [H, W] to which images are resized and padded; null sends them as they are
    needs_wrist_camera  observation/wrist_image_left
    n_external_cameras  0 to 2: observation/exterior_image_{0,1}_left (from 0, unlike openpi's)
    needs_stereo_camera no world has a second lens: MismatchError
    needs_session_id    session_id, text that is unique to a rollout
    action_space        joint_position, joint_velocity or cartesian_position

Every request names its ``endpoint``, "infer" or "reset"; "reset" is answered by text and "infer" by
the array itself, (N, 8) or (N, 7): one number a joint or pose component, and the gripper.

A server that wants sessions remembers what it was shown. So that nothing is lost when it is killed
and comes back, everything that a rollout has asked is kept and told again to a connection that
does not know it. How many sessions a server can hold apart at once it does not say, and many hold
one: ``sessions=8`` allows as many rollouts at once; otherwise they are run one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.policies.checking import check_spec
from worldeval.policies.servers import msgpack_numpy, openpi, options
from worldeval.policies.servers.conventions import read_conventions
from worldeval.policies.servers.link import Request, Session
from worldeval.policies.servers.options import Connecting
from worldeval.policies.servers.remote import Server
from worldeval.policies.servers.remote_policy import RemotePolicy, spec_for, with_chunk
from worldeval.policies.servers.request_keys import RequestKeys
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

ACTION_SPACES = {
    "joint_position": ("joint_position", 8),
    "joint_velocity": ("joint_velocity", 8),
    "cartesian_position": ("absolute_pose", 7),
}
"""The server's name of an action space -> the robot's, and its size."""
EXTERIORS = ("exterior_1", "exterior_2")


@dataclass(frozen=True, kw_only=True)
class PolicyServerConfig:
    """What the server says of itself; what it leaves out is as RoboArena's class has it."""

    action_space: str
    image_resolution: tuple[int, int] | None = (224, 224)
    needs_wrist_camera: bool = True
    n_external_cameras: int = 1
    needs_stereo_camera: bool = False
    needs_session_id: bool = False

    def __post_init__(self) -> None:
        def wrong(name: str, expected: str) -> MismatchError:
            return MismatchError(
                f"the RoboArena server says {name} is {getattr(self, name)!r}, expected {expected}"
            )

        if self.action_space not in ACTION_SPACES:
            raise wrong("action_space", f"one of {sorted(ACTION_SPACES)}")
        if type(self.n_external_cameras) is not int or not 0 <= self.n_external_cameras <= 2:
            raise wrong("n_external_cameras", "0, 1 or 2")
        for name in ("needs_wrist_camera", "needs_stereo_camera", "needs_session_id"):
            if not isinstance(getattr(self, name), bool):
                raise wrong(name, "true or false")
        if self.needs_stereo_camera:
            raise wrong("needs_stereo_camera", "false, because no world here has a second lens")
        size = self.image_resolution
        if size is not None and not (
            len(size) == 2 and all(type(n) is int and n > 0 for n in size)
        ):
            raise wrong("image_resolution", "[height, width] in pixels, or null")


def describes_itself(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata are a RoboArena server's; a plain openpi server names no action space."""
    return "action_space" in metadata


def read_config(metadata: Mapping[str, Any], url: str) -> PolicyServerConfig:
    if not describes_itself(metadata):
        raise MismatchError(
            f"{url} sent metadata {sorted(map(str, metadata))} without action_space, so it is no "
            "RoboArena server; write openpi:// instead of roboarena://"
        )
    names = {field.name for field in dataclasses.fields(PolicyServerConfig)}
    values = {name: value for name, value in metadata.items() if name in names}
    size = values.get("image_resolution")
    if isinstance(size, list):
        values["image_resolution"] = tuple(size)
    elif size is not None:
        values["image_resolution"] = (size,)  # a single number is refused by name
    return PolicyServerConfig(**values)


def request_keys(config: PolicyServerConfig, exterior: str) -> RequestKeys:
    """The request that ``config`` describes. exterior: the camera that is the only external one."""
    cameras = EXTERIORS if config.n_external_cameras == 2 else (exterior,)
    images = {
        f"observation/exterior_image_{i}_left": cameras[i] for i in range(config.n_external_cameras)
    }
    if config.needs_wrist_camera:
        images["observation/wrist_image_left"] = "wrist"
    action_space, action_dim = ACTION_SPACES[config.action_space]
    names = ("joint_position", "cartesian_position", "gripper_position")
    return RequestKeys(
        images=images,
        state={f"observation/{name}": (name,) for name in names},
        action_space=action_space,
        action_dim=action_dim,
        rate_hz=15.0,
        image_size=config.image_resolution,
        actions=None,
    )


class RoboArenaPolicy(RemotePolicy):
    """A policy behind a RoboArena server; see the module docstring for sessions."""

    def __init__(
        self,
        server: Server,
        config: PolicyServerConfig,
        keys: RequestKeys,
        robot: RobotSpec,
        spec: PolicySpec,
        *,
        sessions: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(server, keys, robot, spec, **options)
        if type(sessions) is not int or sessions < 1:
            raise ConfigError(f"sessions is {sessions!r}, expected 1 or more at once")
        self.config = config
        if config.needs_session_id:  # it may remember as many moments as it likes
            self.unknown = ("history",)
        self._most = sessions
        self._open: dict[str, tuple[str, Session]] = {}
        self._begun = 0

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._open = {}
        if not self.config.needs_session_id:
            request = Request(
                data=msgpack_numpy.pack({"endpoint": "reset"}), of="a reset", text_is_fine=True
            )
            self.server.ask([request])
            return
        if len(rollout_ids) > self._most:
            raise PolicyError(
                f"{self.server.settings.url} remembers sessions, and {len(rollout_ids)} rollouts "
                f"were begun at once where sessions={self._most} may be; run one at a time, or "
                f"say sessions={len(rollout_ids)} if it can tell so many apart"
            )
        for row, rollout in enumerate(rollout_ids):
            self._begun += 1  # a rollout that is begun again is another session
            session = f"{rollout}#{self._begun}"
            more = self.reset_message(rollout, instructions[row], seeds[row])
            reset = Request(
                data=msgpack_numpy.pack({"endpoint": "reset", "session_id": session, **more}),
                of=f"the reset of rollout {rollout!r}",
                text_is_fine=True,
            )
            self._open[rollout] = (session, Session(past=[reset], link=row))

    def reset_message(self, rollout: str, instruction: str, seed: int) -> dict[str, Any]:
        """What a reset says besides its session."""
        return {}

    def sessions(self, observations: Sequence[Observation]) -> list[Session] | None:
        if not self.config.needs_session_id:
            return None
        return [self._of(o.rollout_id)[1] for o in observations]

    def message(self, observation: Observation) -> dict[str, Any]:
        message = super().message(observation) | {"endpoint": "infer"}
        if self.config.needs_session_id:
            message["session_id"] = self._of(observation.rollout_id)[0]
        return message

    def _of(self, rollout: str) -> tuple[str, Session]:
        if rollout not in self._open:
            raise PolicyError(
                f"policy {self.spec.name!r} does not know rollout {rollout!r}; call reset with it "
                "before act"
            )
        return self._open[rollout]


def policy(
    server: Server,
    robot: RobotSpec,
    *,
    name: str | None,
    chunk: int | None,
    execute: int | None,
    exterior: str,
    sessions: int | None = None,
    gripper: str | None = None,
    gripper_at: float | None = None,
    clip: bool | None = None,
    said: Mapping[str, Any] | None = None,
) -> RoboArenaPolicy:
    """The policy behind a server that is connected. said: conventions of it from a file."""
    from worldeval.policies.servers import hello

    url = server.settings.url
    how: dict[str, Any] = {"gripper": gripper, "gripper_at": gripper_at, "clip": clip}
    if isinstance(server.metadata.get(hello.OURS), dict):
        return hello.policy(
            server,
            robot,
            name=name,
            chunk=chunk,
            execute=execute,
            sessions=sessions,
            corrected=said,
            **how,
        )
    config = read_config(server.metadata, url)
    keys = request_keys(config, exterior)
    spec = spec_for(keys, robot, name or openpi.default_name(url))
    check_spec(spec, robot)
    how = {
        "gripper": "binary" if gripper is None else gripper,
        "gripper_at": gripper_at,
        "clip": True if clip is None else clip,
    }
    most = 1 if sessions is None else sessions
    made = RoboArenaPolicy(server, config, keys, robot, spec, sessions=most, **how)
    with_chunk(made, robot, chunk, execute, said)
    return made


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
    sessions: int | None = None,
    gripper: str | None = None,
    gripper_at: float | None = None,
    clip: bool | None = None,
    conventions: str | None = None,
    tls: bool = False,
) -> RoboArenaPolicy:
    """The policy behind ``roboarena:REST``; see ``openpi.load`` for what the arguments mean."""
    settings = openpi.websocket_settings("roboarena", rest, connecting, tls=tls)
    said = read_conventions(conventions)
    server = Server(settings)
    try:
        server.connect()
        return policy(
            server,
            robot,
            name=name,
            chunk=chunk,
            execute=execute,
            exterior=exterior,
            sessions=sessions,
            gripper=gripper,
            gripper_at=gripper_at,
            clip=clip,
            said=said,
        )
    except BaseException:
        server.close()
        raise
