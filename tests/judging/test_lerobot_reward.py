"""A reward model of LeRobot as a judge, with a package of its interface; the real one is heavy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from worldeval import testing
from worldeval.errors import ConfigError, JudgeError, MismatchError, MissingDependencyError
from worldeval.judging.lerobot_reward import LeRobotRewardJudge
from worldeval.judging.loading import load_judge
from worldeval.types import Episode, Outcome

KEY = "observation.images.top"


class Config:
    """As lerobot.configs.rewards.RewardModelConfig of a kind: its fields, and from_pretrained."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def from_pretrained(cls, place: str) -> Config:
        path = Path(place) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"config.json not found in {place}")
        return cls(**json.loads(path.read_text()))

    @property
    def observation_delta_indices(self) -> list[int]:  # SARM's
        gap = self.frame_gap
        return [-2 * gap, -gap, 0, gap, 2 * gap, -gap]


class Step:
    """A step of a pipeline with the normalisation, and with a mode for training."""

    def __init__(self, stats: Any) -> None:
        self.stats, self.mode = stats, "train"

    def eval(self) -> None:
        self.mode = "eval"


class Pipeline:
    def __init__(self, stats: Any) -> None:
        self.steps = [Step(stats)]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert self.steps[0].mode == "eval"
        return batch


class Model(torch.nn.Module):
    """Its reward is the mean brightness of what it is shown last, in [0, 1]."""

    seen: list[dict[str, Any]] = []

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def compute_reward(self, batch: dict[str, Any]) -> torch.Tensor:
        Model.seen.append(batch)
        video = batch[KEY]
        if self.config.type == "reward_classifier":
            assert video.ndim == 4 and video.dtype == torch.float32
            return (video.mean(dim=(1, 2, 3)) > 0.5).float()
        assert video.ndim == 5 and video.dtype == torch.uint8 and video.shape[2] == 3
        last = 4 if self.config.type == "sarm" else -1  # what follows is for training
        value = video[:, last].float().mean(dim=(1, 2, 3)) / 255
        if self.config.type == "robometer":
            assert self.config.reward_output == "success"
            return (value > self.config.success_threshold).float()
        return value.log() if self.config.type == "topreward" else value


@pytest.fixture
def lerobot(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Model]]:
    """lerobot.rewards and lerobot.configs.rewards, with the functions of 0.6."""
    names = ("lerobot", "lerobot.rewards", "lerobot.configs", "lerobot.configs.rewards")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    modules["lerobot.configs.rewards"].RewardModelConfig = Config

    def make_reward_model(config: Config) -> Model:
        print("Loading weights from local directory")
        return Model(config)

    def make_processors(config: Config, *, dataset_stats: Any) -> tuple[Pipeline, None]:
        return Pipeline(dataset_stats), None

    modules["lerobot.rewards"].make_reward_model = make_reward_model
    modules["lerobot.rewards"].make_reward_pre_post_processors = make_processors
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    Model.seen = []
    yield Model


def saved(folder: Path, kind: str = "robometer", **changes: Any) -> Path:
    config: dict[str, Any] = {
        "type": kind,
        "image_key": KEY,
        "max_frames": 8,
        "success_threshold": float("-inf") if kind == "topreward" else 0.5,
    }
    if kind == "sarm":
        del config["success_threshold"]
        config |= {"frame_gap": 30, "state_key": "observation.state"}
        folder.mkdir(parents=True, exist_ok=True)
        stats = {f"observation.state.{s}": np.ones(4, np.float32) for s in ("mean", "std")}
        save_file(stats, folder / "policy_preprocessor_step_2_normalizer_processor.safetensors")
    if kind == "reward_classifier":
        del config["image_key"]
        config["input_features"] = {KEY: {}, "observation.state": {}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def episode(light: int, length: int = 20, **changes: Any) -> Episode:
    frames = np.zeros((length, 2, 8, 8, 3), np.uint8)
    frames[-1, 1] = light
    fields: dict[str, Any] = {
        "key": f"e{light}",
        "task": "reach",
        "instruction": "reach the cup",
        "views": ("front", "top"),
        "frames": frames,
        "poses": np.arange(length * 4, dtype=np.float32).reshape(length, 4),
        "actions": np.zeros((length - 1, 1, 4), np.float32),
    }
    return Episode(**(fields | changes))


DARK, LIGHT = 40, 220


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("robometer", ""),
        ("reward_classifier", ""),
        ("topreward", "?threshold=-0.5"),
        ("sarm", "?threshold=0.5&gap=2"),
    ],
)
def test_each_kind_judges_by_its_reward(
    lerobot: type[Model], tmp_path: Path, capsys: Any, kind: str, arguments: str
) -> None:
    folder = saved(tmp_path / "model", kind)
    judge = load_judge(f"lerobot-reward:{folder}{arguments}")
    assert judge.name.startswith(f"lerobot-{kind}@")
    assert capsys.readouterr().out == ""  # what LeRobot prints is no answer
    episodes = [episode(DARK), episode(LIGHT)]
    testing.check_judge(judge, episodes)
    verdicts = judge.judge(episodes)
    assert [v.outcome for v in verdicts] == [Outcome.FAILURE, Outcome.SUCCESS]
    assert {v.probability for v in verdicts} == {None}
    assert verdicts[1].frames[-1] == 19 and "above" in verdicts[1].reason
    assert lerobot.seen[0]["task"] == ["reach the cup"]


