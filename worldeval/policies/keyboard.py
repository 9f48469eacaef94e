"""A human at the keys as a policy, or a string of keys played to the end.

Enters: for each chunk, a string of keys from ``keys(observation)``; by default a line typed at the
terminal. ``keyboard?keys=llduco`` plays one key per chunk, then stands still. Leaves: a chunk in
which all keys of the string act at once::

    l r   left, right       f b   forward, back       u d   up, down       .   stand still
    o c   open, close the gripper at once; it stays so until told otherwise

What they move depends on the robot's ``motion``:

==============================  ================================================================
delta_position (Meta-World)     the hand by ``speed`` of its fastest; x right, y forward, z up
absolute_pose, delta_pose       the hand by 2 cm per frame, so that a key moves it 8 cm in a chunk
(DROID's Panda)                 of 4, without turning; x forward, y left, z up
==============================  ================================================================

A repeated key is faster ("ll"), an empty line stands still, "q" ends the run. Joints have no keys:
a Panda is driven in one of the two action spaces above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from worldeval.errors import ConfigError, PolicyError
from worldeval.policies.checking import POSE
from worldeval.policies.scripted import blind_spec
from worldeval.robots import RobotSpec
from worldeval.robots.bounds import reaching, staying
from worldeval.types import Observation

HAND_KEYS = {"l": (0, -1), "r": (0, 1), "b": (1, -1), "f": (1, 1), "d": (2, -1), "u": (2, 1)}
"""Key -> axis and sense for a robot that looks along +y, as Meta-World's."""
ARM_KEYS = {"l": (1, 1), "r": (1, -1), "b": (0, -1), "f": (0, 1), "d": (2, -1), "u": (2, 1)}
"""... and for one that looks along +x, as DROID's."""
GRIPPER = {"o": 0, "c": 1}
QUIT, STILL = "q", "."
FRAME_M = 0.02
"""Metres per frame for one key, where the pose is commanded."""
MEANING = "type some of l r f b u d o c, . to stand still"


def read_line(observation: Observation) -> str:
    """Ask at the terminal; the end of the input (Ctrl-D) quits."""
    try:
        return input(
            f"[{observation.rollout_id} step {observation.step}] "
            f"{observation.instruction} (l r f b u d o c, q quits): "
        )
    except EOFError:
        return QUIT


class KeyboardPolicy:
    """Turns keys into chunks; see the module docstring for the keys.

    keys: asks for the keys of a chunk, or is all of them, one per chunk, for every rollout alike.
    speed: share of the fastest motion, where positions are commanded step by step.
    """

    watches_itself = True  # people take their time

    def __init__(
        self,
        robot: RobotSpec,
        *,
        keys: Callable[[Observation], str] | str = read_line,
        speed: float = 0.5,
        name: str = "keyboard",
    ) -> None:
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed <= 1:
            raise ConfigError(f"speed is {speed!r}, expected a number in (0, 1]")
        check_keys(robot)
        by_pose = robot.control_mode in ("absolute_pose", "delta_pose")
        self.spec = blind_spec(name, robot, state_keys=(POSE,) if by_pose else ())
        self._robot = robot
        self._known = ARM_KEYS if by_pose else HAND_KEYS
        self._keys = self._script(keys) if isinstance(keys, str) else keys
        if not callable(self._keys):
            raise ConfigError(f"keys is {keys!r}, expected letters such as llduco; {MEANING}")
        self._speed = speed
        self._gripper: dict[str, float] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._gripper = {}

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._chunk(o, self._keys(o)) for o in observations])

    def close(self) -> None:
        """Nothing to release."""

    def _script(self, keys: str) -> Callable[[Observation], str]:
        for key in keys.lower():
            if key not in self._known and key not in GRIPPER and key != STILL:
                raise ConfigError(f"keys is {keys!r}, in which {key!r} has no meaning; {MEANING}")
            if key in GRIPPER:
                _need_gripper(self._robot, key)

        def play(observation: Observation) -> str:
            number = observation.step // self.spec.execute
            return keys[number : number + 1]

        return play

    def _chunk(self, observation: Observation, typed: str) -> np.ndarray:
        rollout = observation.rollout_id
        pose = observation.state.get(POSE)
        usual = usual_gripper(self._robot, pose)
        actions, self._gripper[rollout] = actions_of_keys(
            self._robot,
            typed,
            pose=pose,
            gripper=self._gripper.get(rollout, usual),
            speed=self._speed,
        )
        return actions


