"""What a server of worldeval says of itself: RoboArena's hello, and a part of our own.

Enters: a policy and its robot on the server's side, the metadata of a connection on the other.
Leaves: the metadata; a policy whose actions are those of the served one to the bit. The part of our
own stands under "worldeval" and is passed over by other clients: which camera and which state under
which key, the chunk, how many sessions, and the conventions that are compared (conventions.py). It
is what lets robots other than DROID's be served, and a seed be given with a reset.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from worldeval.errors import MismatchError, WorldEvalError
from worldeval.policies.checking import check_spec
from worldeval.policies.servers import conventions
from worldeval.policies.servers.remote import Server
from worldeval.policies.servers.request_keys import RequestKeys
from worldeval.policies.servers.roboarena import (
    EXTERIORS,
    PolicyServerConfig,
    RoboArenaPolicy,
)
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

log = logging.getLogger(__name__)

OURS = "worldeval"
VERSION = 1


def image_keys(spec: PolicySpec) -> dict[str, str]:
    """Key of a request -> camera: RoboArena's names where the cameras are DROID's."""
    if not set(spec.cameras) <= {"wrist", *EXTERIORS}:
        return {f"observation/{camera}": camera for camera in spec.cameras}
    exteriors = [camera for camera in spec.cameras if camera != "wrist"]
    keys = {f"observation/exterior_image_{i}_left": camera for i, camera in enumerate(exteriors)}
    return keys | ({"observation/wrist_image_left": "wrist"} if "wrist" in spec.cameras else {})


def metadata(
    spec: PolicySpec, robot: RobotSpec, sessions: int, said: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The first message of a connection. said: conventions that are served otherwise."""
    images = image_keys(spec)
    return {
        "image_resolution": list(spec.image_size) if spec.image_size else None,
        "needs_wrist_camera": "observation/wrist_image_left" in images,
        "n_external_cameras": sum("exterior" in key for key in images),
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": spec.action_space,
        OURS: {
            "version": VERSION,
            "name": spec.name,
            "robot": robot.name,
            "images": images,
            "state": {f"observation/{name}": [name] for name in spec.state_keys},
            "action_dim": spec.action_dim,
            "chunk": spec.chunk,
            "execute": spec.execute,
            "rate_hz": float(spec.rate_hz),
            "sessions": sessions,
            "conventions": {**conventions.ours(robot, spec), **(said or {})},
        },
    }


class ServedPolicy(RoboArenaPolicy):
    """A policy that ``worldeval serve-policy`` serves; each of its rollouts is a session."""

    def reset_message(self, rollout: str, instruction: str, seed: int) -> dict[str, Any]:
        return {"rollout_id": rollout, "prompt": instruction, "seed": int(seed)}

    def message(self, observation: Observation) -> dict[str, Any]:
        return super().message(observation) | {"step": int(observation.step)}


def policy(
    server: Server,
    robot: RobotSpec,
    *,
    name: str | None,
    chunk: int | None,
    execute: int | None,
    sessions: int | None,
    corrected: Mapping[str, Any] | None = None,
    **options: Any,
) -> ServedPolicy:
    """The policy behind a server of worldeval that is connected; compared before it acts.

    corrected: conventions that take the place of those the server says.
    """
    url, said = server.settings.url, server.metadata[OURS]
    try:
        spec = PolicySpec(
            name=str(name or said["name"]),
            cameras=tuple(said["images"].values()),
            image_size=_size(server.metadata["image_resolution"]),
            state_keys=tuple(key for keys in said["state"].values() for key in keys),
            action_space=server.metadata["action_space"],
            action_dim=said["action_dim"],
            chunk=said["chunk"],
            execute=said["execute"] if execute is None else execute,
            rate_hz=said["rate_hz"],
        )
        keys = RequestKeys(
            images=said["images"],
            state={key: tuple(names) for key, names in said["state"].items()},
            action_space=spec.action_space,
            action_dim=spec.action_dim,
            rate_hz=spec.rate_hz,
            image_size=None,  # the world resizes them, as it does for a policy in process
            actions=None,
        )
        most, meant = said["sessions"], said["conventions"]
    except (KeyError, TypeError, AttributeError, WorldEvalError) as error:
        raise MismatchError(
            f"{url} says of itself what cannot be read ({type(error).__name__}: {error}); serve it "
            "with the version of worldeval that is used here"
        ) from error
    if said.get("version") != VERSION:
        raise MismatchError(
            f"{url} speaks version {said.get('version')!r} of worldeval's hello, expected {VERSION}"
            "; install the same version of worldeval on both sides"
        )
    if chunk not in (None, spec.chunk):
        raise MismatchError(
            f"policy {spec.name!r}: chunk is {chunk!r}, but its server answers with {spec.chunk} "
            "steps; leave it out"
        )
    compared = dataclasses.replace(spec, execute=said["execute"])
    how = {"gripper": options["gripper"] or "continuous", "gripper_at": options["gripper_at"]}
    mine = conventions.ours(robot, compared) | {"gripper_kind": how["gripper"]}
    if corrected is not None and isinstance(meant, Mapping):
        meant = {**meant, **corrected}
    unsaid = conventions.compare(meant, mine, spec.name, robot.name)
    if unsaid:
        log.warning("%s does not say %s, so they were not compared", url, ", ".join(unsaid))
    check_spec(spec, robot)
    config = PolicyServerConfig(action_space="joint_position", needs_session_id=True)
    clip = options["clip"]
    return ServedPolicy(
        server,
        dataclasses.replace(config, image_resolution=spec.image_size),
        keys,
        robot,
        spec,
        sessions=most if sessions is None else sessions,
        clip=False if clip is None else clip,
        **how,
    )


def _size(value: Any) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))
