"""A few broken inputs of every target, from benchmarks/fuzz.py: right values or one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz

SHARE = 24


@pytest.mark.skipif(not hasattr(fuzz.os, "fork"), reason="children are forked")
def test_a_share_of_the_fuzz_ends_in_right_values_or_one_sentence(tmp_path: Path) -> None:
    rows = fuzz.Fuzz(tmp_path, seed=1).all(SHARE)
    assert {row["target"] for row in rows} == set(fuzz.SHARES)
    wrong = [row for row in rows if row["class"] not in fuzz.GOOD]
    told = [f"{row['index']} {row['class']}: {row['words']} {row['said']}" for row in wrong]
    assert not wrong, "\n".join(told)


def test_what_ends_wrongly_is_seen() -> None:
    """The classes themselves: a traceback, a fault, damage unseen, codes, memory."""
    ended = {"why": "ended", "status": 0}
    found = {"exit": 0, "words": ["rank"], "what": "trials.csv", "kind": "flip", "result": {"a": 1}}

    def classed(said: str = "done", expected: object = None, **changes: object) -> str:
        facts = {**found, **{k: v for k, v in changes.items() if k not in ended}}
        return fuzz.classed({**ended, **changes}, facts, said, expected)

    assert classed(expected={"a": 1}) == "right"
    assert classed(expected={"a": 2}) == "other"
    assert classed(expected={"a": 2}, what="verdicts.parquet") == "silent"
    assert classed(expected={"a": 2}, what="store/meta/info.json") == "silent"
    assert classed(result="unreadable: x", expected={"a": 2}) == "silent"
    assert classed(result={"k": ["t", "i", True, "d", False]}, what="lerobot/x") == "silent"
    assert classed("worldeval: no", exit=2) == "sentence"
    assert classed("worldeval: x", exit=1) == "exit"
    assert classed("worldeval: x", exit=1, words=["store", "verify"]) == "sentence"
    assert classed("worldeval: a fault", exit=70) == "net"
    assert classed("worldeval: memory ran out", exit=2) == "memory"
    assert classed("Traceback (most recent call last)", exit=2) == "traceback"
    assert classed("worldeval: \x1b[31m", exit=2) == "codes"
    assert classed(why="hang") == "hang"
    assert classed(status=11) == "crash"
