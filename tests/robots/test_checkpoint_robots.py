"""Each checkpoint keeps the whole robot it was trained for, and serves no other in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.robots.test_kept_robots import ARM, recorded
from worldeval import shipped
from worldeval.cli import main
from worldeval.data import checkpoint
from worldeval.data.fit import check_made_for, robot_of_checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import CheckpointError, MismatchError
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.tables import judge_store
from worldeval.policies.cloning import behaviour_cloning
from worldeval.policies.cloning.config import BCConfig
from worldeval.policies.cloning.families import network_of
from worldeval.robots import RobotSpec, read_robot, write_robot
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig

SMALL = "--model.widths 8 8 8 --model.image-size 32 32"
LOOP = "--loop.steps 1 --loop.batch 2 --loop.device cpu --loop.threads 1"


def autoencoder(folder: Path, robot: RobotSpec | None) -> Path:
    settings = AutoencoderConfig(widths=(8, 8, 8), image_size=(32, 32))
    Autoencoder(settings).save(folder, robot=robot)
    return folder


def judge(robot: RobotSpec | None) -> SuccessClassifier:
    config = JudgeConfig(
        views=ARM.views, image_size=ARM.image_size, pose_dim=6, channels=(8, 8, 8), hidden=8
    )
    made = SuccessClassifier(JudgeNetwork(config), Calibration())
    made.robot = robot
    return made


def test_the_shipped_ones_keep_the_sawyer() -> None:
    kinds = (shipped.JUDGE, "progress", shipped.TRUST, shipped.AUTOENCODER)
    for name in (*kinds, shipped.WORLD_MODEL, "policies/full"):
        assert robot_of_checkpoint(shipped.path(name)) == read_robot("metaworld-sawyer")


def test_a_checkpoint_of_an_earlier_version_keeps_none_and_serves_all(tmp_path: Path) -> None:
    folder = autoencoder(tmp_path / "autoencoder", None)
    assert robot_of_checkpoint(folder) is None
    check_made_for("it", None, ARM)
    Autoencoder.load(folder)


def test_the_robot_changes_no_digest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = autoencoder(tmp_path / "plain", None)
    torch.manual_seed(0)
    kept = autoencoder(tmp_path / "kept", ARM)
    assert robot_of_checkpoint(kept) == ARM
    for settings in (False, True):
        assert checkpoint.digest(plain, settings=settings) == checkpoint.digest(
            kept, settings=settings
        )


def test_a_damaged_robot_is_told(tmp_path: Path) -> None:
    folder = autoencoder(tmp_path / "kept", ARM)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"control_hz": 30.0', '"control_hz": "fast"'))
    with pytest.raises(CheckpointError, match="control_hz is 'fast'"):
        robot_of_checkpoint(folder)


def test_a_judge_keeps_its_robot_and_judges_no_other(tmp_path: Path) -> None:
    judge(ARM).save(tmp_path / "judge")
    loaded = SuccessClassifier.load(tmp_path / "judge")
    assert loaded.robot == ARM
    own = EpisodeStore.open(recorded(tmp_path / "own"))
    assert len(judge_store(loaded, own)) == 3
    other = EpisodeStore.open(recorded(tmp_path / "other", replace(ARM, name="their-arm")))
    with pytest.raises(MismatchError, match=r"trained for robot 'my-arm', .* has 'their-arm'"):
        judge_store(loaded, other)
    slow = EpisodeStore.open(recorded(tmp_path / "slow", replace(ARM, control_hz=15.0)))
    with pytest.raises(MismatchError, match=r"frames per second 10\.0, .* has 5\.0"):
        judge_store(loaded, slow)
    assert len(judge_store(judge(None), other)) == 3


def test_a_policy_acts_for_the_robot_that_it_was_trained_for(tmp_path: Path) -> None:
    config = BCConfig.for_robot(ARM, channels=(8, 8, 8), hidden=8)
    network = network_of(config)
    folder = behaviour_cloning.save(tmp_path / "policy", network, name="mine", robot=ARM)
    behaviour_cloning.load(folder, ARM)
    behaviour_cloning.load(folder, replace(ARM, steps_per_frame=2))  # frames are not its business
    with pytest.raises(MismatchError, match="for robot 'my-arm', robot 'their-arm' has"):
        behaviour_cloning.load(folder, replace(ARM, name="their-arm"))


def test_training_keeps_the_robot_of_the_store_or_the_one_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = recorded(tmp_path / "store"), tmp_path / "autoencoder"
    words = f"train autoencoder --store {store} {SMALL} {LOOP} --out"
    assert main([*words.split(), str(out)]) == 0
    assert robot_of_checkpoint(out) == ARM
    mine = replace(ARM, pose_high=(90.0,) * 6)
    write_robot(mine, tmp_path / "mine.toml")
    given = ["--robot", str(tmp_path / "mine.toml")]
    assert main([*words.split(), str(tmp_path / "given"), *given]) == 0
    assert robot_of_checkpoint(tmp_path / "given") == mine
    assert main([*words.split(), str(tmp_path / "no"), "--robot", "so101"]) == 2
    assert "has robot 'my-arm', robot 'so101' has 'so101'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["judge", "margin", "progress", "trust", "population"])
def test_every_training_takes_a_robot_and_refuses_another(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = recorded(tmp_path / "store")
    validation = [] if verb == "population" else ["--validation", str(store)]
    words = ["train", verb, "--store", str(store), *validation, "--robot", "so101"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "has robot 'my-arm', robot 'so101' has 'so101'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_world_model_takes_no_autoencoder_of_another_robot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = recorded(tmp_path / "store")
    theirs = autoencoder(tmp_path / "autoencoder", replace(ARM, name="their-arm"))
    words = f"train world-model --store {store} --autoencoder {theirs} {LOOP}"
    assert main([*words.split(), "--out", str(tmp_path / "world")]) == 2
    said = capsys.readouterr().err
    assert "trained for robot 'their-arm'" in said and "'my-arm'" in said


def test_the_shipped_autoencoder_measures_no_other_robot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = recorded(tmp_path / "store")
    words = f"train trust --store {store} --validation {store} --loop.steps 1"
    assert main([*words.split(), "--out", str(tmp_path / "trust")]) == 2
    assert "trained for robot 'metaworld-sawyer', robot 'my-arm'" in capsys.readouterr().err
