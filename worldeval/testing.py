"""Is my policy, world or judge what the others expect? Checks for the tests of your own package.

Enters: a policy, a world or a judge. Leaves: nothing, or ConformanceError with what was given and
what was expected. The toy world and its robot serve as fakes: no simulator, no model.

    from worldeval import testing
    testing.check_policy(MyPolicy(testing.TOY_ROBOT), testing.TOY_ROBOT)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worldeval.errors import WorldEvalError
from worldeval.policies.checking import states
from worldeval.robots import RobotSpec
from worldeval.types import (
    ActionChunk,
    Episode,
    Judge,
    Observation,
    Outcome,
    Policy,
    StartState,
    World,
    WorldStep,
    frames_at_a_time,
)
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy, ToyWorld, toy_robot, toy_starts

__all__ = [
    "TOY_ROBOT",
    "ConformanceError",
    "ToyPolicy",
    "ToyWorld",
    "check_judge",
    "check_policy",
    "check_served",
    "check_world",
    "toy_robot",
    "toy_starts",
]


class ConformanceError(WorldEvalError):
    """A policy, world or judge that does not keep to its protocol."""


def check_policy(
    policy: Policy,
    robot: RobotSpec,
    *,
    instruction: str = "do the task",
    images: Mapping[str, np.ndarray] | None = None,
    count: int = 2,
    seed: int = 0,
) -> None:
    """Raise ConformanceError unless ``policy`` acts for ``robot``: a spec that fits, finite actions
    (B, chunk, A) as numbers, and the same ones for the same observations and seeds.

    images: view -> (H, W, 3) uint8 of what it is shown; noise if None. count: rollouts at once.
    """
    spec = policy.spec
    _same("policy.spec.action_space", spec.action_space, robot.action_space)
    _same("policy.spec.action_dim", spec.action_dim, robot.action_dim)
    first, again = (_act(policy, robot, instruction, images, count, seed) for _ in range(2))
    _array("policy.act", first, (count, spec.chunk, spec.action_dim), np.floating)
    if not np.array_equal(first, again):
        raise ConformanceError(
            "policy.act gave other actions for the same observations and seeds, expected equal "
            "ones; take all randomness from the seeds given to reset, and forget earlier rollouts "
            "there"
        )


def check_served(
    served: Policy, policy: Policy, robot: RobotSpec, *, chunks: int = 3, seed: int = 0
) -> None:
    """Raise ConformanceError unless a policy behind a wire answers as the same one in process, to
    the bit, over an episode of made-up observations.

    served: the policy as its client gives it. policy: the same one, in process. chunks: times that
    each is asked.
    """
    for name in ("cameras", "image_size", "state_keys", "action_space", "action_dim", "chunk"):
        _same(f"served.spec.{name}", getattr(served.spec, name), getattr(policy.spec, name))
    height, width = policy.spec.image_size or robot.image_size
    rng = np.random.default_rng(seed)
    low, high = np.asarray(robot.pose_low), np.asarray(robot.pose_high)
    for one in (served, policy):
        one.reset(["served/0"], ["do the task"], [seed])
    for number in range(chunks):
        joints = rng.uniform(-1, 1, robot.joint_dim) if robot.joint_names else None
        shown = states(robot, rng.uniform(low, high), joints)
        observation = Observation(
            images={
                name: rng.integers(0, 256, (height, width, 3), np.uint8)
                for name in policy.spec.cameras
            },
            state={name: shown[name] for name in policy.spec.state_keys},
            instruction="do the task",
            rollout_id="served/0",
            step=number * policy.spec.execute,
        )
        over, here = (np.asarray(one.act([observation]), np.float32) for one in (served, policy))
        if over.tobytes() != here.tobytes() or over.shape != here.shape:
            raise ConformanceError(
                f"served.act gave other actions than the policy in process in chunk {number}, "
                "expected equal ones to the bit; look at the images and states that are sent, and "
                "at the seed of its reset"
            )


def check_world(world: World, starts: Sequence[StartState]) -> None:
    """Raise ConformanceError unless ``world`` resets and steps as ``types.World`` says, and answers
    the same to the same start states, seeds and actions."""
    robot, seeds = world.robot, list(range(len(starts)))
    at_once = frames_at_a_time(world)
    if at_once is not None and not (isinstance(at_once, int) and at_once >= 1):
        raise ConformanceError(
            f"world.frames_per_step is {at_once!r}, expected 1 or more, or None for any number"
        )
    steps = []
    for _ in range(2):
        opening = world.reset(starts, seeds)
        _step("world.reset", opening, robot, len(starts), 1)
        frames = min(robot.frames_per_chunk, at_once or robot.frames_per_chunk)
        poses = np.repeat(np.asarray(opening.poses, np.float32)[:, -1:], frames, axis=1)
        joints = opening.joints
        chunk = ActionChunk(
            actions=np.zeros(
                (len(starts), frames * robot.steps_per_frame, robot.action_dim), np.float32
            ),
            poses=poses,
            joints=None if joints is None else np.repeat(joints[:, -1:], frames, axis=1),
        )
        steps.append(world.step(chunk, range(len(starts))))
        _step("world.step", steps[-1], robot, len(starts), frames)
    if not np.array_equal(steps[0].frames, steps[1].frames):
        raise ConformanceError(
            "world.step gave other frames for the same start states, seeds and actions, expected "
            "equal ones; take all randomness from the seeds given to reset"
        )


def check_judge(judge: Judge, episodes: Sequence[Episode]) -> None:
    """Raise ConformanceError unless ``judge`` gives one verdict per episode, in their order, with a
    known outcome and a probability between 0 and 1 or None."""
    verdicts = judge.judge(episodes)
    _same("keys of judge.judge", [v.key for v in verdicts], [e.key for e in episodes])
    for verdict in verdicts:
        if not isinstance(verdict.outcome, Outcome):
            raise ConformanceError(
                f"judge.judge gave the outcome {verdict.outcome!r}, expected one of "
                f"{[str(outcome) for outcome in Outcome]}"
            )
        probability = verdict.probability
        if probability is not None and not 0 <= probability <= 1:
            raise ConformanceError(
                f"judge.judge gave the probability {probability!r}, expected 0 to 1, or None if "
                "the judge has none"
            )
        _same("verdict.judge", verdict.judge, judge.name)


def _act(
    policy: Policy,
    robot: RobotSpec,
    instruction: str,
    images: Mapping[str, np.ndarray] | None,
    count: int,
    seed: int,
) -> np.ndarray:
    ids = [f"check-{i}" for i in range(count)]
    policy.reset(ids, [instruction] * count, [seed + i for i in range(count)])
    pose = (np.asarray(robot.pose_low) + np.asarray(robot.pose_high)) / 2
    joints = np.zeros(robot.joint_dim) if robot.joint_names else None
    height, width = policy.spec.image_size or robot.image_size
    pixels = np.random.default_rng(seed)
    shown = images or {
        name: pixels.integers(0, 255, (height, width, 3), np.uint8) for name in robot.views
    }
    observations = [
        Observation(
            images=shown,
            state=states(robot, pose, joints),
            instruction=instruction,
            rollout_id=name,
            step=0,
        )
        for name in ids
    ]
    return np.asarray(policy.act(observations))


def _step(what: str, step: WorldStep, robot: RobotSpec, count: int, frames: int) -> None:
    shape = (count, frames, len(robot.views), *robot.image_size, 3)
    _array(f"frames of {what}", step.frames, shape, np.uint8)
    _array(f"poses of {what}", step.poses, (count, frames, len(robot.pose_names)), np.floating)
    if step.success is not None:
        _array(f"success of {what}", step.success, (count, frames), np.bool_)
    _same(f"rows of info of {what}", len(step.info), count)


def _array(what: str, given: Any, shape: tuple[int, ...], kind: type) -> None:
    array = np.asarray(given)
    _same(f"the shape of {what}", array.shape, shape)
    if not np.issubdtype(array.dtype, kind):
        raise ConformanceError(f"{what} is {array.dtype}, expected {kind.__name__}")
    if not np.isfinite(array).all():
        raise ConformanceError(f"{what} has numbers that are not finite, expected finite ones")


def _same(what: str, given: Any, expected: Any) -> None:
    if given != expected:
        raise ConformanceError(f"{what} is {given!r}, expected {expected!r}")
