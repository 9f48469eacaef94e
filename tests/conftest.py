"""What all tests share: one thread a process, skips for what this machine lacks, a toy robot."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

# Before anything imports numpy or torch: tests run beside other work and must not fight for cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

from worldeval.robots import CameraSpec, RobotSpec

# A shell that starts the tests in the background lets them ignore Ctrl-C, and their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {}
    if importlib.util.find_spec("metaworld") is None:
        lacking["sim"] = "no simulator: pip install 'worldeval[sim]'"
    if not (CHECKPOINTS / "world-model" / "config.json").is_file():
        lacking["weights"] = f"no shipped checkpoints at {CHECKPOINTS}"
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync guards against power cuts, which no test makes, and takes most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def toy_robot() -> RobotSpec:
    """A robot whose sizes differ pairwise (V 2, T 3, A = P 4, K 6, H 16, W 24), so that swapped
    axes cannot pass: S is 2, control 10 Hz, 5 frames per second."""
    downwards = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return RobotSpec(
        name="toy",
        action_space="toy-delta-position",
        action_names=("dx", "dy", "dz", "gripper"),
        action_low=(-1.0,) * 4,
        action_high=(1.0,) * 4,
        pose_names=("x_m", "y_m", "z_m", "gripper"),
        pose_low=(-0.5, -0.5, 0.0, -1.0),
        pose_high=(0.5, 0.5, 0.5, 1.0),
        action_scale_m=0.01,
        control_hz=10.0,
        steps_per_frame=2,
        frames_per_chunk=3,
        image_size=(16, 24),
        cameras=(
            CameraSpec(
                name="top",
                mount="fixed",
                fovy_rad=0.9,
                position_m=(0.0, 0.0, 1.0),
                rotation=downwards,
            ),
            CameraSpec(
                name="wrist",
                mount="hand",
                fovy_rad=1.2,
                position_m=(0.0, 0.0, 0.1),
                rotation=downwards,
            ),
        ),
    )
