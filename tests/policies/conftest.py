"""A small store of recorded episodes of the toy robot, with known numbers in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.robots import RobotSpec
from worldeval.types import Episode
from worldeval.worlds import toy

FRAMES = 6
WORDS = {"left": "go to the left", "right": "go to the right"}


def toy_episode(robot: RobotSpec, task: str, number: int, *, kind: str = "expert") -> Episode:
    """Action t, s of episode n is 0.01 * (10 t + s) on y, and -1 or 1 on x by task."""
    height, width = robot.image_size
    rng = np.random.default_rng(number)
    moves = FRAMES - 1
    actions = np.zeros((moves, robot.steps_per_frame, robot.action_dim), np.float32)
    actions[..., 0] = -1.0 if task == "left" else 1.0
    actions[..., 1] = 0.01 * (10 * np.arange(moves)[:, None] + np.arange(robot.steps_per_frame))
    actions[..., 3] = 1.0 if number % 2 else -1.0
    expert = actions.copy()
    expert[..., 2] = 0.5
    poses = np.zeros((FRAMES, robot.pose_dim), np.float32)
    poses[:, 2] = 0.1
    return Episode(
        key=f"{task}/{number:02d}/{kind}",
        task=task,
        instruction=WORDS[task],
        views=robot.views,
        frames=rng.integers(0, 256, (FRAMES, len(robot.views), height, width, 3), np.uint8),
        poses=poses,
        actions=actions,
        expert_actions=expert,
        success_at=np.zeros(FRAMES, bool),
        success=kind == "expert",
        extra={"kind": kind, "start_id": f"{task}/training/{number:02d}"},
    )


@pytest.fixture(scope="session")
def toy_robot() -> RobotSpec:
    """Sizes differ pairwise, so that swapped axes cannot pass; made once, as the store is."""
    robot = toy.toy_robot(
        views=("top", "wrist"), image_size=(16, 24), steps_per_frame=2, frames_per_chunk=3
    )
    return replace(
        robot, control_hz=10.0, pose_low=(-0.5, -0.5, 0.0, -1.0), pose_high=(0.5, 0.5, 0.5, 1.0)
    )


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory, toy_robot: RobotSpec) -> EpisodeStore:
    """12 episodes of each of two tasks; every third is of kind "failing". Read only."""
    store = EpisodeStore.create(
        tmp_path_factory.mktemp("stores") / "demonstrations",
        views=toy_robot.views,
        image_size=toy_robot.image_size,
        pose_names=toy_robot.pose_names,
        action_names=toy_robot.action_names,
        steps_per_frame=toy_robot.steps_per_frame,
        fps=toy_robot.frame_hz,
        robot_type=toy_robot.name,
        images="lossless",
        expert_actions=True,
    )
    for number in range(12):
        for task in WORDS:
            kind = "failing" if number % 3 == 2 else "expert"
            store.append(toy_episode(toy_robot, task, number, kind=kind))
    store.close()
    return EpisodeStore.open(store.root)
