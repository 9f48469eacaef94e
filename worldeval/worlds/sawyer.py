"""The embedded robot and its tasks as values: no simulator is imported here.

What enters: nothing. What leaves: ``ROBOT`` (Meta-World's Sawyer: rates, bounds, three calibrated
cameras), ``TASKS`` (names, scenes, wordings, opposed tasks) and ``start_states``. The
demonstration and imagined worlds need exactly this much and run without MuJoCo.

A seed fixes a *scene*, not a task: tasks of one scene share their seeds, so ``drawer-open`` and
``drawer-close`` begin with the same picture and only the words tell them apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, StartStateError
from worldeval.robots import read_robot
from worldeval.types import Episode, StartState

SPLITS = ("training", "validation", "evaluation")
_SEEDS_PER_SPLIT = 2**40


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the embedded world.

    meta_world: name of the Meta-World environment that defines success and the scripted expert.
    opposed: a task of the same scene that asks for something else, for experts that go wrong.
    """

    name: str
    scene: str
    meta_world: str
    opposed: tuple[str, ...]
    instructions: tuple[str, ...]


def _task(
    name: str, scene: str, opposed: Sequence[str], instructions: Sequence[str], meta_world: str = ""
) -> Task:
    return Task(
        name=name,
        scene=scene,
        meta_world=meta_world or f"{name}-v3",
        opposed=tuple(opposed),
        instructions=tuple(instructions),
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(
            "drawer-open",
            "drawer",
            ["drawer-close"],
            ["open the drawer", "pull the drawer out", "slide the drawer open", "pull the handle"],
        ),
        _task(
            "drawer-close",
            "drawer",
            ["drawer-open"],
            ["close the drawer", "push the drawer in", "slide the drawer shut", "shut the drawer"],
        ),
        _task(
            "window-open",
            "window",
            ["window-close"],
            [
                "open the window",
                "slide the window open",
                "push the window to the right",
                "move the window handle right",
            ],
        ),
        _task(
            "window-close",
            "window",
            ["window-open"],
            [
                "close the window",
                "slide the window shut",
                "push the window to the left",
                "move the window handle left",
            ],
        ),
        _task(
            "faucet-open",
            "faucet",
            ["faucet-close"],
            [
                "open the faucet",
                "turn the faucet on",
                "turn the tap to the right",
                "rotate the handle counterclockwise",
            ],
        ),
        _task(
            "faucet-close",
            "faucet",
            ["faucet-open"],
            [
                "close the faucet",
                "turn the faucet off",
                "turn the tap to the left",
                "rotate the handle clockwise",
            ],
        ),
        _task(
            "button-press",
            "button",
            [],
            [
                "press the button",
                "push the red button down",
                "hit the button from above",
                "press down on the button",
            ],
            meta_world="button-press-topdown-v3",
        ),
        _task(
            "reach",
            "puck",
            ["push", "pick-place"],
            [
                "reach to the red ball",
                "move the hand to the red ball",
                "touch the red ball",
                "go to the red marker",
            ],
        ),
        _task(
            "push",
            "puck",
            ["reach", "pick-place"],
            [
                "push the puck to the green spot",
                "slide the puck onto the green spot",
                "move the puck to the green marker",
                "push the yellow puck to green",
            ],
        ),
        _task(
            "pick-place",
            "puck",
            ["reach", "push"],
            [
                "lift the puck to the blue ball",
                "pick up the puck and bring it to the blue ball",
                "raise the puck to the blue marker",
                "carry the yellow puck to blue",
            ],
        ),
    )
}

SCENES = tuple(dict.fromkeys(task.scene for task in TASKS.values()))


def task_of(name: str) -> Task:
    """The task of a name, or StartStateError listing what there is."""
    try:
        return TASKS[name]
    except KeyError:
        known = ", ".join(TASKS)
        raise StartStateError(
            f"task {name!r} does not exist in this world; it has: {known}"
        ) from None


def scene_seed(split: str, scene: str, index: int) -> int:
    """Seed of the index-th start of a scene. The ranges of the splits cannot overlap."""
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if index < 0:
        raise ConfigError(f"index is {index}, expected 0 or more")
    digest = hashlib.sha256(f"{split}/{scene}/{index}".encode()).digest()
    return SPLITS.index(split) * _SEEDS_PER_SPLIT + int.from_bytes(digest[:5], "big")


def start_state(split: str, task: str, index: int) -> StartState:
    """The index-th start of a task; the wording of its instruction goes round."""
    spec = task_of(task)
    seed = scene_seed(split, spec.scene, index)
    return StartState(
        start_id=f"{task}/{split}/{index:04d}",
        task=task,
        seed=seed,
        split=split,
        instruction=spec.instructions[index % len(spec.instructions)],
    )


def start_states(split: str, task: str, count: int, first: int = 0) -> list[StartState]:
    return [start_state(split, task, index) for index in range(first, first + count)]


ROBOT = read_robot("metaworld-sawyer")
"""Meta-World's bounds for the mocap hand, the same for all tasks here (its faucet allows the hand
below the table; ours does not). control_hz is nominal: it fixes playback at 10 frames/s."""
CAMERAS = ROBOT.cameras
LOOK_AT_M = (0.0, 0.70, 0.13)
"""What the cameras at the sides look at, ..."""
DISTANCE_M = 1.0
"""... and from how far."""


def simulated_episode(
    key: str,
    kind: str,
    start: StartState,
    *,
    frames: Sequence[np.ndarray],
    poses: Sequence[np.ndarray],
    actions: np.ndarray,
    success_at: Sequence[bool],
    extra: Mapping[str, Any],
    expert_actions: np.ndarray | None = None,
) -> Episode:
    """What came of one motion of the embedded robot, T steps after ``start``.

    kind: of the motion. frames: T+1 of (V, H, W, C). poses: T+1 of (P,). actions, expert_actions:
    (T, S, A). extra: facts of it besides where it began.
    """
    return Episode(
        key=key,
        task=start.task,
        instruction=start.instruction,
        views=ROBOT.views,
        frames=np.stack(frames),
        poses=np.array(poses, np.float32),
        actions=actions,
        success_at=np.array(success_at, bool),
        expert_actions=expert_actions,
        success=any(success_at),
        extra={
            "kind": kind,
            "seed": start.seed,
            "split": start.split,
            "start_id": start.start_id,
            **extra,
        },
    )
