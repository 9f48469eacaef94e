"""What is known of a rollout over its frames comes from its own tables, or is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.curves import find_rollout, learned, rollout_curves
from worldeval.judging.loading import load_judge
from worldeval.judging.progress import ProgressJudge

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """One shipped true clip as a rollout."""
    shipped = EpisodeStore.open(CHECKPOINTS / "suite" / "truth-clips")
    place = tmp_path_factory.mktemp("curves") / "rollouts"
    episode = shipped.episode(0)
    episode.extra["chunks"] = '[{"step": 0}, {"step": 12}]'
    with EpisodeStore.create_like(place, shipped) as store:
        store.append(episode)
    return store


def test_what_was_not_measured_is_absent_with_a_note(store: EpisodeStore) -> None:
    known = rollout_curves(store, store.episode(0))
    assert not known.curves
    said = " ".join(known.notes)
    assert "worldeval judge" in said and "--progress" in said and "worldeval trust" in said


def test_probability_and_progress_of_every_frame_end_at_those_of_the_rollout(
    store: EpisodeStore,
) -> None:
    judge = learned(load_judge(CHECKPOINTS / "judge"), "--judge")
    progress = ProgressJudge.load(CHECKPOINTS / "progress")
    episode = store.episode(0)
    known = rollout_curves(store, episode, judge=judge, progress=progress)
    curve = known.curves["judge/probability"]
    [verdict] = judge.judge([episode])
    assert list(curve.at) == list(verdict.frames)
    assert curve.values[-1] == pytest.approx(verdict.probability)
    assert len(known.curves["progress/progress"].values) == episode.length


def test_trust_stands_where_its_chunks_begin(store: EpisodeStore) -> None:
    key = store.facts(0)["key"]
    table = pd.DataFrame({"key": [key] * 3, "chunk": [1, 0, 2], "blur": [2.0, 1.0, 9.0]})
    table.to_parquet(store.root / "trust-chunks.parquet", index=False)
    known = rollout_curves(store, store.episode(0))
    curve = known.curves["trust/blur"]
    last = 12 / store.layout.steps_per_frame
    assert np.allclose(curve.at, [0, last]) and list(curve.values) == [1, 2]
    assert [event.frame for event in known.events] == [0, last]


def test_a_rollout_that_is_not_there_and_a_judge_of_whole_rollouts(store: EpisodeStore) -> None:
    key = store.facts(0)["key"]
    assert find_rollout(store.root, key).root == store.root
    with pytest.raises(DataError, match="did you mean"):
        find_rollout(store.root, key + "0")
    with pytest.raises(ConfigError, match="one verdict for a rollout"):
        learned(object(), "--judge")
