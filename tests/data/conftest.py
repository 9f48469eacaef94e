"""Small episodes and stores for the tests of this room."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from worldeval.data.episodes import EpisodeStore
from worldeval.types import Episode

VIEWS = ("left", "wrist")
LAYOUT: dict[str, Any] = {
    "views": VIEWS,
    "image_size": (16, 24),
    "pose_names": ("x", "y", "gripper"),
    "action_names": ("dx", "dy", "gripper"),
    "steps_per_frame": 2,
    "fps": 10,
    "robot_type": "toy",
}


def make_episode(number: int, length: int = 5, **changes: Any) -> Episode:
    """An episode that differs from all others in every array."""
    rng = np.random.default_rng(number)
    # Blocks of 8 px: sharp pictures that H.264 keeps recognisable.
    blocks = rng.integers(0, 256, (length, 2, 2, 3, 3), np.uint8)
    fields: dict[str, Any] = {
        "key": f"episode-{number}",
        "task": "push",
        "instruction": f"push the block {number % 2}",
        "views": VIEWS,
        "frames": blocks.repeat(8, axis=2).repeat(8, axis=3),
        "poses": rng.normal(size=(length, 3)).astype(np.float32),
        "actions": rng.normal(size=(length - 1, 2, 3)).astype(np.float32),
        "success_at": rng.random(length) > 0.5,
        "success": [True, False, None][number % 3],
        "extra": {"seed": number, "policy": "expert"},
    }
    return Episode(**(fields | changes))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    """Syncs guard against power cuts, which no test can make, and are slow on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def episode() -> Callable[..., Episode]:
    return make_episode


@pytest.fixture
def layout() -> dict[str, Any]:
    return dict(LAYOUT)


@pytest.fixture(params=["lossless", "video"])
def store(tmp_path, request) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", images=request.param, **LAYOUT)


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Equal in all but frames, which are equal too unless ``lossy``."""

    def check(one: Episode, other: Episode, lossy: bool = False) -> None:
        for name in ("key", "task", "instruction", "views", "success", "extra"):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("poses", "actions", "success_at", "expert_actions"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None), name
            if mine is not None:
                assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
        assert one.frames.dtype == np.uint8 and one.frames.shape == other.frames.shape
        error = np.abs(one.frames.astype(int) - other.frames).mean()
        assert error == 0 or (lossy and error < 40), error

    return check
