"""When a rollout was solved: from the judge's answers at each frame to the ranking's warning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import SOLVED_AT
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.learned import LearnedJudge, rollout_score
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.tables import horizon_frames, judge_store, kept_verdicts
from worldeval.types import Episode, Outcome

LENGTH = 21
SURE = 4.0


class Brightness(LearnedJudge):
    """Sees success where the picture is bright, frame by frame."""

    kind, title = "test-judge", "brightness"

    def outputs(self, episode: Episode, times: np.ndarray) -> np.ndarray:
        return np.where(episode.frames[times].mean(axis=(1, 2, 3, 4)) > 128, SURE, -SURE)

    def score_of(self, outputs: np.ndarray) -> float:
        return rollout_score(outputs, self.smooth)


def brightness(**settings: int) -> Brightness:
    torch.set_num_threads(1)
    network = JudgeNetwork(JudgeConfig(views=("a",), image_size=(16, 16), channels=(8, 8, 8)))
    return Brightness(network, Calibration(), **settings)


def rollout(policy: str, start: int, solved: int | None, length: int = LENGTH, **facts) -> Episode:
    frames = np.zeros((length, 1, 16, 16, 3), np.uint8)
    if solved is not None:
        frames[solved:] = 255
    return Episode(
        key=f"{policy}/push/{start}",
        task="push",
        instruction="push it",
        views=("a",),
        frames=frames,
        poses=np.zeros((length, 4), np.float32),
        actions=np.zeros((length - 1, 3, 4), np.float32),
        extra={"policy": policy, "start_id": f"push/{start}", "world": "imagination"},
        **facts,
    )


def write(folder: Path, episodes: list[Episode]) -> EpisodeStore:
    store = EpisodeStore.create(
        folder,
        views=("a",),
        image_size=(16, 16),
        pose_names=("x", "y", "z", "gripper"),
        action_names=("dx", "dy", "dz", "gripper"),
        steps_per_frame=3,
        fps=10,
        robot_type="toy",
        images="lossless",
    )
    for episode in episodes:
        store.append(episode)
    store.close()
    return EpisodeStore.open(folder)


@pytest.mark.parametrize("stride, smooth", [(1, 1), (1, 3), (2, 3), (5, 2)])
@pytest.mark.parametrize("solved", [1, 4, 9, 16])
def test_cut_at_that_frame_it_is_a_success_and_one_look_sooner_it_is_none(stride, smooth, solved):
    judge = brightness(stride=stride, smooth=smooth)
    (verdict,) = judge.judge([rollout("p", 0, solved)])
    times = judge.frame_times(LENGTH)
    if verdict.outcome is not Outcome.SUCCESS:
        assert verdict.solved_at is None and solved == 16
        return
    assert verdict.solved_at in times and verdict.solved_at >= solved
    place = int(np.flatnonzero(times == verdict.solved_at)[0])

    def outcome(count: int) -> Outcome:
        outputs = judge.outputs(rollout("p", 0, solved), times[:count])
        return judge.calibration.outcome(judge.calibration.probability(judge.score_of(outputs)))

    assert outcome(place + 1) is Outcome.SUCCESS
    if place >= smooth:
        assert outcome(place) is not Outcome.SUCCESS


def test_what_is_solved_and_lost_again_counts_from_the_first_time():
    episode = rollout("p", 0, 6)
    episode.frames[12:] = 0
    (verdict,) = brightness(stride=1, smooth=3).judge([episode])
    assert verdict.outcome is Outcome.SUCCESS and verdict.solved_at == 7


def test_failures_and_rollouts_without_frames_tell_nothing():
    judge = brightness()
    for episode in (rollout("p", 0, None), rollout("p", 0, 1, length=1)):
        assert judge.judge([episode])[0].solved_at is None


def test_every_learned_judge_tells_it_of_its_successes():
    torch.manual_seed(0)
    network = JudgeNetwork(JudgeConfig(views=("a",), image_size=(16, 16), channels=(8, 8, 8)))
    judge = SuccessClassifier(network, Calibration(intercept=50.0))
    (verdict,) = judge.judge([rollout("p", 0, 3)])
    assert verdict.outcome is Outcome.SUCCESS
    assert verdict.solved_at == judge.frame_times(LENGTH)[judge.smooth - 1]


def test_shares_are_of_rollouts_that_no_flag_cut_short(tmp_path: Path):
    early = rollout("p", 0, 3, length=9, success=True, success_at=np.arange(9) >= 3)
    late = rollout("p", 1, None, success=False, success_at=np.zeros(LENGTH, bool))
    assert horizon_frames(write(tmp_path / "one", [early])) is None
    store = write(tmp_path / "two", [early, late])
    assert horizon_frames(store) == LENGTH - 1
    table = judge_store(brightness(stride=1, smooth=1), store)
    assert table[SOLVED_AT].tolist()[:1] == [3 / (LENGTH - 1)] and table[SOLVED_AT].isna()[1]
    alone = judge_store(brightness(), EpisodeStore.open(tmp_path / "one"))
    assert SOLVED_AT not in alone.columns  # unknown, not the whole of a horizon cut short


def test_what_was_judged_before_keeps_its_times(tmp_path: Path):
    store = write(tmp_path / "s", [rollout("p", n, 5) for n in range(3)])
    judge = brightness()
    first = kept_verdicts(judge, store)
    pd.testing.assert_frame_equal(kept_verdicts(judge, store), first)
    assert first[SOLVED_AT].notna().all()


def test_an_order_that_turns_with_the_horizon_is_told_by_judge_and_rank(tmp_path: Path):
    """The slow policy solves most, but late; the fast one solves half of it, early."""
    rows = {"slow": (28, 15), "fast": (14, 4)}
    store = write(
        tmp_path / "runs",
        [
            rollout(policy, start, at if start < count else None)
            for policy, (count, at) in rows.items()
            for start in range(30)
        ],
    )
    path = tmp_path / "verdicts.parquet"
    judge_store(brightness(stride=1, smooth=2), store, path)
    assert cli.main(["rank", str(path), "--out", str(tmp_path / "ranked")]) == 0
    found = json.loads((tmp_path / "ranked/leaderboard.json").read_text())["stability"]
    turned = {check["change"]: check["turned"] for check in found["checks"]}
    assert turned["0.5 of the horizon"] == [["slow", "fast"]]
    assert found["stable"] is False
    assert "with 0.5 of the horizon the order turns (fast then beats slow)" in found["sentence"]
