"""From a suite and a ``Variety`` to recipes: pure, so that a killed run plans the same again.

Enters: start states, poses at which they begin, poses that the arm is known to reach. Leaves: one
recipe per rollout. Each varied start draws from a generator of its own, made of the seed and its
name: more variations, or other start states beside it, change nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec
from worldeval.rollout.suite import Suite
from worldeval.synthesis.recipe import Recipe
from worldeval.synthesis.variety import Variety
from worldeval.types import StartState

FIXED = ("grip", "roll", "pitch", "yaw")
"""Numbers of a pose with these in their name are not moved: the hand stays as it is turned."""
STEP = 0.04
"""Of a robot that says not how far an action carries: share of its range per frame."""
Words = Callable[[str, Sequence[str], np.random.Generator], str]
"""(instruction, how else the suite asks for the task, randomness) -> other words."""


def plan(
    suite: Suite,
    variety: Variety,
    robot: RobotSpec,
    poses: Mapping[str, np.ndarray],
    words: Words,
    *,
    reached: np.ndarray | None = None,
    frames_at_once: int = 1,
) -> tuple[Recipe, ...]:
    """Recipes of all varied starts that wait for no failures, start state by start state.

    poses: start_id -> pose (P,). reached: poses (N, P) that the arm has been seen at; among those
    near enough a moved arm's is chosen, and a random one above the start's if there are none.
    frames_at_once: the arm is moved in a multiple of so many frames, as the world model imagines.
    """
    asked: dict[str, list[str]] = {}
    for start in suite.starts:
        asked.setdefault(start.task, []).append(start.instruction)
    found = []
    for start in suite.starts:
        for number in range(variety.variations - variety.near_failures):
            rng = generator(suite.seed, start.start_id, number)
            draws = rng.random(2)
            varied: dict[str, object] = {}
            if draws[0] < variety.reworded:
                varied["instruction"] = words(start.instruction, asked[start.task], rng)
                varied["words"] = variety.wording
            if draws[1] < variety.moved:
                pose = poses[start.start_id]
                arm = reachable(pose, robot, variety.reach, reached, rng)
                varied["arm"] = tuple(float(value) for value in arm)
                varied["arm_frames"] = frames_to(pose, arm, robot, frames_at_once)
            found += samples_of(start, f"v{number}", variety, suite.seed, varied)
    return tuple(found)


def samples_of(
    start: StartState,
    variation: str,
    variety: Variety,
    seed: int,
    varied: Mapping[str, object],
) -> list[Recipe]:
    """The recipes of one varied start, which differ in their seeds and noise."""
    group = f"{start.start_id}/{variation}"
    made = []
    for sample in range(variety.samples):
        drawn = generator(seed, group, sample).random()
        clean = sample == 0 and variety.samples > 1
        settings: dict[str, object] = {
            "instruction": start.instruction,
            "noise": variety.noise if drawn < variety.noisy and not clean else 0.0,
            **varied,
        }
        made.append(
            Recipe(
                start_id=f"{group}s{sample}",
                base=start.start_id,
                task=start.task,
                split=start.split,
                scene_seed=start.seed,
                meaning=start.instruction,
                group=group,
                **settings,  # type: ignore[arg-type]
            )
        )
    return made


def generator(seed: int, name: str, number: int) -> np.random.Generator:
    """Randomness of one varied start, which shares nothing with that of any other."""
    digest = hashlib.sha256(f"worldeval/synthesis/{seed}/{name}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def reachable(
    pose: np.ndarray,
    robot: RobotSpec,
    reach: float,
    reached: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """A pose (P,) within ``reach`` of ``pose``: one of ``reached``, else one in the robot's range
    that is not lower than ``pose``, where tables and objects are."""
    low, high = np.asarray(robot.pose_low, float), np.asarray(robot.pose_high, float)
    free = np.array([not any(word in name.lower() for word in FIXED) for name in robot.pose_names])
    if not free.any():
        raise ConfigError(
            f"robot {robot.name!r} has poses {robot.pose_names}, none of which can be moved; set "
            "moved = 0"
        )
    start, most = np.asarray(pose, float), reach * (high - low)
    if reached is not None and len(reached):
        away = np.abs(reached - start)[:, free]
        near = reached[(away <= most[free]).all(1) & (away > 0.1 * most[free]).any(1)]
        if len(near):
            return np.where(free, near[rng.integers(len(near))], start)
    below = np.array([name.lower().replace("_m", "").endswith("z") for name in robot.pose_names])
    lowest = np.where(below, start, np.maximum(low, start - most))
    target = rng.uniform(np.minimum(lowest, high), np.maximum(np.minimum(high, start + most), low))
    return np.where(free, target, start)


def frames_to(pose: np.ndarray, arm: np.ndarray, robot: RobotSpec, at_once: int) -> int:
    """Frames that the arm takes there at full speed, rounded up to a multiple of ``at_once``."""
    distance = np.abs(np.asarray(arm, float) - pose)
    if robot.control_mode == "delta_position":
        free = robot.action_scale_m * robot.steps_per_frame
        least = float(distance.max()) / free
    else:
        span = np.asarray(robot.pose_high, float) - robot.pose_low
        least = float((distance / span).max()) / STEP
    return max(1, -(-int(np.ceil(least - 1e-6)) // at_once)) * at_once
