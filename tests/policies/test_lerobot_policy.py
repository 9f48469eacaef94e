"""What a LeRobot checkpoint says of itself is compared with the robot before LeRobot is asked."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from worldeval.errors import MismatchError, MissingDependencyError, PolicyError
from worldeval.motion.panda import panda
from worldeval.policies.lerobot import LeRobotPolicy, _state_of, _view_of
from worldeval.policies.loading import load_policy
from worldeval.worlds.toy import TOY_ROBOT


def checkpoint(folder: Path, **changes: Any) -> Path:
    views = {
        f"observation.images.{view}": {"type": "VISUAL", "shape": [3, 32, 32]}
        for view in TOY_ROBOT.views
    }
    config: dict[str, Any] = {
        "type": "act",
        "n_obs_steps": 1,
        "n_action_steps": 6,
        "input_features": {"observation.state": {"type": "STATE", "shape": [4]}, **views},
        "output_features": {"action": {"type": "ACTION", "shape": [4]}},
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"n_obs_steps": 2}, PolicyError, "looks at 2 instants"),
        ({"temporal_ensemble_coeff": 0.01}, PolicyError, "temporal_ensemble_coeff"),
        ({"output_features": {"other": {}}}, PolicyError, "has no 'action'"),
        ({"type": None}, PolicyError, "has no 'type'"),
        (
            {"input_features": {"observation.images.ceiling": {"type": "VISUAL", "shape": [3, 8]}}},
            MismatchError,
            "'observation.images.ceiling', which is none of the views",
        ),
        (
            {"input_features": {"observation.state": {"type": "STATE", "shape": [14]}}},
            MismatchError,
            "a state of 14 numbers, robot 'toy' has 4",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_here_is_said_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        LeRobotPolicy(checkpoint(tmp_path, **changes), TOY_ROBOT)


def test_no_checkpoint_is_said() -> None:
    with pytest.raises(PolicyError, match="there is no LeRobot checkpoint at"):
        load_policy("lerobot:nowhere", TOY_ROBOT)


@pytest.mark.skipif(importlib.util.find_spec("lerobot") is not None, reason="LeRobot is here")
def test_without_lerobot_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="pip install lerobot"):
        load_policy(f"lerobot:{checkpoint(tmp_path)}", TOY_ROBOT)


def test_droids_spelling_is_known() -> None:
    robot = panda()
    assert _view_of("observation.images.exterior_1_left", robot) == "exterior_1"
    assert _view_of("observation.images.wrist_image_left", robot) == "wrist"
    assert _state_of(8, robot) == ("joint_position", "gripper_position")
    assert _state_of(7, robot) == ("pose",)
    assert _state_of(0, robot) == ()
