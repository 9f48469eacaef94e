"""Two evaluations from the same start states: paired, by policy and task, or told why not."""

from pathlib import Path

import pytest

import worldeval as we
from tests.apps.conftest import judge, write_rollouts
from worldeval.errors import MismatchError


def folder(place: Path, outcomes: dict[str, str], starts: int = 4) -> Path:
    write_rollouts(place, tuple(outcomes), starts=starts)
    judge(place, outcomes)
    return place


def test_what_changed_is_told_by_policy_and_task(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", {"same": "success", "better": "failure"})
    new = folder(tmp_path / "new", {"same": "success", "better": "success"})
    found = we.before_and_after(old, new)
    same, better = sorted(found.changes, key=lambda change: change.test.difference)
    assert (same.after, same.test.difference, same.adjusted) == ("same", 0.0, 1.0)
    assert (better.after, better.test.difference, better.test.only_b) == ("better", 1.0, 4)
    assert better.test.p_value == 0.125 and better.adjusted == 0.25
    assert {(c.after, c.task, c.test.pairs) for c in found.tasks} == {
        (name, task, 2) for name in ("same", "better") for task in ("push", "reach")
    }
    assert "better: +100.0 points" in found.text() and not found.notes


def test_one_policy_under_two_names_and_starts_that_only_one_has(tmp_path: Path) -> None:
    control = {"control-still": "failure"}  # is there to be looked at, not to be compared
    old = folder(tmp_path / "old", {"base": "success", **control}, starts=2)
    new = folder(tmp_path / "new", {"tuned": "failure", **control}, starts=3)
    found = we.before_and_after(we.Evaluation.open(old), new)
    assert len(found.changes) == 1
    assert found.changes[0].test.pairs == 2 and found.changes[0].test.difference == -1
    assert found.text().startswith("base -> tuned: -100.0 points")
    assert found.notes == ("1 rollouts have no counterpart on the other side and do not count.",)


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", {"a": "success", "b": "success"})
    new = folder(tmp_path / "new", {"c": "undecided", "d": "success"})
    with pytest.raises(MismatchError, match="none of them in both"):
        we.before_and_after(old, new)
    with pytest.raises(MismatchError, match="none is decided on both sides"):
        we.before_and_after(old, new, policies=[("a", "c")])
    with pytest.raises(MismatchError, match="no rollouts of 'x'"):
        we.before_and_after(old, new, policies=[("x", "c")])
    import pandas as pd

    table = pd.read_parquet(new / "verdicts.parquet").assign(judge="other@2")
    table.to_parquet(new / "verdicts.parquet", index=False)
    with pytest.raises(MismatchError, match="let one judge judge both"):
        we.before_and_after(old, new, policies=[("a", "d")])
