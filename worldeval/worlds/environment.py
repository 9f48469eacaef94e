"""Any gymnasium environment with pictures as a world: ``--world gym:ID?name=value``.

Enters: the id of a registered environment (``module:ID`` imports the module first), and how to read
it. Leaves: a ``types.World``. One environment a rollout; the seed of a start state is the seed of
its ``reset``, so it has to fix the scene. Arguments:

    robot         its robot: a TOML file, a name, module:attr; made up from the spaces if not given
    cameras       named cameras of a MuJoCo model, with commas; else it is drawn by the robot's, if
                  these are calibrated; else pictures in observations, else what ``render`` gives
    size          height and width in pixels, 64 or 48,64
    pose          key of the observation whose first numbers are the hand; else the commanded pose
    success       key of the info that says success; is_success and success are looked for
    instruction   the words for a policy
    others        keywords of ``gymnasium.make``

Without a key for success the world has no flag, and a judge decides. What the environment calls
terminated or truncated ends nothing: after "terminated" its last picture stays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np

from worldeval.errors import ConfigError, MissingDependencyError, WorldError
from worldeval.policies.arguments import split_arguments
from worldeval.robots import CameraSpec, RobotSpec, read_robot
from worldeval.types import ActionChunk, StartState, WorldStep
from worldeval.worlds.environment_pictures import EnvironmentPictures, is_mujoco, sized
from worldeval.worlds.environment_robot import check_vector, robot_of_environment

SUCCESS = ("is_success", "success")
STARTS = 100
"""So many start states an environment is given where nobody names a suite."""
SIZE = (64, 64)
"""Of pictures that are drawn, where nobody says another one."""
FETCH = "Fetch"
FETCH_WORDS = {
    "FetchReach": "move the hand to the red ball",
    "FetchPush": "push the block to the red ball",
    "FetchPickAndPlace": "bring the block to the red ball",
    "FetchSlide": "slide the puck to the red ball",
}


@dataclass(kw_only=True)
class _Rollout:
    """One environment and where it stands."""

    env: gymnasium.Env[Any, Any]
    observation: Any = None
    command: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    pose: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    start_id: str = ""
    ended: bool = False
    success: bool = False


class GymnasiumWorld:
    """A batch of environments of one kind. See the module's docstring for the arguments.

    options: keywords of ``gymnasium.make``. Raises ConfigError for an environment that does not
    exist, shows no pictures, or whose actions are not those of ``robot``.
    """

    frames_per_step: int | None = None
    own_seed = 0

    def __init__(
        self,
        id: str,
        *,
        robot: RobotSpec | str | None = None,
        cameras: Sequence[str] = (),
        size: tuple[int, int] | None = None,
        pose: str | None = None,
        success: str | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"gym:{id}"
        self._id, self._options = id, dict(options or {})
        self._pose_key = pose
        known = None if robot is None else read_robot(robot)
        drawn = tuple(CameraSpec(name=name, mount="uncalibrated") for name in cameras)
        self._pictures = EnvironmentPictures(self.name, drawn)
        self._pool: list[_Rollout] = []
        self.rollouts: list[_Rollout] = []
        first = self._environment(0)
        first.observation, info = self._guarded(lambda: first.env.reset(seed=0), "reset")
        check_vector(first.env, self.name)
        stand = known is not None and all(c.mount != "uncalibrated" for c in known.cameras)
        if known is not None and stand and not drawn and is_mujoco(first.env.unwrapped):
            self._pictures.cameras = known.cameras
        first_size = size or (SIZE if known is None else known.image_size)
        shown = self._pictures.of(first.env, first.observation, first_size)
        self.robot = (
            robot_of_environment(first.env, self.name, shown)
            if robot is None
            else read_robot(robot)
        )
        if size is not None:
            self.robot = replace(self.robot, image_size=size)
        self._check(first, shown)
        self._pose_of(first, None)
        self._success_key = self._find_success(first, info, success)
        spec = first.env.spec
        steps = None if spec is None else spec.max_episode_steps
        self.own_chunks = -(-steps // self.robot.chunk_steps) if steps else 10
        self.task = self._id.rpartition(":")[2].rpartition("/")[2].partition("-v")[0]
        self.instruction = instruction or FETCH_WORDS.get(self.task, self.task)

    def own_starts(self) -> tuple[StartState, ...]:
        """Start states for a suite of its own: the seeds from 0 on."""
        return tuple(
            StartState(
                start_id=f"{self.task}/{seed:04d}",
                task=self.task,
                seed=seed,
                split="evaluation",
                instruction=self.instruction,
            )
            for seed in range(STARTS)
        )

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self.rollouts = [self._environment(i) for i in range(len(starts))]
        return self.reset_rows(range(len(starts)), starts, seeds)

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin some rows anew. ``seeds`` are not used: the start state's decides everything."""
        for row, start in zip(rows, starts, strict=True):
            rollout = self._rollout(row)
            seed = start.seed % 2**32
            rollout.observation, info = self._guarded(
                lambda rollout=rollout, seed=seed: rollout.env.reset(seed=seed), "reset"
            )
            rollout.ended, rollout.start_id = False, start.start_id
            rollout.success = bool(info.get(self._success_key, False))
            rollout.command = self._resting()
            rollout.pose = self._pose_of(rollout, None)
        some = [self._rollout(row) for row in rows]
        return WorldStep(
            frames=np.stack([self._frame(one) for one in some])[:, None],
            poses=np.stack([one.pose for one in some])[:, None],
            success=self._flags([[one.success] for one in some]),
            info=[{"seed": start.seed} for start in starts],
        )

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        stride, count = self.robot.steps_per_frame, chunk.poses.shape[1]
        actions = np.asarray(chunk.actions, np.float32)
        if not np.isfinite(actions).all():
            raise WorldError("actions hold values that are not finite; check the policy's output")
        frames, poses, success, info = [], [], [], []
        for place, row in enumerate(rows):
            rollout, begun = self._rollout(row), time.perf_counter()
            seen, where, flags = [], [], []
            for t in range(count):
                rollout.success = False
                for action in actions[place, t * stride : (t + 1) * stride]:
                    self._act(rollout, action)
                rollout.pose = self._pose_of(rollout, chunk.poses[place, t])
                where.append(rollout.pose)
                seen.append(self._frame(rollout))
                flags.append(rollout.success)
            frames.append(np.stack(seen))
            poses.append(np.stack(where))
            success.append(flags)
            info.append({"seconds": time.perf_counter() - begun, "ended": rollout.ended})
        return WorldStep(
            frames=np.stack(frames),
            poses=np.stack(poses),
            success=self._flags(success),
            info=info,
        )

    def row_of(self, start_id: str) -> _Rollout:
        """The rollout that began at ``start_id`` last; for experts, who know what is true."""
        for rollout in self.rollouts:
            if rollout.start_id == start_id:
                return rollout
        raise WorldError(f"world {self.name!r}: no rollout began at {start_id!r}")

    def close(self) -> None:
        self._pictures.close()
        for rollout in self._pool:
            rollout.env.close()
        self._pool, self.rollouts = [], []

    def _environment(self, slot: int) -> _Rollout:
        """The slot-th environment, made if it is the first call for it."""
        while len(self._pool) <= slot:
            self._pool.append(_Rollout(env=self._make()))
        return self._pool[slot]

    def _make(self) -> gymnasium.Env[Any, Any]:
        if self._id.startswith(FETCH):
            try:
                import gymnasium_robotics  # noqa: F401
            except ImportError as error:
                raise MissingDependencyError(
                    f"{self.name!r} needs gymnasium-robotics ({error}); run: pip install "
                    "'worldeval[fetch]'"
                ) from error
        options = {"max_episode_steps": -1, "disable_env_checker": True} | self._options
        options.setdefault("render_mode", "rgb_array")
        try:
            return gymnasium.make(self._id, **options)
        except gymnasium.error.UnregisteredEnv as error:
            raise ConfigError(
                f"there is no gymnasium environment {self._id!r} ({error}); install its package, "
                "and give gym:MODULE:ID so that it is imported"
            ) from error
        except Exception as error:  # a stranger's environment may raise anything
            raise ConfigError(
                f"gymnasium environment {self._id!r} cannot be made ({type(error).__name__}: "
                f"{error}); correct its arguments {sorted(self._options)}, or mend its package"
            ) from error

    def _guarded(self, do: Any, what: str) -> Any:
        try:
            return do()
        except Exception as error:
            raise WorldError(
                f"world {self.name!r}: {what} raised {type(error).__name__}: {error}"
            ) from error

    def _rollout(self, row: int) -> _Rollout:
        if not 0 <= row < len(self.rollouts):
            raise WorldError(
                f"row {row} does not exist; the last reset began {len(self.rollouts)} rollouts"
            )
        return self.rollouts[row]

    def _act(self, rollout: _Rollout, action: np.ndarray) -> None:
        space: Any = rollout.env.action_space
        rollout.command = np.clip(action, self.robot.action_low, self.robot.action_high)
        if rollout.ended:
            return
        command = np.clip(rollout.command, space.low, space.high).astype(space.dtype)
        rollout.observation, _, terminated, _, info = self._guarded(
            lambda: rollout.env.step(command), "step"
        )
        rollout.ended = bool(terminated)
        rollout.success |= bool(info.get(self._success_key, False))

    def _flags(self, success: Any) -> np.ndarray | None:
        return None if self._success_key is None else np.asarray(success, bool)

    def _resting(self) -> np.ndarray:
        """What counts as the last command at a start: stay, grippers open."""
        low, high = np.asarray(self.robot.action_low), np.asarray(self.robot.action_high)
        command = np.clip(np.zeros(self.robot.action_dim), low, high)
        command[list(self.robot.gripper_axes)] = self.robot.grippers_open
        return command

    def _pose_of(self, rollout: _Rollout, commanded: np.ndarray | None) -> np.ndarray:
        """The pose (P,): read from the observation, or as commanded; at a start where nothing is
        read, the last command where it is the pose, else the middle of its bounds."""
        robot = self.robot
        if self._pose_key is not None:
            seen = rollout.observation
            value = seen.get(self._pose_key) if isinstance(seen, Mapping) else None
            need = robot.pose_dim - len(robot.pose_grippers)
            if not isinstance(value, np.ndarray) or value.ndim != 1 or len(value) < need:
                keys = sorted(seen) if isinstance(seen, Mapping) else type(seen).__name__
                raise ConfigError(
                    f"world {self.name!r}: pose={self._pose_key} is no vector of {need} numbers or "
                    f"more in its observation ({keys}); name one that is"
                )
            pose = np.zeros(robot.pose_dim)
            pose[[i for i in range(robot.pose_dim) if i not in robot.pose_grippers]] = value[:need]
            command = rollout.command if len(rollout.command) else self._resting()
            pose[list(robot.pose_grippers)] = command[list(robot.gripper_axes)]
            return pose.astype(np.float32)
        if commanded is not None:
            return np.asarray(commanded, np.float32)
        if robot.control_mode == "joint_target":
            return self._resting().astype(np.float32)
        return ((np.asarray(robot.pose_low) + np.asarray(robot.pose_high)) / 2).astype(np.float32)

    def _find_success(
        self, first: _Rollout, info: Mapping[str, Any], given: str | None
    ) -> str | None:
        """The key of the info that says success; looked for after a first step, since many
        environments say nothing at their reset."""
        space: Any = first.env.action_space
        rest = np.clip(self._resting(), space.low, space.high).astype(space.dtype)
        *_, told = self._guarded(lambda: first.env.step(rest), "step")
        known = {**info, **told}
        if given is not None:
            if given not in known:
                raise ConfigError(
                    f"world {self.name!r}: success={given} is not in its info "
                    f"({', '.join(sorted(map(str, known))) or 'which is empty'}); name one that is"
                )
            return given
        return next((key for key in SUCCESS if key in known), None)

    def _frame(self, rollout: _Rollout) -> np.ndarray:
        """(V, H, W, 3) uint8, in the order of the robot's views."""
        size = self.robot.image_size
        hands = self.robot.hands
        hand_m = rollout.pose[list(hands[0][:3])] if hands and len(rollout.pose) else None
        shown = self._pictures.of(rollout.env, rollout.observation, size, hand_m)
        return np.stack([sized(shown[view], size) for view in self.robot.views])

    def _check(self, first: _Rollout, shown: Mapping[str, np.ndarray]) -> None:
        """Raise ConfigError where robot and environment do not belong together."""
        space: Any = first.env.action_space
        if getattr(space, "shape", None) != (self.robot.action_dim,):
            raise ConfigError(
                f"world {self.name!r} takes actions {space}, robot {self.robot.name!r} has "
                f"{self.robot.action_dim}; give a robot of as many"
            )
        missing = [view for view in self.robot.views if view not in shown]
        if missing:
            raise ConfigError(
                f"world {self.name!r} shows {', '.join(shown)}, but robot {self.robot.name!r} has "
                f"the view {missing[0]!r}; name the robot's cameras so"
            )


def load(rest: str) -> GymnasiumWorld:
    """The world of ``gym:REST``."""
    id, given = split_arguments(rest, "world")
    if not id:
        raise ConfigError(
            "world 'gym:' names no environment; write gym:ID, such as gym:FetchReach-v4"
        )
    own = ("robot", "cameras", "size", "pose", "success", "instruction")
    texts = {name: given[name].text for name in own if name in given}
    if id.startswith(FETCH):
        texts = {"robot": "fetch", "pose": "observation"} | texts
    return GymnasiumWorld(
        id,
        robot=texts.get("robot"),
        cameras=tuple(filter(None, texts.get("cameras", "").split(","))),
        size=_size(texts["size"]) if "size" in texts else None,
        pose=texts.get("pose"),
        success=texts.get("success"),
        instruction=texts.get("instruction"),
        options={name: one.value for name, one in given.items() if name not in own},
    )


def _size(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) not in (1, 2) or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise ConfigError(f"size is {text!r}, expected pixels, such as 64 or 48,64")
    return int(parts[0]), int(parts[-1])
