"""The whole robot travels: in stores and checkpoints of a robot that the package does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldeval.data import checkpoint
from worldeval.data.bounds import outside_bounds
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import MismatchError, StoreError
from worldeval.evaluation.opening import ImaginationOptions, robot_of
from worldeval.policies.cloning.config import BCTrainConfig
from worldeval.policies.cloning.training import train_policy
from worldeval.policies.replay import ReplayPolicy
from worldeval.robots import RobotSpec, read_robot, robot_from_json, write_robot
from worldeval.rollout.recording import open_rollouts
from worldeval.types import Episode
from worldeval.world_model.model import WorldModelConfig
from worldeval.worlds.named import robot_of_store

ARM = replace(read_robot("so101"), name="my-arm", image_size=(32, 32))


def recorded(root: Path, robot: RobotSpec = ARM, frames: int = 6) -> Path:
    rng = np.random.default_rng(0)
    steps, dim = robot.steps_per_frame, robot.action_dim
    with open_rollouts(root, robot, images="lossless") as store:
        for number in range(3):
            actions = rng.uniform(20, 90, (frames - 1, steps, dim)).astype(np.float32)
            poses = np.concatenate([actions[:1, 0], actions[:, -1]])
            size = (frames, len(robot.views), *robot.image_size, 3)
            store.append(
                Episode(
                    key=f"e{number}",
                    task="pick",
                    instruction="pick it up",
                    views=robot.views,
                    frames=rng.integers(0, 255, size, dtype=np.uint8),
                    poses=poses,
                    actions=actions,
                    extra={"seed": number, "split": "training"},
                )
            )
    return root


def test_a_store_keeps_the_whole_robot(tmp_path: Path) -> None:
    store = EpisodeStore.open(recorded(tmp_path / "store"))
    assert robot_of_store(store) == ARM


def test_a_robot_that_is_given_must_be_the_stores(tmp_path: Path) -> None:
    store = EpisodeStore.open(recorded(tmp_path / "store"))
    write_robot(replace(ARM, pose_high=(90.0,) * 6), tmp_path / "mine.toml")
    assert robot_of_store(store, str(tmp_path / "mine.toml")).pose_high == (90.0,) * 6
    with pytest.raises(MismatchError, match="has robot 'my-arm', robot 'so101' has"):
        robot_of_store(store, "so101")


def test_a_damaged_robot_of_a_store_is_told(tmp_path: Path) -> None:
    info = recorded(tmp_path / "store") / "meta" / "info.json"
    values = json.loads(info.read_text())
    values["worldeval"]["extra"]["robot"]["control_hz"] = "fast"
    info.write_text(json.dumps(values))
    with pytest.raises(StoreError, match="control_hz is 'fast'"):
        robot_of_store(EpisodeStore.open(tmp_path / "store"))


def test_a_policy_for_joint_targets_is_trained_and_keeps_its_robot(tmp_path: Path) -> None:
    store = recorded(tmp_path / "store")
    config = BCTrainConfig(store=str(store))
    config = replace(config, loop=replace(config.loop, steps=2, batch=2))
    folder = train_policy(config, tmp_path / "policy", ARM, progress=False)
    settings, _ = checkpoint.load(folder, kind="policy-bc")
    assert robot_from_json(settings["robot"]) == ARM


def test_behind_its_end_an_episode_of_targets_stays_where_it_was(tmp_path: Path) -> None:
    store = EpisodeStore.open(recorded(tmp_path / "store", frames=3))
    last = store.episode(0).actions[-1, -1]
    policy = ReplayPolicy(store, ARM)
    np.testing.assert_array_equal(
        policy._chunk(store.episode(0).actions.reshape(-1, 6), 3)[3:], np.tile(last, (9, 1))
    )


def test_a_world_model_keeps_its_robot_and_needs_no_name_to_be_known() -> None:
    config = WorldModelConfig.for_robot(ARM, latent_channels=4, latent_size=(4, 4))
    again = WorldModelConfig.from_json(json.loads(json.dumps(_plain(config))))
    assert again == config
    assert robot_of(again, ImaginationOptions()) == ARM


def _plain(config: WorldModelConfig) -> dict:
    from dataclasses import asdict

    return asdict(config)


def test_recorded_values_outside_the_bounds_are_told_with_both_numbers(tmp_path: Path) -> None:
    store = EpisodeStore.open(recorded(tmp_path / "store"))
    assert outside_bounds(store, ARM) == []
    narrow = replace(ARM, action_high=(100.0, 50.0, 100.0, 100.0, 100.0, 100.0))
    (sentence,) = outside_bounds(store, narrow)
    assert "'shoulder_lift.pos' goes from" in sentence
    assert "-100 to 50" in sentence
