"""A policy that LeRobot trained, in this process: ``lerobot:FOLDER``.

Enters: a checkpoint as LeRobot saves it (``pretrained_model``: config.json, model.safetensors, its
processors) and a robot. Leaves: the Policy protocol. Any of LeRobot's policies that looks at one
instant will do (ACT, a diffusion policy of ``n_obs_steps`` 1, VLAs): it is asked as
``lerobot-eval`` asks it, preprocess, ``select_action``, postprocess. Needs lerobot 0.4 or later in
the environment.

Columns are those of ``worldeval export lerobot``: a view "left" is ``observation.images.left``,
DROID's as DROID spells them; ``observation.state`` is the pose, the pose and the joints, or the
joints and the gripper, by its width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.files import read_json
from worldeval.data.readers.droid_keys import known_key_maps
from worldeval.errors import MismatchError, MissingDependencyError, PolicyError
from worldeval.motion import panda
from worldeval.policies.checking import GRIPPER, JOINTS, POSE
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

_STATE, _ACTION, _IMAGES = "observation.state", "action", "observation.images."


class LeRobotPolicy:
    """See the module docstring."""

    def __init__(
        self,
        folder: str | Path,
        robot: RobotSpec,
        *,
        name: str | None = None,
        execute: int | None = None,
        device: str = "cpu",
    ) -> None:
        """name, execute: other than the checkpoint says (its folder, its n_action_steps)."""
        config = _settings(Path(folder))
        inputs, outputs = config["input_features"], config["output_features"]
        self._views = {
            key: _view_of(key, robot) for key in inputs if inputs[key].get("type") == "VISUAL"
        }
        width = inputs[_STATE]["shape"][0] if _STATE in inputs else 0
        self._state = _state_of(width, robot)
        chunk = int(config.get("n_action_steps", 1))
        sizes = {tuple(inputs[key]["shape"][1:]) for key in self._views}
        if len(sizes) > 1:
            raise MismatchError(
                f"policy {folder} wants views of different sizes {sorted(sizes)}, robot "
                f"{robot.name!r} shows all alike; train it on views of one size"
            )
        # Its files do not say for which rate it was trained: it is that of the exported robot.
        self.spec = PolicySpec(
            name=name or _name_of(Path(folder)),
            cameras=tuple(self._views.values()),
            image_size=next(iter(sizes)) if sizes else None,
            state_keys=self._state,
            action_space=robot.action_space,
            action_dim=int(outputs[_ACTION]["shape"][0]),
            chunk=chunk,
            execute=chunk if execute is None else execute,
            rate_hz=robot.control_hz,
        )
        self._policy, self._before, self._after = _opened(Path(folder), str(config["type"]), device)
        self._seed = 0

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """It keeps nothing from one answer to the next but the seed of its noise."""
        self._seed = int(seeds[0]) if len(seeds) else 0

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        import torch

        batch: dict[str, Any] = {"task": [o.instruction for o in observations]}
        for key, view in self._views.items():
            frames = np.stack([o.images[view] for o in observations])
            batch[key] = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        if self._state:
            states = [np.concatenate([o.state[k] for k in self._state]) for o in observations]
            batch[_STATE] = torch.from_numpy(np.stack(states)).float()
        self._policy.reset()
        steps = []
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed * 1_000_003 + observations[0].step)
            ready = self._before(batch)
            for _ in range(self.spec.chunk):  # the first call answers a chunk, the others its rest
                steps.append(self._after(self._policy.select_action(dict(ready))))
        return torch.stack(steps, dim=1).float().cpu().numpy()

    def close(self) -> None:
        """Nothing to release."""


def _settings(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json. Raises PolicyError if it is none that can be asked here."""
    config = read_json(folder / "config.json", "LeRobot checkpoint", error=PolicyError)
    wanted = ("type", "input_features", "output_features")
    missing = [name for name in wanted if not (isinstance(config, dict) and config.get(name))]
    if missing or _ACTION not in config["output_features"]:
        raise PolicyError(
            f"{folder}/config.json has no {missing[0] if missing else 'action'!r}, expected what "
            "LeRobot saves as pretrained_model; give that folder"
        )
    seen = config.get("n_obs_steps", 1)
    if seen != 1:
        raise PolicyError(
            f"{folder} looks at {seen} instants (n_obs_steps), expected 1: a rollout shows the "
            "newest; train it with n_obs_steps 1"
        )
    if config.get("temporal_ensemble_coeff") is not None:
        raise PolicyError(
            f"{folder} has temporal_ensemble_coeff, which mixes answers of several instants; save "
            "it without"
        )
    return dict(config)


def _view_of(key: str, robot: RobotSpec) -> str:
    """The robot's view that a feature shows."""
    short = key.removeprefix(_IMAGES)
    if short in robot.views:
        return short
    if robot.name == panda.NAME:
        for keys in known_key_maps():
            for view, feature in keys.views.items():
                if feature == key:
                    return view
    raise MismatchError(
        f"the policy looks at {key!r}, which is none of the views of robot {robot.name!r} "
        f"({', '.join(robot.views)}); train it on an export of this robot"
    )


def _state_of(width: int, robot: RobotSpec) -> tuple[str, ...]:
    """Which states make up its observation.state."""
    poses, joints = robot.pose_dim, robot.joint_dim
    known: dict[int, tuple[str, ...]] = {0: (), poses: (POSE,)}
    if joints:
        known.setdefault(poses + joints, (POSE, JOINTS))
        known.setdefault(joints + 1, (JOINTS, GRIPPER))
    if width not in known:
        raise MismatchError(
            f"the policy takes a state of {width} numbers, robot {robot.name!r} has "
            f"{poses} of its pose{f' and {joints} of its joints' if joints else ''}; train it on "
            "an export of this robot"
        )
    return known[width]


def _name_of(folder: Path) -> str:
    """``.../act/checkpoints/000100/pretrained_model`` is called act-000100."""
    parts = folder.resolve().parts
    if parts[-1] == "pretrained_model" and len(parts) > 3 and parts[-3] == "checkpoints":
        return f"{parts[-4]}-{parts[-2]}"
    return parts[-1]


def _opened(folder: Path, kind: str, device: str) -> tuple[Any, Any, Any]:
    """The policy and its processors. Raises MissingDependencyError without LeRobot."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        factory: Any = import_module("lerobot.policies.factory")
    except ImportError as error:
        raise MissingDependencyError(
            f"a policy of LeRobot needs lerobot 0.4 or later here ({error}); pip install lerobot, "
            "in an environment of its own with worldeval beside it (docs/lerobot.md)"
        ) from error
    try:
        policy = factory.get_policy_class(kind).from_pretrained(folder)
        policy.to(device).eval()
        overrides: Mapping[str, Any] = {"device_processor": {"device": device}}
        before, after = factory.make_pre_post_processors(
            policy.config, pretrained_path=str(folder), preprocessor_overrides=overrides
        )
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise PolicyError(
            f"{folder} cannot be opened by LeRobot ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); was it saved by another version?"
        ) from error
    return policy, before, after
