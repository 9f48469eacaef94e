"""Rollouts and rankings in trackio and wandb: each once, and nothing that they do costs any."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.evaluation.test_execution import ran, same, words
from tests.tracker_recorder import STALL, recorder
from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation import tracked
from worldeval.evaluation.execution.parts import held_keys

__all__ = ["words"]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "EVERY_S", 0.05)


def shown(calls: list[Any]) -> list[dict[str, Any]]:
    """The rows of rollouts, in their order."""
    rows = [call[1] for call in calls if isinstance(call, tuple)]
    return [row for row in rows if "rollout/policy" in row]


def tables(calls: list[Any], name: str) -> list[list[dict[str, Any]]]:
    return [call[1][name] for call in calls if isinstance(call, tuple) and name in call[1]]


@pytest.mark.parametrize("how", [[], ["--workers=2"]], ids=["alone", "workers"])
def test_every_rollout_is_shown_once_and_then_the_ranking(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    calls = recorder(monkeypatch, "trackio")
    out = tmp_path / "run"
    ran("evaluate", *words, *how, "--out", out, "--trackers=trackio:lab")
    assert calls[0]["project"] == "lab" and calls[0]["name"].startswith("run-")
    assert calls[0]["config"]["config"]["suite"]["name"] == "s" and calls[-1] == "finished"
    rows, store = shown(calls), EpisodeStore.open(out)
    assert [row["rollouts"] for row in rows] == list(range(1, 21))
    assert rows[-1]["progress"] == 1.0
    found = {f"{row['rollout/policy']}/{row['rollout/start']}": row for row in rows}
    assert set(found) == store.keys
    for number in range(len(store)):
        facts, row = store.facts(number), found[store.facts(number)["key"]]
        assert row["rollout/outcome"] == facts["outcome"] and row["rollout/task"] == facts["task"]
        assert row["rollout/success"] == int(facts["success"])
        chunks = json.loads(facts["chunks"])
        assert row["rollout/seconds"] == sum(sum(c["seconds"].values()) for c in chunks)
        films = [row[f"film/{view}"] for view in store.layout.views]
        assert films == [("mp4", path.stat().st_size) for path in store.own_films(number) or ()]
    board = json.loads((out / "leaderboard.json").read_text())
    (ranking,) = tables(calls, "ranking")
    for row, policy in zip(ranking, board["policies"], strict=True):
        known = policy["imagined"]
        assert row["policy"] == policy["name"] and row["rank"] == policy["rank"]
        assert [row[k] for k in ("rate", "low", "high")] == [
            known[k] for k in ("rate", "low", "high")
        ]
        assert row["rollouts"] == 10 and row["letters"] == policy["letters"]
    (verdicts,) = tables(calls, "verdicts")
    assert len(verdicts) == 20
    ran("evaluate", *words, "--out", out, "--trackers=trackio:lab")  # goes on: nothing twice
    assert len(shown(calls)) == 20 and len(tables(calls, "ranking")) == 2
    steps = [call[0] for call in calls if isinstance(call, tuple)]
    assert steps == sorted(set(steps)), "wandb takes no step twice"


def test_what_a_killed_run_did_not_show_is_shown_by_the_next(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran("rollout", *words, "--out", tmp_path / "run", "--per-task=1")
    calls = recorder(monkeypatch, "wandb")
    sys.modules["wandb"].Settings = type("Settings", (dict,), {"model_fields": ["init_timeout"]})  # type: ignore[attr-defined]
    ran("rollout", *words, "--out", tmp_path / "run", "--trackers=wandb")
    assert len(shown(calls)) == 20
    assert calls[0]["settings"] == {"init_timeout": 30}
    (rates,) = tables(calls, "success rates")
    assert {row["policy"]: row["rollouts"] for row in rates} == {"good": 10, "bad": 10}
    record = next((tmp_path / "run").glob(".tracked-*"))
    record.write_text("\n".join(record.read_text().splitlines()[:8]))
    second = recorder(monkeypatch, "wandb")
    sys.modules["wandb"].Settings = type("Settings", (dict,), {"model_fields": []})  # type: ignore[attr-defined]
    ran("rollout", *words, "--out", tmp_path / "run", "--trackers=wandb")
    assert len(shown(second)) == 13 and second[0]["id"] == calls[0]["id"]


def test_shards_show_their_own_and_other_seeds_stand_apart(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--per-task=3"]
    counts = []
    for part in ("1/2", "2/2"):
        calls = recorder(monkeypatch, "trackio")
        ran("rollout", *words, "--out", tmp_path / "run", f"--shard={part}", "--trackers=trackio")
        assert calls[0]["name"].startswith(f"run-shard-{part[0]}-of-2-")
        counts.append(len(shown(calls)))
    assert sum(counts) == 12 and all(counts)
    calls = recorder(monkeypatch, "trackio")
    seeds = ["--seed", "3", "--seed", "4"]
    ran("evaluate", *words, "--out", tmp_path / "two", *seeds, "--trackers=trackio")
    assert len(shown(calls)) == 12
    assert sum("other-seed/rollout/policy" in c[1] for c in calls if isinstance(c, tuple)) == 12


@pytest.mark.parametrize("call", [0, 1, 3, 5, 6])
def test_a_tracker_that_fails_loses_no_rollout(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At its beginning, at a rollout, at the ranking, at its end."""
    words = [*words, "--per-task=1"]
    if call == 0:
        ran("evaluate", *words, "--out", tmp_path / "one")
    recorder(monkeypatch, "trackio", failing_at=call)
    ran("evaluate", *words, "--out", tmp_path / "run", "--trackers=trackio")
    assert len(held_keys(tmp_path / "run")) == 4
    told = capsys.readouterr().err
    assert told.count("trackio:worldeval shows nothing more (OSError: no space left") == 1
    if call == 0:
        same(tmp_path / "one", tmp_path / "run")