def test_frames_are_spread_over_the_rollout_and_sarm_gets_its_window(
    lerobot: type[Model], tmp_path: Path
) -> None:
    judge = load_judge(f"lerobot-reward:{saved(tmp_path / 'a')}")
    assert judge.judge([episode(9)])[0].frames == (0, 3, 5, 8, 11, 14, 16, 19)
    assert judge.judge([episode(9, 3)])[0].frames == (0, 1, 2)
    sarm = load_judge(f"lerobot-reward:{saved(tmp_path / 'b', 'sarm')}?gap=4&threshold=0.5")
    one = episode(LIGHT)
    assert sarm.judge([one])[0].frames == (11, 15, 19)
    batch = lerobot.seen[-1]
    assert np.array_equal(batch["observation.state"][0], one.poses[[11, 15, 19, 19, 19, 15]])
    joints = np.ones((20, 4), np.float32)
    other = episode(LIGHT, poses=np.zeros((20, 6), np.float32), joints=joints)
    sarm.judge([other])
    assert float(lerobot.seen[-1]["observation.state"].min()) == 1
    with pytest.raises(MismatchError, match="a state of 4 numbers, 'e220' has 6"):
        sarm.judge([episode(LIGHT, poses=np.zeros((20, 6), np.float32))])


def test_rollouts_that_ended_early_are_not_asked_about(
    lerobot: type[Model], tmp_path: Path
) -> None:
    judge = load_judge(f"lerobot-reward:{saved(tmp_path)}")
    broken = episode(LIGHT, extra={"outcome": "error", "error": "it hung"})
    assert [v.outcome for v in judge.judge([broken, episode(LIGHT, 1)])] == [
        Outcome.ERROR,
        Outcome.UNDECIDED,
    ]
    assert not lerobot.seen


def test_another_threshold_or_weight_is_another_judge(lerobot: type[Model], tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    one, same, other = (
        load_judge(f"lerobot-reward:{folder}{a}").name for a in ("", "", "?threshold=0.9")
    )
    assert one == same != other
    (folder / "model.safetensors").write_bytes(b"other")
    assert load_judge(f"lerobot-reward:{folder}").name != one
    assert load_judge(f"lerobot-reward:{folder}?name=7").name == "7"
    strict = load_judge(f"lerobot-reward:{folder}?threshold=0.99")
    assert strict.judge([episode(LIGHT)])[0].outcome is Outcome.FAILURE


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("topreward", "", "a log-probability and says nothing of .*give threshold=NUMBER"),
        ("sarm", "?gap=3", "progress from 0 to 1 and says nothing"),
        ("sarm", "?threshold=0.5", "30 rows of its data set apart; give gap=FRAMES"),
        ("sarm", "?threshold=0.5&gap=0", "gap is 0, expected 1 or more"),
        ("reward_classifier", "?threshold=0.5", "decides by itself; leave threshold=0.5 out"),
        ("robometer", "?thresold=0.5", "unknown setting 'thresold' .did you mean 'threshold'"),
        ("robometer", "?threshold=high", "threshold"),
        ("robometer", "?threshold", "cannot read 'threshold', expected name=value"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    lerobot: type[Model], tmp_path: Path, kind: str, arguments: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_judge(f"lerobot-reward:{saved(tmp_path, kind)}{arguments}")


def test_a_threshold_that_the_model_brings_is_taken(lerobot: type[Model], tmp_path: Path) -> None:
    judge = load_judge(f"lerobot-reward:{saved(tmp_path, 'topreward', success_threshold=-0.5)}")
    assert isinstance(judge, LeRobotRewardJudge) and judge.threshold == -0.5
    assert "reward -0.1" in judge.judge([episode(LIGHT)])[0].reason  # the number, not 1 or 0


def test_what_the_model_looks_at_is_found_or_told(lerobot: type[Model], tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    one = episode(LIGHT, views=("left", "right"))
    with pytest.raises(MismatchError, match=r"'observation.images.top'.*left, right; give view="):
        load_judge(f"lerobot-reward:{folder}").judge([one])
    judge = load_judge(f"lerobot-reward:{folder}?view=right")
    assert judge.judge([one])[0].outcome is Outcome.SUCCESS
    alone = episode(LIGHT, views=("only",), frames=one.frames[:, 1:])
    assert load_judge(f"lerobot-reward:{folder}").judge([alone])[0].outcome is Outcome.SUCCESS


def test_a_model_that_fails_is_told_in_one_sentence(
    lerobot: type[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JudgeError, match="cannot be opened by LeRobot as a reward model .FileNot"):
        load_judge(f"lerobot-reward:{tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match="names no place"):
        load_judge("lerobot-reward:")
    bare = saved(tmp_path / "bare", "sarm")
    next(bare.glob("*.safetensors")).unlink()
    with pytest.raises(ConfigError, match="no normalisation of observation.state"):
        load_judge(f"lerobot-reward:{bare}?threshold=0.5&gap=1").judge([episode(1)])
    judge = load_judge(f"lerobot-reward:{saved(tmp_path / 'model')}")
    monkeypatch.setattr(Model, "compute_reward", lambda *_: torch.tensor([float("nan")]))
    with pytest.raises(JudgeError, match="gave the reward nan for 'e1', expected a finite"):
        judge.judge([episode(1)])

    def fails(*_: Any) -> torch.Tensor:
        raise KeyError("batch missing")

    monkeypatch.setattr(Model, "compute_reward", fails)
    with pytest.raises(JudgeError, match="robometer at .* failed on 'e1' .KeyError: 'batch miss"):
        judge.judge([episode(1)])


def test_without_lerobot_it_says_which_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lerobot.rewards", None)
    with pytest.raises(MissingDependencyError, match=r"needs lerobot 0.6 .*pip install 'lerobot\["):
        load_judge("lerobot-reward:checkpoints/robometer")
