"""What a selection kept and lost, and why, is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from worldeval import Synthesis
from worldeval.errors import DataError
from worldeval.synthesis.rules import chosen_rule
from worldeval.synthesis.selecting import Funnel, select
from worldeval.synthesis.selection_file import FILE, read_selection, write_selection
from worldeval.synthesis.tables import Tables


@pytest.fixture
def funnel() -> Funnel:
    rows = [
        ("push/0", "push", "success", 0.9, True, 0.1),
        ("push/1", "push", "success", 0.95, False, 0.7),
        ("push/2", "push", "failure", 0.2, True, 0.1),
        ("lift/0", "lift", "undecided", float("nan"), None, float("nan")),
    ]
    columns = ["key", "task", "outcome", "probability", "trusted", "distrust"]
    table = pd.DataFrame(rows, columns=columns).assign(instruction="x", start_id="s", group="g")
    rules = [chosen_rule("success?threshold=0.8"), chosen_rule("trust")]
    return select(Tables(rollouts=table, paths={}), rules, ["a note"])


def test_a_funnel_is_the_same_when_it_is_read_again(funnel: Funnel, tmp_path: Path) -> None:
    write_selection(funnel, tmp_path)
    found = read_selection(tmp_path)
    pd.testing.assert_frame_equal(found.counts(), funnel.counts())
    assert (found.kept, found.notes) == (["push/0"], ("a note",))
    assert [vars(stage) for stage in found.stages] == [vars(stage) for stage in funnel.stages]
    for key in funnel.rollouts["key"]:
        assert found.lost_at(key) == funnel.lost_at(key)
        assert found.scores_of(key) == funnel.scores_of(key)
        assert found.why_lost(key) == funnel.why_lost(key)


def test_why_a_rollout_was_lost_is_told_with_what_the_rule_saw(funnel: Funnel) -> None:
    assert funnel.why_lost("push/0") == ""
    assert funnel.why_lost("push/1") == "not trusted (trusted no, distrust 0.7), by the rule trust"
    assert funnel.why_lost("push/2") == (
        "not judged a success (outcome failure, probability 0.2), by the rule success?threshold=0.8"
    )
    assert "probability unknown" in funnel.why_lost("lift/0")


def test_all_are_kept_where_no_rule_was_given(funnel: Funnel, tmp_path: Path) -> None:
    write_selection(Funnel(rollouts=funnel.rollouts, stages=()), tmp_path)
    assert len(read_selection(tmp_path).kept) == 4


def test_a_synthesis_is_opened_again_wherever_its_rollouts_lie(
    funnel: Funnel, tmp_path: Path
) -> None:
    out = tmp_path / "kept"
    out.mkdir()
    with pytest.raises(DataError, match="run the same `worldeval synthesize` again"):
        Synthesis.open(out)
    write_selection(funnel, out)
    with pytest.raises(DataError, match="does not say where the rollouts were imagined"):
        Synthesis.open(out)
    (out / "funnel.json").write_text(json.dumps({"imagined": str(tmp_path / "pool")}))
    assert Synthesis.open(out).pool == tmp_path / "pool"
    (out / "imagined").mkdir()
    made = Synthesis.open(out)
    assert made.pool == out / "imagined" and made.funnel.kept == ["push/0"]


def test_another_table_of_that_name_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"key": ["a"]}).to_parquet(tmp_path / FILE)
    with pytest.raises(DataError, match="is not the table of a selection"):
        read_selection(tmp_path)
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        read_selection(tmp_path)
