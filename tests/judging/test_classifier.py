from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import SOLVED_AT, VERDICT_COLUMNS
from worldeval.data.text import token_buckets
from worldeval.errors import CheckpointError, ConfigError, JudgeError, MismatchError
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.learned import moments_of, rollout_score
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.tables import judge_store
from worldeval.types import Cost, Episode, Outcome, Verdict


def episode_of(seed: int, length: int = 12, views: tuple[str, ...] = ("a", "b")) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        key=f"k{seed}", task="t", instruction=f"open drawer {seed}", views=views,
        frames=rng.integers(0, 255, (length, len(views), 16, 16, 3), np.uint8),
        poses=rng.normal(size=(length, 4)).astype(np.float32),
        actions=np.zeros((length - 1, 3, 4), np.float32),
    )  # fmt: skip


def classifier(calibration: Calibration | None = None, **changes: object) -> SuccessClassifier:
    torch.manual_seed(0)
    config = JudgeConfig(views=("a", "b"), image_size=(16, 16), channels=(8, 16, 16), hidden=32)
    network = JudgeNetwork(replace(config, **changes))  # type: ignore[arg-type]
    for block in network.blocks:  # zero at the start of training: the words would not matter yet
        torch.nn.init.normal_(block.film.weight, std=0.1)
    return SuccessClassifier(network, calibration or Calibration())


def said(verdicts: list[Verdict]) -> list[Verdict]:
    """Without how long they took."""
    return [replace(verdict, cost=Cost()) for verdict in verdicts]


@pytest.mark.parametrize("lag", [0, 4])
def test_a_batch_of_four_equals_four_of_one(lag: int) -> None:
    judge = classifier(lag=lag)
    episodes = [episode_of(seed, length) for seed, length in enumerate((12, 3, 40, 12))]
    together = said(judge.judge(episodes))
    assert together == said([judge.judge([episode])[0] for episode in episodes])
    assert together[::-1] == said(judge.judge(episodes[::-1]))
    assert len({verdict.probability for verdict in together}) == 4


def test_words_and_poses_matter_and_views_are_found_by_name() -> None:
    judge = classifier()
    episode = episode_of(0)
    other_words = replace(episode, instruction="close it")
    assert not np.allclose(judge.logits(episode), judge.logits(other_words))
    other_poses = replace(episode, poses=episode.poses + np.arange(12, dtype=np.float32)[:, None])
    assert not np.allclose(judge.logits(episode), judge.logits(other_poses))
    blind = classifier(use_poses=False)
    assert np.array_equal(blind.logits(episode), blind.logits(other_poses))
    swapped = replace(episode, views=("b", "a"), frames=episode.frames[:, ::-1])
    assert np.array_equal(judge.logits(episode), judge.logits(swapped))


def test_long_episodes_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = classifier()
    episode = episode_of(1, 30)
    whole = judge.logits(episode)
    monkeypatch.setattr("worldeval.judging.learned.FRAMES_AT_ONCE", 4)
    np.testing.assert_allclose(judge.logits(episode), whole, atol=1e-5)


def test_frames_looked_at_always_hold_the_last_and_never_the_start() -> None:
    judge = classifier()
    assert judge.frame_times(8).tolist() == [1, 3, 5, 7]
    assert judge.frame_times(9).tolist() == [2, 4, 6, 8]
    assert judge.frame_times(1).tolist() == []
    assert moments_of(np.array([2, 7]), 4).tolist() == [[0, 0, 2], [0, 3, 7]]
    assert moments_of(np.array([2, 7]), 0).tolist() == [[0, 2], [0, 7]]


def test_the_score_is_the_best_moving_average() -> None:
    assert rollout_score(np.array([0.0, 9.0, 0.0, 3.0, 3.0, 3.0]), 3) == pytest.approx(4.0)
    assert rollout_score(np.array([-1.0, 9.0, -2.0]), 3) == pytest.approx(2.0)  # one odd frame
    assert rollout_score(np.array([1.0, 2.0]), 3) == pytest.approx(1.5)
    assert np.isnan(rollout_score(np.zeros(0), 3))


def test_the_band_decides_and_says_why() -> None:
    episode = episode_of(2)
    score = classifier().score(episode)
    at = {"slope": 1.0, "intercept": -score}  # calibrated to a probability of one half
    undecided = classifier(Calibration(**at, lower=0.4, upper=0.6)).judge([episode])[0]
    assert undecided.outcome is Outcome.UNDECIDED and "0.500" in undecided.reason
    assert undecided.probability == pytest.approx(0.5)
    for (lower, upper), outcome in {(0.2, 0.4): "success", (0.6, 0.8): "failure"}.items():
        judge = classifier(Calibration(**at, lower=lower, upper=upper))
        assert judge.judge([episode])[0].outcome == outcome


