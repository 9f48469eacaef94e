"""A failed rollout takes another task only if the judge is sure, and was not before it moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from worldeval import EpisodeStore
from worldeval.data import origin
from worldeval.data.fit import store_fields
from worldeval.synthesis.dataset import write_dataset
from worldeval.synthesis.hindsight import OPENING, hindsight
from worldeval.synthesis.selecting import Funnel
from worldeval.types import Episode, Outcome, Verdict
from worldeval.worlds.toy import TOY_ROBOT


class Knows:
    """Says of each rollout what it really achieved: (key, instruction, whole or only its opening)
    -> probability."""

    name = "knows"

    def __init__(self, said: dict[tuple[str, str, bool], float]) -> None:
        self.said = said

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        found = []
        for episode in episodes:
            whole = episode.length > OPENING
            probability = self.said.get((episode.key, episode.instruction, whole), 0.05)
            outcome = Outcome.SUCCESS if probability > 0.5 else Outcome.FAILURE
            found.append(
                Verdict(key=episode.key, outcome=outcome, probability=probability, judge=self.name)
            )
        return found


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Scene 1 is shared by open, close and lock; scene 2 is that of reach alone."""
    made = EpisodeStore.create(tmp_path / "imagined", **store_fields(TOY_ROBOT))
    for task, scene in (("open", 1), ("close", 1), ("lock", 1), ("reach", 2)):
        made.append(
            Episode(
                key=f"p/{task}", task=task, instruction=f"please {task} it", views=TOY_ROBOT.views,
                frames=np.zeros((8, 3, 32, 32, 3), np.uint8),
                poses=np.zeros((8, 4), np.float32), actions=np.zeros((7, 2, 4), np.float32),
                extra={"start_seed": scene, "asked": f"{task} it", "policy": "p",
                       "start_id": task, "world": "imagination", "chunks": "[]"},
            )
        )  # fmt: skip
    made.close()
    return made


def funnel(store: EpisodeStore, **outcomes: str) -> Funnel:
    table = store.metadata()
    return Funnel(
        rollouts=table.assign(
            outcome=[outcomes.get(task, "failure") for task in table["task"]], probability=0.1
        ),
        stages=(),
    )


def test_a_sure_other_task_is_taken_in_the_suite_s_words(store: EpisodeStore) -> None:
    judge = Knows({("p/close", "open it", True): 0.97})
    found, said = hindsight(store, funnel(store), judge)
    assert {key: (r.task, r.instruction) for key, r in found.items()} == {
        "p/close": ("open", "open it")
    }
    assert said == [
        "Hindsight: of 3 failed rollouts with another task in their scene 1 were relabelled "
        "(1 as open)."
    ]


@pytest.mark.parametrize(
    "said",
    [
        {("p/close", "open it", True): 0.8},  # not sure
        {("p/close", "open it", True): 0.97, ("p/close", "open it", False): 0.9},  # all along
        {("p/close", "open it", True): 0.97, ("p/close", "lock it", True): 0.99},  # two at once
    ],
)
def test_what_is_unsure_or_was_so_before_or_is_not_the_only_one_is_not(
    store: EpisodeStore, said: dict[tuple[str, str, bool], float]
) -> None:
    assert hindsight(store, funnel(store), Knows(said))[0] == {}


def test_successes_are_left_alone(store: EpisodeStore) -> None:
    judge = Knows({("p/close", "open it", True): 0.97})
    assert hindsight(store, funnel(store, close="success"), judge)[0] == {}


def test_relabelled_episodes_say_what_they_were_for(store: EpisodeStore, tmp_path: Path) -> None:
    judge = Knows({("p/close", "open it", True): 0.97})
    given = funnel(store)
    found, _ = hindsight(store, given, judge)
    kept = Funnel(rollouts=given.rollouts.head(0), stages=())
    made = write_dataset(
        tmp_path / "dataset", store, Funnel(rollouts=given.rollouts, stages=kept.stages),
        facts={"judge": "knows"}, relabelled=found,
    )  # fmt: skip
    episode = made.by_key("p/close+open")
    assert (episode.task, episode.instruction, episode.success) == ("open", "open it", True)
    assert episode.extra["relabelled_from"] == "close" and "chunks" not in episode.extra
    assert origin.marked(made) and isinstance(made.metadata(), pd.DataFrame)


def test_trainings_tell_what_was_imagined(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_dataset(tmp_path / "d", store, funnel(store), facts={})
    told = origin.told_inputs(made.root, store.root, None)
    said = capsys.readouterr().err
    assert f"all 4 episodes of {made.root} are synthetic (imagined and selected)" in said
    assert f"all 4 episodes of {store.root} are imagined, not recorded" in said
    assert told[f"store {made.root}"]["origin"] == "synthetic"
    assert "origin" not in told[f"store {store.root}"]
    assert origin.marked_folder(made.root) and not origin.marked_folder(store.root)
    assert not origin.marked_folder(tmp_path)