def usual_gripper(robot: RobotSpec, pose: np.ndarray | None) -> float:
    """Where the gripper is, or open where that is not shown; 0 of a robot without one."""
    if not robot.gripper_axes:
        return 0.0
    return robot.grippers_open[0] if pose is None else float(pose[robot.pose_grippers[0]])


def actions_of_keys(
    robot: RobotSpec, typed: str, *, pose: np.ndarray | None, gripper: float, speed: float = 0.5
) -> tuple[np.ndarray, float]:
    """The chunk (K, A) float32 for all keys of ``typed`` at once, and the gripper's command in it.

    pose: (P,), needed where poses are commanded. gripper: the command that holds until now, of a
    robot that has one.
    Raises PolicyError for a key without a meaning, KeyboardInterrupt for "q".
    """
    by_pose = robot.control_mode in ("absolute_pose", "delta_pose")
    known = ARM_KEYS if by_pose else HAND_KEYS
    motion = np.zeros(3, np.float32)
    for key in typed.strip().lower():
        if key == QUIT:
            raise KeyboardInterrupt("the keyboard policy was asked to quit")
        if key in GRIPPER:
            _need_gripper(robot, key)
            gripper = (robot.grippers_closed if GRIPPER[key] else robot.grippers_open)[0]
        elif key in known:
            axis, sign = known[key]
            motion[axis] += sign
        elif key != STILL and not key.isspace():
            raise PolicyError(f"key {key!r} has no meaning; {MEANING}, {QUIT} to quit")
    steps = np.zeros((robot.chunk_steps, robot.action_dim), np.float32)
    way = list(robot.hands[0][:3])
    if by_pose:
        step_m = motion * (FRAME_M / robot.steps_per_frame)
        if robot.control_mode == "absolute_pose":
            steps[:] = pose
            steps[:, way] += step_m * np.arange(1, len(steps) + 1, dtype=np.float32)[:, None]
        else:
            steps[:, way] = step_m / robot.action_scale_m
    else:
        steps[:, way] = motion * speed
    steps[:, list(robot.gripper_axes)] = gripper
    where = None if pose is None else staying(robot, pose)
    low, high = reaching(robot.action_low, robot.action_high, where)
    return np.clip(steps, low, high).astype(np.float32), gripper


def check_keys(robot: RobotSpec) -> None:
    """Raise ConfigError for a robot that keys cannot drive."""
    if robot.control_mode.startswith("joint"):
        remedy = (
            "choose the action space absolute_pose (--action-space absolute_pose)"
            if robot.hands
            else "where its hand is cannot be told from its joints, so it has no keys"
        )
        raise ConfigError(
            f"robot {robot.name!r} is commanded by {robot.control_mode!r}, the keyboard moves "
            f"hands; {remedy}"
        )
    numbers = 6 if robot.control_mode in ("absolute_pose", "delta_pose") else 3
    one_hand = len(robot.hands) == 1 and robot.action_dim == robot.pose_dim
    if not one_hand or len(robot.moving_axes) != numbers or len(robot.gripper_axes) > 1:
        raise ConfigError(
            f"robot {robot.name!r} has {robot.action_dim} actions, of which "
            f"{len(robot.gripper_axes)} are grippers, expected {numbers} for control mode "
            f"{robot.control_mode!r} and one gripper or none; the keyboard drives no other"
        )


def _need_gripper(robot: RobotSpec, key: str) -> None:
    if not robot.gripper_axes:
        raise ConfigError(
            f"key {key!r} is for a gripper, which robot {robot.name!r} has not; leave it out"
        )