def test_a_tracker_that_stalls_holds_nobody_up(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tracked, "FINISH_S", 0.2)
    STALL.clear()
    recorder(monkeypatch, "trackio", stalling_at=3)
    ran("evaluate", *words, "--per-task=1", "--out", tmp_path / "run", "--trackers=trackio")
    STALL.set()
    assert len(held_keys(tmp_path / "run")) == 4
    assert "trackio:worldeval took nothing for 0.2 s, and is left alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("trackoi", "did you mean 'trackio'"),
        ("comet", "expected trackio or wandb"),
        ("wandb:", "names no project"),
        ("wandb:team/project", "WANDB_ENTITY"),
        ("trackio", "pip install trackio"),
    ],
)
@pytest.mark.parametrize("verb", ["rollout", "rank"])
def test_what_names_no_tracker_is_told_before_the_work(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    says: str,
    verb: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)  # not installed
    out = tmp_path / "run"
    own = words if verb == "rollout" else [str(tmp_path)]
    assert cli.main([verb, *own, f"--out={out}", f"--trackers={given}"]) == 2
    assert says in capsys.readouterr().err and not out.exists()


def test_a_ranking_alone_is_shown_with_its_agreement(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    third = f"--policy={words[0].removeprefix('--policy=').replace('Good', 'Third')}"
    toys = tmp_path / "toys.py"
    more = "\nclass Third(ToyPolicy):\n    def __init__(self, robot):\n"
    toys.write_text(
        f"{toys.read_text()}{more}"
        "        super().__init__(robot=robot, name='third', mistakes=0.5)\n"
    )
    ran("evaluate", *words, third, "--out", tmp_path / "run")
    calls = recorder(monkeypatch, "trackio")
    run = tmp_path / "run"
    ran("rank", run, "--truth", run, "--out", tmp_path / "ranked", "--trackers=trackio")
    agreement = json.loads((tmp_path / "ranked" / "leaderboard.json").read_text())["agreement"]
    (row,) = [call[1] for call in calls if isinstance(call, tuple)]
    assert row["agreement/pearson"] == agreement["pearson"] == pytest.approx(1)
    assert row["agreement/spearman"] == agreement["spearman"]
    assert row["agreement/mmrv_low"] == agreement["intervals"]["mmrv"]["low"]
    assert [cell["true"] for cell in row["ranking"]] == [cell["rate"] for cell in row["ranking"]]


def test_the_real_trackers_keep_rollouts_films_and_the_ranking(
    tmp_path: Path, words: list[str]
) -> None:
    """trackio in its SQLite file, wandb offline."""
    for library in ("trackio", "wandb"):
        pytest.importorskip(library, reason=f"{library} is not installed: `make setup`")
    place, out = tmp_path / "trackio", tmp_path / "run"
    trackers = ["--trackers=trackio:lab", "--trackers=wandb:lab", f"--out={out}"]
    done = subprocess.run(
        [sys.executable, "-m", "worldeval", "evaluate", *words, *trackers],
        env={
            **os.environ,
            **{"TRACKIO_DIR": str(place), "HF_HUB_OFFLINE": "1"},
            **{"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)},
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "shows nothing more" not in done.stderr, done.stderr
    with sqlite3.connect(place / "lab.db") as database:
        rows = [json.loads(text) for (text,) in database.execute("select metrics from metrics")]
    rollouts = [row for row in rows if "rollout/policy" in row]
    names = [f"{row['rollout/policy']}/{row['rollout/start']}" for row in rollouts]
    assert sorted(names) == sorted(held_keys(out)) and len(names) == 20
    views = EpisodeStore.open(out).layout.views
    assert len(list((place / "media").rglob("*.mp4"))) == 20 * len(views)
    policies = json.loads((out / "leaderboard.json").read_text())["policies"]
    expected = [(p["name"], p["imagined"]["rate"], p["imagined"]["low"]) for p in policies]
    ranking = pd.DataFrame(rows[-1]["ranking"]["_value"])
    assert list(ranking[["policy", "rate", "low"]].itertuples(index=False, name=None)) == expected
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    media = offline / "files" / "media"
    assert len(list(media.glob("videos/film/*.mp4"))) == 20 * len(views)
    (kept,) = media.glob("table/ranking_*.table.json")
    table = json.loads(kept.read_text())
    at = [table["columns"].index(name) for name in ("policy", "rate", "low")]
    assert [tuple(row[i] for i in at) for row in table["data"]] == expected
