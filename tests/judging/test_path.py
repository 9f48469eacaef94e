"""A judge that has watched the whole rollout and the hand's path in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.judging.conftest import walk
from tests.judging.test_margin import measured_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.judging.loading import load_judge
from worldeval.judging.margin import MarginJudge
from worldeval.judging.margin_training import MarginTrainConfig, train_margin
from worldeval.judging.network import JudgeConfig
from worldeval.judging.path import PathHead, PathJudge, path_network
from worldeval.judging.path_training import PathTrainConfig, looked_at, path_loss, train_path
from worldeval.judging.samples import FrameCache
from worldeval.learning.config import LoopConfig
from worldeval.types import Outcome

SHAPE = JudgeConfig(
    views=("front", "side"), image_size=(16, 16), channels=(8, 16, 16), narrow=4, hidden=32, lag=1
)
LOOP = LoopConfig(steps=150, batch=16, learning_rate=3e-3, warmup=5, ema=0.0, threads=1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeStore, EpisodeStore]:
    root = tmp_path_factory.mktemp("path")
    return measured_store(root / "train", range(2, 9)), measured_store(root / "held", (9, 10, 11))


@pytest.fixture(scope="module")
def margin(
    stores: tuple[EpisodeStore, EpisodeStore], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("margin") / "judge"
    training = MarginTrainConfig(loop=replace(LOOP, steps=120))
    train_margin(
        SHAPE, out, training=training, stores=stores[:1], validation=stores[1:], progress=False
    )
    return out


@pytest.fixture(scope="module")
def trained(stores: tuple[EpisodeStore, EpisodeStore], margin: Path) -> Path:
    out = margin.with_name("path")
    report = train_path(
        margin, out, training=PathTrainConfig(loop=LOOP, memory=16), stores=stores[:1],
        validation=stores[1:], progress=False,
    )  # fmt: skip
    assert report.checkpoint == out and not out.with_name(".path.frames").exists()
    return out


def test_it_tells_success_from_failure(
    trained: Path, stores: tuple[EpisodeStore, EpisodeStore]
) -> None:
    judge = load_judge(trained)
    assert isinstance(judge, PathJudge) and judge.name.startswith("path-judge@")
    episodes = [stores[1].episode(i) for i in range(len(stores[1]))]
    verdicts = judge.judge(episodes)
    decided = [(v, e) for v, e in zip(verdicts, episodes, strict=True)
               if v.outcome in (Outcome.SUCCESS, Outcome.FAILURE)]  # fmt: skip
    right = [(v.outcome == Outcome.SUCCESS) == e.success for v, e in decided]
    assert len(decided) >= len(episodes) * 0.7 and np.mean(right) > 0.9


def test_a_frame_is_judged_from_what_came_before_it(trained: Path) -> None:
    judge = load_judge(trained)
    assert isinstance(judge, PathJudge)
    episode = walk("a", task="left", to="left", row=4)
    whole = judge.margins(episode)
    cut = replace(
        episode, frames=episode.frames[:4], poses=episode.poses[:4], actions=episode.actions[:3],
        success_at=None,
    )  # fmt: skip
    np.testing.assert_allclose(judge.margins(cut), whole[:4], atol=1e-5)
    np.testing.assert_allclose(judge.outputs(episode, np.array([5, 2])), whole[[5, 2]], atol=1e-5)
    other = walk("b", task="left", to="right", row=4)
    detour = replace(episode, frames=episode.frames.copy(), poses=episode.poses.copy())
    detour.frames[2], detour.poses[2] = other.frames[-1], other.poses[-1]
    later = np.abs(judge.margins(detour) - whole)[3:]
    assert later.max() > 1e-3  # it has seen the detour


def test_the_path_counts_where_frames_say_nothing(margin: Path) -> None:
    """With all looks alike, margins can only come from where the hand went."""
    trunk = load_judge(margin)
    assert isinstance(trunk, MarginJudge)
    torch.manual_seed(0)
    head = path_network(trunk.network, 16).path
    looks = torch.zeros(2, 5, SHAPE.hidden + 1)
    poses = torch.zeros(2, 5, SHAPE.pose_dim)
    poses[1, 2:] = 0.1
    margins = head(head.unit(PathHead.gathered(looks, poses)), torch.zeros(2, SHAPE.text_dim))
    assert torch.equal(margins[0, :2], margins[1, :2])
    assert (margins[0, 2:] - margins[1, 2:]).abs().min() > 1e-6


def test_looking_goes_on_where_it_was_killed(
    margin: Path, stores: tuple[EpisodeStore, EpisodeStore], tmp_path: Path
) -> None:
    trunk = load_judge(margin)
    assert isinstance(trunk, MarginJudge)
    network = path_network(trunk.network, 8)
    cache = FrameCache.build(stores[:1], tmp_path / "cache", SHAPE.views)
    whole = looked_at(network, cache, tmp_path / "looks.bin", progress=False)
    kept = (tmp_path / "looks.bin").read_bytes()
    (tmp_path / "half.bin").write_bytes(kept[: len(kept) // 2 + 3])  # within a number
    half = looked_at(network, cache, tmp_path / "half.bin", progress=False)
    np.testing.assert_allclose(half, whole, atol=1e-6)
    margins = trunk.outputs(stores[0].episode(0), np.arange(stores[0].episode(0).length))
    np.testing.assert_allclose(whole[: len(margins), -1], margins, atol=1e-4)


def test_loss_of_what_is_unknown() -> None:
    training = PathTrainConfig()
    holds = torch.tensor([[0.0, 1.0, float("nan")]])
    wanted = torch.tensor([[-0.4, float("nan"), float("nan")]])
    margins = torch.tensor([[-0.4, 0.1, 5.0]])
    value, report = path_loss(margins, holds, wanted, training)
    expected = (3 * np.log1p(np.exp(-0.4 / 0.25)) + np.log1p(np.exp(-0.1 / 0.25))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert report["margin_off"] == pytest.approx(0) and report["accuracy"] == 1


def test_refusals(
    margin: Path, trained: Path, stores: tuple[EpisodeStore, EpisodeStore], tmp_path: Path
) -> None:
    rest = {"training": PathTrainConfig(loop=LOOP), "validation": stores[1:], "progress": False}
    with pytest.raises(ConfigError, match="expected a margin judge"):
        train_path(trained, tmp_path / "a", stores=stores[:1], **rest)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="input_dropout"):
        PathTrainConfig(input_dropout=2)
    only = EpisodeStore.create(tmp_path / "only", **vars(stores[0].layout))
    for index in range(4):
        if (episode := stores[0].episode(index)).success:
            only.append(episode)
    only.close()
    with pytest.raises(DataError, match="one outcome"):
        train_path(margin, tmp_path / "b", stores=[only], **rest)  # type: ignore[arg-type]
