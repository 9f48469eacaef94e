"""A judge that reads how near a frame is to success."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.judging.conftest import walk
from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.loading import load_judge
from worldeval.judging.margin import MARGINS, MarginJudge
from worldeval.judging.margin_training import MarginTrainConfig, train_margin
from worldeval.judging.network import JudgeConfig
from worldeval.judging.samples import BORDER, FrameCache, Sampler, margins_of
from worldeval.types import Outcome

LIMIT_M = 0.05


def measured_store(root: Path, rows: Iterable[int]) -> EpisodeStore:
    """The dot's distance to its edge: 1 cm a column; within 5 mm it has arrived."""
    store = EpisodeStore.create(
        root, views=("front", "side"), image_size=(16, 16),
        pose_names=("x", "y", "z", "gripper"), action_names=("dx", "dy", "dz", "gripper"),
        steps_per_frame=3, fps=10, robot_type="toy", images="lossless",
    )  # fmt: skip
    steps = np.array([0, 1, 2, 3, 5, 7, 7])
    for row in rows:
        for task in ("left", "right"):
            for to in ("left", "right"):
                episode = walk(f"{task}/{to}/{row}", task=task, to=to, row=row)
                left = 7 - steps if to == task else 7 + steps
                episode.extra |= {
                    "goal_distance_m": [0.01 * (int(x) + 0.2) for x in left],
                    "success_distance_m": 0.005,
                }
                store.append(episode)
    store.close()
    return store


def test_margins_of_recordings_and_of_rollouts() -> None:
    episode = walk("a", task="left", to="left", row=3)
    assert np.isnan(margins_of(episode)).all()
    distances = [0.2, 0.1, 0.05, 0.025, 0.05, 0.0, 0.05]
    episode.extra |= {"goal_distance_m": distances, "success_distance_m": LIMIT_M}
    expected = np.log([0.25, 0.5, 1.0, 2.0, 1.0, LIMIT_M / 1e-4, 1.0])
    np.testing.assert_allclose(margins_of(episode), expected, rtol=1e-5)
    rollout = walk("b", task="left", to="left", row=3)
    chunks = [
        {"goal_distance_m": distances[1:4], "success_distance_m": LIMIT_M},
        {"goal_distance_m": distances[4:], "success_distance_m": LIMIT_M},
    ]
    rollout.extra["chunks"] = json.dumps(chunks)
    margins = margins_of(rollout)
    assert np.isnan(margins[0])  # nobody measured the start
    np.testing.assert_allclose(margins[1:], expected[1:], rtol=1e-5)


def test_draws_near_the_border(tmp_path: Path) -> None:
    store = measured_store(tmp_path / "s", range(2, 6))
    cache = FrameCache.build([store], tmp_path / "cache", ("front", "side"))
    near = np.abs(cache.margins) < BORDER
    assert not near.any()  # 2 mm or 2.2 cm from an edge: never near a limit of 5 mm
    sampler = Sampler(
        cache, lag=1, batch=200, seed=0, solved_share=0.5, near_share=0.5, near_frames=2,
        opposed_share=0.5, rewording_share=0.0, border_share=1.0,
        instructions={"left": ["go left"], "right": ["go right"]},
        opposed={"left": "right", "right": "left"},
    )  # fmt: skip
    batch = sampler.draw(0)
    other = np.array([words.startswith("go ") for words in batch.instructions])
    assert other.any() and np.isnan(batch.margins[other]).all() and not batch.holds[other].any()
    known = batch.margins[~other]
    np.testing.assert_array_equal(batch.holds[~other] == 1, known > 0)
    cache.margins = cache.margins * 0 + np.linspace(-1, 1, len(near), dtype=np.float32)
    drawn = Sampler(
        cache, lag=1, batch=100, seed=0, solved_share=0.5, near_share=0.5, near_frames=2,
        opposed_share=0.0, rewording_share=0.0, border_share=1.0, instructions={}, opposed={},
    ).draw(0)  # fmt: skip
    episodes_with = [
        i for i in range(16) if (np.abs(cache.margins[7 * i : 7 * i + 7]) < BORDER).any()
    ]
    share = np.mean(np.abs(drawn.margins) < BORDER)
    assert share >= 0.9 * len(episodes_with) / 16 - 0.15


def test_score_is_the_best_moving_average() -> None:
    judge = MarginJudge.__new__(MarginJudge)
    judge.smooth = 2
    assert judge.score_of(np.array([-1.0, 0.1, 0.3, -0.5])) == pytest.approx(0.2 / 0.25)
    said = judge.note(np.array([-1.0, 0.1, np.log(2), -0.5]), np.array([0, 1, 2, 3]))
    assert said == "nearest at frame 2: 0.50 of the distance that is a success"
    assert MARGINS[0] < 0 < MARGINS[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("margin")
    config = JudgeConfig(
        views=("front", "side"), image_size=(16, 16), lag=1, channels=(8, 8, 16), hidden=32
    )
    training = MarginTrainConfig(pose_dropout=0.0)
    training = replace(
        training, loop=replace(training.loop, steps=300, batch=32, warmup=10, threads=1)
    )
    train_margin(
        config,
        root / "judge",
        training=training,
        stores=[measured_store(root / "train", [r for r in range(13) if r % 3])],
        validation=[measured_store(root / "held", range(3, 13, 3))],
        progress=False,
    )
    return root


def test_learns_the_distance_and_gives_verdicts(trained: Path) -> None:
    judge = load_judge(trained / "judge")
    assert isinstance(judge, MarginJudge) and judge.name.startswith("margin-judge@")
    store = EpisodeStore.open(trained / "held")
    episodes = [store.episode(i) for i in range(len(store))]
    verdicts = judge.judge(episodes)
    right = [
        v.outcome == (Outcome.SUCCESS if e.success else Outcome.FAILURE)
        for v, e in zip(verdicts, episodes, strict=True)
    ]
    assert np.mean(right) >= 0.9
    assert "of the distance that is a success" in verdicts[0].reason
    errors = [
        np.abs(np.clip(judge.margins(e), *MARGINS) - np.clip(margins_of(e), *MARGINS))
        for e in episodes
    ]
    assert np.mean(errors) < 0.35  # guessing the mean margin is off by more than 0.6
