"""Diversity is counted, shortcuts are found, and what a policy does not notice is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from worldeval import EpisodeStore, shipped
from worldeval.cli import main
from worldeval.data.fit import robot_extra, store_fields
from worldeval.errors import DataError
from worldeval.synthesis.diagnosis.counterfactual import findings_of, other_words
from worldeval.synthesis.diagnosis.dataset import diagnose_store, features_of
from worldeval.synthesis.diagnosis.diversity import (
    effective_number,
    effective_words,
    guessed,
    shared_spread,
)
from worldeval.synthesis.recipe import Recipe
from worldeval.types import Episode, StartState
from worldeval.worlds.toy import TOY_ROBOT


def test_an_effective_number_counts_what_differs() -> None:
    same, far = np.zeros((6, 3)), np.arange(6)[:, None] * np.ones(3)
    assert effective_number(same, 0.1) == pytest.approx(1)
    assert effective_number(far, 0.1) == pytest.approx(6)
    pairs = np.repeat(np.arange(3), 2)[:, None] * np.ones(3)
    assert effective_number(pairs, 0.1) == pytest.approx(3)
    assert 1 < effective_number(far * 0.1, 0.1) < 6
    assert np.isnan(effective_number(np.zeros((0, 3)), 0.1))
    assert effective_words(["a", "a", "b", "b"]) == pytest.approx(2)


def test_a_guess_is_compared_with_chance() -> None:
    rng = np.random.default_rng(0)
    labels = ["x", "y"] * 20
    told = np.array([[0.0], [5.0]] * 20) + rng.normal(0, 0.01, (40, 1))
    right, chance = guessed(told, labels)
    assert right == 1 and chance == pytest.approx(19 / 39)
    blind, _ = guessed(rng.normal(0, 1, (40, 1)), labels)
    assert 0.2 < blind < 0.8
    assert np.isnan(guessed(told, ["x"] * 40)[0])


def test_sources_that_are_worlds_of_their_own_are_told() -> None:
    apart = np.array([[0.0], [0.1], [9.0], [9.1]])
    assert shared_spread(apart, ["a", "a", "b", "b"]) > 0.99
    assert shared_spread(apart, ["a", "b", "a", "b"]) < 0.01
    assert np.isnan(shared_spread(apart, ["a"] * 4))


def write_store(root: Path, *, shortcut: bool, world: str = "toy") -> EpisodeStore:
    """Two tasks; with a shortcut each has a scene and one path of its own."""
    rng = np.random.default_rng(1)
    height, width = TOY_ROBOT.image_size
    store = EpisodeStore.create(
        root, **store_fields(TOY_ROBOT), images="lossless", extra=robot_extra(TOY_ROBOT)
    )
    for number in range(12):
        task = ("red", "green")[number % 2]
        frames = np.zeros((4, 3, height, width, 3), np.uint8)
        shade = 200 * (number % 2) if shortcut else int(rng.integers(0, 255))
        frames[:] = shade
        end = np.full(4, 0.1) if shortcut else rng.uniform(-0.2, 0.2, 4)
        poses = np.linspace(0, 1, 4)[:, None] * end
        store.append(
            Episode(
                key=f"{task}/{number}", task=task, instruction=f"go to the {task} one",
                views=TOY_ROBOT.views, frames=frames, poses=poses.astype(np.float32),
                actions=np.zeros((3, 2, 4), np.float32),
                extra={"seed": number, "split": "training", "world": world,
                       "scene": f"room {number % 2}"},
            )
        )  # fmt: skip
    store.close()
    return store


def test_a_dataset_with_shortcuts(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", shortcut=True)
    made = diagnose_store(store, features_of(store, progress=False))
    assert made.tasks.loc["red", "paths"] == pytest.approx(1)
    assert made.guesses.loc["task from the first picture, top", "guessed"] == 1
    assert made.sources.loc["scene", "between, pictures"] == pytest.approx(1)
    said = " ".join(made.findings)
    assert "Hardly any variety of paths in red, green" in said
    assert "a policy can do without the instruction" in said
    assert "The scene of an episode can be told from its first picture in 100 %" in said


def test_a_dataset_without(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", shortcut=False)
    made = diagnose_store(store, features_of(store, progress=False))
    assert made.tasks.loc["red", "paths"] > 3
    assert "paths" not in " ".join(made.findings)
    assert made.guesses.loc["task from the first picture, top", "guessed"] < 0.8


def test_imagined_episodes_are_called_so(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", shortcut=False, world="imagination")
    made = diagnose_store(store, features_of(store, progress=False))
    assert made.findings[0].startswith("All 12 episodes of ") and "imagined" in made.findings[0]


def test_the_verb_writes_a_report_of_any_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "s", shortcut=True)
    out = tmp_path / "out"
    assert main(["diagnose", str(tmp_path / "s"), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Variety" in text and "Sources" in text and "- Hardly any" in text
    kept = json.loads((out / "diagnosis.json").read_text())
    assert kept["episodes"] == 12 and kept["tasks"]["red"]["episodes"] == 6
    assert (out / "report.html").read_text().count("data:image/jpeg") == 6


def test_an_empty_store_is_a_sentence(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "s", **store_fields(TOY_ROBOT))
    with pytest.raises(DataError, match="holds no episodes, so there is nothing to diagnose"):
        features_of(store, progress=False)


def start(task: str, seed: int, words: str) -> StartState:
    return StartState(start_id=f"{task}{seed}", task=task, seed=seed, split="x", instruction=words)


def test_words_are_swapped_within_the_scene_where_they_can_be() -> None:
    starts = [start("open", 1, "open it"), start("close", 1, "close it"), start("reach", 2, "go")]
    recipe = Recipe(
        start_id="a", base="open1", task="open", split="x", scene_seed=1, instruction="open it",
        meaning="open it",
    )  # fmt: skip
    assert other_words(recipe, starts) == "close it"
    assert other_words(recipe, [starts[0], starts[2]]) == "go"
    assert other_words(recipe, starts[:1]) is None


def test_what_a_policy_does_not_notice_is_found() -> None:
    def table(**rows: list[float]) -> pd.DataFrame:
        found = pd.DataFrame.from_dict(
            {name.replace("_", " "): row for name, row in rows.items()},
            orient="index", columns=["rollouts", "path", "times", "solved", "other"],
        )  # fmt: skip
        return found

    nan = float("nan")
    deaf = table(
        as_it_is=[8, nan, nan, 0.9, nan], another_seed=[8, 0.02, 1, 0.9, nan],
        instruction_swapped=[8, 0.02, 1.1, 0.9, 0.0], wrist_hidden=[8, 0.02, 1.2, 0.9, nan],
        top_hidden=[8, 0.2, 10, 0.0, nan], start_changed=[8, 0.2, 10, 0.4, nan],
    )  # fmt: skip
    said = findings_of(deaf)
    assert len(said) == 3
    assert "hardly hears the instruction" in said[0] and "view wrist" in said[1]
    assert "solves 40 % instead of 90 %" in said[2]
    deaf.loc["instruction swapped"] = [8, 0.2, 9, 0.5, 0.1]
    assert "still solves the old one more often (50 % against 10 %)" in findings_of(deaf)[0]
    fine = deaf.copy()
    fine.loc["instruction swapped"] = [8, 0.2, 9, 0.0, 0.8]
    fine.loc["wrist hidden", "times"] = 4
    fine.loc["start changed", "solved"] = 0.85
    assert findings_of(fine) == ("Every change is noticed, as it should be.",)


@pytest.mark.weights
def test_a_policy_is_tried_with_one_thing_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = EpisodeStore.open(shipped.path(shipped.STARTS))
    few = EpisodeStore.create(tmp_path / "few", **vars(whole.layout), extra=whole.extra)
    for task in ("drawer-open", "drawer-close"):
        few.append(whole.by_key(f"{task}/evaluation/0000"))
    few.close()
    words = [
        "diagnose", str(tmp_path / "few"), "--out", str(tmp_path / "out"), "--chunks", "1",
        "--per-task", "1", "--threads", "1",
        "--policy", str(shipped.path(shipped.POLICIES) / "deaf"),
    ]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    kept = json.loads((tmp_path / "out" / "diagnosis.json").read_text())["changes"]
    hidden = {"left hidden", "right hidden", "wrist hidden"}
    assert (
        set(kept) == {"as it is", "another seed", "instruction swapped", "start changed"} | hidden
    )
    assert kept["instruction swapped"]["path"] == 0  # it is deaf, and seeds are the same
    assert kept["start changed"]["path"] > 0.02
    assert "hardly hears the instruction" in capsys.readouterr().out
    assert main(words) == 0  # nothing is imagined again


@pytest.mark.weights
def test_a_dataset_of_another_robot_has_no_counterfactuals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "s", shortcut=True)
    policy = str(shipped.path(shipped.POLICIES) / "full")
    words = ["diagnose", str(tmp_path / "s"), "--out", str(tmp_path / "out"), "--policy", policy]
    assert main(words) == 2
    assert "was recorded with robot 'toy'" in capsys.readouterr().err
