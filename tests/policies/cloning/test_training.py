from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldeval.data import checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError
from worldeval.learning.config import LoopConfig
from worldeval.policies.cloning import training as bc_training
from worldeval.policies.cloning.behaviour_cloning import load
from worldeval.policies.cloning.candidates import candidate_config, candidate_configs, candidates
from worldeval.policies.cloning.config import BCTrainConfig
from worldeval.policies.cloning.training import train_policies, train_policy
from worldeval.robots import RobotSpec
from worldeval.types import Observation


@pytest.fixture
def config(toy_store: EpisodeStore) -> BCTrainConfig:
    return BCTrainConfig(
        store=str(toy_store.root),
        channels=(8, 8, 16),
        hidden=32,
        loop=replace(
            BCTrainConfig(store="").loop,
            steps=8,
            batch=8,
            warmup=2,
            save_every_s=0.0,
            report_every=2,
            validate_every=4,
        ),
    )


def with_loop(config: BCTrainConfig, **settings: Any) -> BCTrainConfig:
    return replace(config, loop=replace(config.loop, **settings))


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(folder, kind="policy-bc")[1]


def test_checkpoints_of_every_validation_may_be_kept(
    tmp_path: Path, config: BCTrainConfig, toy_robot: RobotSpec
) -> None:
    last = train_policy(
        config, tmp_path / "clone", toy_robot, keep=tmp_path / "steps", progress=False
    )
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["step-00004", "step-00008"]
    first, second = (weights_of(tmp_path / "steps" / f"step-{n:05d}") for n in (4, 8))
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    final = weights_of(last)
    assert all(np.array_equal(second[name], final[name]) for name in final)
    assert load(tmp_path / "steps/step-00004").spec.name == "clone-step-00004"


def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, config: BCTrainConfig, toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_policy(config, tmp_path / "whole", toy_robot, progress=False)
    step_loss = bc_training._Training.step_loss

    def dies(self, module, step, generator):
        if step == 5:
            raise SystemExit("killed")
        return step_loss(self, module, step, generator)

    with monkeypatch.context() as during:
        during.setattr(bc_training._Training, "step_loss", dies)
        with pytest.raises(SystemExit):
            train_policy(config, tmp_path / "killed", toy_robot, progress=False)
    state = tmp_path / "killed" / "training" / "state.safetensors"
    assert state.is_file()
    with pytest.raises(ConfigError, match="seed = 0, now it is 1"):
        train_policy(with_loop(config, seed=1), tmp_path / "killed", toy_robot, progress=False)
    again = train_policy(config, tmp_path / "killed", toy_robot, progress=False)
    first, second = weights_of(whole), weights_of(again)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not state.exists()
    rows = [
        [json.loads(line) for line in (folder / "training/metrics.jsonl").read_text().splitlines()]
        for folder in (whole, again)
    ]
    assert [row["step"] for row in rows[0]] == [2, 4, 4, 6, 8, 8]
    for one, other in zip(*rows, strict=True):
        assert one.get("loss") == other.get("loss")
        assert one.get("held_out_error") == other.get("held_out_error")


def test_it_learns_to_follow_the_instruction(
    tmp_path: Path, config: BCTrainConfig, toy_robot: RobotSpec
) -> None:
    config = replace(config, blur_share=0.0)
    config = with_loop(config, steps=90, batch=16, learning_rate=3e-3, ema=0.9, save_every_s=60)
    folder = train_policy(config, tmp_path / "clone", toy_robot, name="pupil", progress=False)
    policy = load(folder)
    assert policy.spec.name == "pupil"
    rng = np.random.default_rng(0)
    seen = [
        Observation(
            images={
                v: rng.integers(0, 256, (*toy_robot.image_size, 3), np.uint8)
                for v in toy_robot.views
            },
            state={"pose": np.array([0, 0, 0.1, 0], np.float32)},
            instruction=words,
            rollout_id=words,
            step=0,
        )
        for words in ("go to the left", "go to the right", "please go right")
    ]
    left, right, reworded = policy.act(seen)[:, :2].mean(1)
    assert left[0] < -0.6
    assert right[0] > 0.6
    assert reworded[0] > 0.0
    np.testing.assert_allclose([left[2], right[2]], 0.5, atol=0.2)  # the expert's action
    card = checkpoint.read_header(folder)["card"]
    assert card["episodes"] == 20
    assert card["frames"] == 100
    # x is known, z too; the gripper cannot be (0.25 of the mean over axes), y only roughly
    assert card["held_out_error"] < 0.5
    assert card["training"]["steps"] == 90


def test_several_candidates_share_the_data_and_finished_ones_are_kept(
    tmp_path: Path, config: BCTrainConfig, toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def soft(frames: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        return frames

    config = with_loop(config, steps=2)
    configs = {
        "whole": config,
        "one-eye": replace(config, cameras=("top",), demonstrations=2),
        "sloppy": replace(config, label_noise=0.3, labels="executed"),
    }
    done = train_policies(configs, tmp_path, toy_robot, corruption=soft, progress=False)
    assert list(done) == list(configs)
    assert load(done["one-eye"]).spec.cameras == ("top",)
    assert checkpoint.read_header(done["one-eye"])["card"]["episodes"] == 4
    assert sum(calls) == 2 * round(config.corrupted_share * 24 * 6)
    monkeypatch.setattr(bc_training.Demonstrations, "load", None)  # nothing is left to load for
    train_policies(configs, tmp_path, toy_robot, progress=False)
    with pytest.raises(ConfigError, match="steps = 2, now it is 4"):
        train_policy(with_loop(config, steps=4), tmp_path / "whole", toy_robot)


def test_actions_beyond_a_bound_cost_nothing(
    tmp_path: Path, config: BCTrainConfig, toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    data = bc_training.Demonstrations.load(toy_store, [config.selection], toy_robot)
    training = bc_training._Training(config, tmp_path, toy_robot, "clone", data)
    targets = np.zeros((1, 6, 4), np.float32)
    targets[..., 0], targets[..., 1] = 1.0, -1.0
    ones = np.ones((1, 6), np.float32)
    predicted = torch.tensor([3.0, -3.0, 0.0, 0.2]).expand(1, 6, 4)
    loss = training._loss(predicted, targets, ones, ones)
    # Huber of 0.2 with beta 0.1 is 0.2 - 0.05, on one of four axes
    assert float(loss) == pytest.approx((0.2 - 0.05) / 4)
    opposite = training._loss(-predicted, targets, ones, ones)
    assert float(opposite) == pytest.approx((2 * (4 - 0.05) + 0.15) / 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden", 0),
        ("demonstrations", 0),
        ("labels", "human"),
        ("blur_share", 1.5),
    ],
)
def test_unusable_training_settings_raise(config: BCTrainConfig, field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(config, **{field: value})


def test_candidates_are_many_and_differ(toy_robot: RobotSpec) -> None:
    configs = candidate_configs("store", loop=LoopConfig(seed=3))
    assert len(configs) >= 8
    assert len({json.dumps(c.identity()) for c in configs.values()}) == len(configs)
    assert list(configs) == list(candidates())
    assert candidate_config("full", "store").loop.steps == configs["full"].loop.steps
    assert all(c.loop.seed == 3 for c in configs.values())
    with pytest.raises(ConfigError, match="expected one of full"):
        candidate_config("fulll", "store")
    with pytest.raises(ConfigError, match="'left' is none of robot 'toy'"):
        configs["one-eye"].network(toy_robot)