def test_unknown_is_a_value() -> None:
    judge = classifier()
    (start_only,) = judge.judge([episode_of(0, 1)])
    assert start_only.outcome is Outcome.UNDECIDED and start_only.probability is None
    broken = episode_of(0)
    broken.extra = {"outcome": "error", "error": "the simulator fell over"}
    (verdict,) = judge.judge([broken])
    assert verdict.outcome is Outcome.ERROR and verdict.reason == "the simulator fell over"


def test_what_it_was_not_trained_for_is_refused() -> None:
    judge = classifier()
    with pytest.raises(MismatchError, match="'b'.* missing"):
        judge.judge([episode_of(0, views=("a", "c"))])
    episode = episode_of(0)
    with pytest.raises(MismatchError, match=r"\(8, 16\) pixels"):
        judge.judge([replace(episode, frames=episode.frames[:, :, :8])])
    with pytest.raises(MismatchError, match="3 numbers"):
        judge.judge([replace(episode, poses=episode.poses[:, :3])])
    with pytest.raises(ConfigError, match="channels is"):
        JudgeConfig(views=("a",), channels=(8, 12, 16))


def test_a_saved_judge_says_the_same(tmp_path: Path) -> None:
    judge = classifier(Calibration(slope=0.7, intercept=0.1, lower=0.3, upper=0.6))
    judge.save(tmp_path / "judge", card={"note": "n"})
    loaded = SuccessClassifier.load(tmp_path / "judge")
    assert loaded.calibration == judge.calibration and loaded.name != judge.name
    episode = episode_of(3)
    np.testing.assert_allclose(loaded.logits(episode), judge.logits(episode), atol=5e-3)
    loaded.save(tmp_path / "again")  # float16 once is float16 for good
    again = SuccessClassifier.load(tmp_path / "again")
    assert again.name == loaded.name
    assert np.array_equal(again.logits(episode), loaded.logits(episode))

    config = (tmp_path / "judge/config.json").read_text()
    (tmp_path / "judge/config.json").write_text(config.replace('"hidden": 32', '"hidden": 48'))
    with pytest.raises(CheckpointError, match="does not fit"):
        SuccessClassifier.load(tmp_path / "judge")


def test_the_shipped_size_is_small() -> None:
    network = JudgeNetwork(JudgeConfig(views=("left", "right", "wrist")))
    assert 2 * sum(p.numel() for p in network.parameters()) < 2e6  # bytes as float16


def test_judge_store_gives_the_verdict_table(
    make_store: Callable[..., EpisodeStore], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = JudgeNetwork(JudgeConfig(views=("side",), image_size=(16, 16), channels=(8, 8, 8)))
    judge = SuccessClassifier(network, Calibration(), name="toy judge")
    table = judge_store(judge, make_store("s", range(1, 3)), tmp_path / "deep/verdicts.parquet")
    assert table.columns.tolist() in ([*VERDICT_COLUMNS], [*VERDICT_COLUMNS, SOLVED_AT])
    assert set(table["frames"]) == {"2 4 6"} and (table["seconds"] > 0).all()
    assert (table["tokens"] == 0).all() and (table["dollars"] == 0).all()
    assert len(table) == 8 and set(table["judge"]) == {"toy judge"}
    assert set(table["policy"]) == {"p"} and set(table["start_id"]) == {"s/1", "s/2"}
    assert table["probability"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "deep/verdicts.parquet"), table)
    assert not list((tmp_path / "deep").glob("*.tmp"))


def test_words_become_stable_buckets() -> None:
    """crc32("open") and crc32("open_drawer") modulo 1000, from zlib."""
    assert token_buckets("Open, drawer!", 1000) == token_buckets("open drawer", 1000)
    assert len(token_buckets("open the drawer", 1000)) == 5
    assert token_buckets("", 1000) == [] == token_buckets("...", 1000)
    assert token_buckets("open the drawer", 10**6) != token_buckets("drawer the open", 10**6)
    with pytest.raises(ConfigError, match="buckets is 0"):
        token_buckets("open", 0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_judge_that_answers_no_number_is_broken_not_undecided(wrong) -> None:
    judge = classifier()
    with torch.no_grad():
        next(judge.network.parameters()).fill_(wrong)
    with pytest.raises(JudgeError, match=r"answered NaN or infinity for episode 'k1'; look for"):
        judge.judge([episode_of(1)])


def test_a_pose_that_is_nan_is_not_judged_either() -> None:
    episode = episode_of(1)
    episode.poses[5] = np.nan
    with pytest.raises(JudgeError, match="look for NaN in its poses"):
        classifier().judge([episode])
