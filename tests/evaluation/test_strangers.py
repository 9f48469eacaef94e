"""What is known of strangers stands first, and only beside rankings that it speaks of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.evaluation.strangers import Strangers, read_strangers, strangers_notes

KNOWN = Strangers(
    judge="judge@1",
    world_model="abc",
    policies=14,
    starts=50,
    pearson=(0.852, 0.615, 0.946),
    spearman=(0.901, 0.593, 0.965),
    top1_regret=(0.26, 0.0, 0.5),
    mean_error=0.086,
    seen=("full", "deaf"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(tmp_path))
    path = tmp_path / shipped.STRANGERS
    path.write_text(json.dumps(asdict(KNOWN)))
    return path


def test_held_out_families_come_first_and_seen_policies_are_called_so(place: Path):
    first, second = strangers_notes(["full", "deaf"], ["judge@1"], "abc")
    assert first.startswith("Over 14 policies of families that judge and world model have never")
    assert "Pearson 0.85 (0.61 to 0.95)" in first and "off by 9 points" in first
    assert second.startswith("All of these policies are ones from which judge and world model")
    assert "1 of these policies" in strangers_notes(["full", "mine"], ["judge@1"], "abc")[1]
    assert len(strangers_notes(["mine"], ["judge@1"], "abc")) == 1


@pytest.mark.parametrize("judges, model", [(["other"], "abc"), (["judge@1"], "x"), ([], None)])
def test_of_another_judge_or_world_nothing_is_said(place: Path, judges, model):
    assert strangers_notes(["full"], judges, model) == []


def test_a_damaged_file_is_told_and_a_missing_one_is_not(place: Path):
    place.write_text('{"format": "worldeval-strangers-1"}')
    with pytest.raises(ConfigError, match="is no measurement of strangers"):
        read_strangers(place)
    place.write_text(json.dumps({**asdict(KNOWN), "format": "other"}))
    with pytest.raises(ConfigError, match="format is 'other'"):
        read_strangers(place)
    place.unlink()
    assert strangers_notes(["full"], ["judge@1"], "abc") == []


def test_the_shipped_file_speaks_of_the_shipped_judge_and_world():
    from worldeval.data.checkpoint import digest
    from worldeval.judging.loading import load_judge

    known = read_strangers(shipped.path(shipped.STRANGERS))
    assert known.world_model == digest(shipped.path(shipped.WORLD_MODEL))
    assert known.judge == load_judge(shipped.path(shipped.JUDGE)).name
    assert known.seen and not set(known.seen) & set(shipped.policies())
