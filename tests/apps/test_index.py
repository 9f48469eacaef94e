"""The index finds evaluations by themselves, follows their files, and can be made anew."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from apps.inspector.index import Index
from worldeval import WorldEvalError

from .conftest import judge, write_rollouts


@pytest.fixture
def index(runs: Path, tmp_path: Path) -> Index:
    index = Index([runs], tmp_path / "cache" / "index.sqlite")
    index.refresh()
    return index


def test_an_evaluation_is_found_with_its_verdicts(index: Index) -> None:
    [run] = index.runs()
    assert (run.name, run.policies, run.rollouts, run.judged) == ("first", 2, 4, 4)
    found = index.rollouts("policy:bad")
    assert [(r.outcome, r.probability, r.frames) for r in found] == [("failure", 0.2, "2 4 8")] * 2
    assert index.names("policy") == [("bad", 2), ("good", 2)]


def test_the_index_made_anew_is_the_same(index: Index, runs: Path, tmp_path: Path) -> None:
    other = Index([runs], tmp_path / "other.sqlite")
    other.refresh()
    assert other.rollouts() == index.rollouts()
    assert other.runs() == index.runs()


def test_what_is_added_is_seen_and_nothing_is_read_twice(index: Index, runs: Path) -> None:
    assert index.refresh() == 0
    place = runs / "first" / "rollouts" / "all"
    write_rollouts(place, ("good", "bad"), 3)
    assert index.refresh() == 1
    assert (index.count(), index.count("outcome:unjudged")) == (6, 2)
    judge(place, {"good": "success", "bad": "undecided"})
    assert index.refresh() == 1
    assert index.count("outcome:undecided") == 3


def test_what_is_deleted_is_forgotten(index: Index, runs: Path) -> None:
    shutil.rmtree(runs / "first")
    index.refresh()
    assert (index.runs(), index.count(), index.values("policy")) == ([], 0, [])


def test_an_evaluation_that_lost_one_of_its_stores_is_counted_anew(
    index: Index, runs: Path
) -> None:
    more = runs / "first" / "rollouts" / "more"
    write_rollouts(more, ("third",), 2)
    index.refresh()
    [run] = index.runs()
    assert (run.policies, run.rollouts, run.judged) == (3, 6, 4)
    shutil.rmtree(more)
    index.refresh()
    [run] = index.runs()
    assert (run.policies, run.rollouts, run.judged) == (2, 4, 4)


def test_truth_of_the_same_start_is_found(index: Index, runs: Path) -> None:
    write_rollouts(runs / "true", ("good",), 1, world="toy", outcome="success")
    index.refresh()
    [imagined] = index.rollouts("policy:good start:push/evaluation/0000 world:imagination")
    true = index.in_truth(imagined)
    assert true is not None and true.world == "toy"
    assert index.in_truth(true) is None
    assert index.in_truth(replace(imagined, policy="bad")) is None


def test_the_order_is_total_in_both_directions(index: Index) -> None:
    from apps.inspector.query import Query
    from apps.inspector.schema import ORDERS

    for order in ORDERS:
        listed = index.rollouts(order=order)
        for number, rollout in enumerate(listed):
            before, after = index.neighbours(rollout, Query(), order=order)
            assert before == (listed[number - 1] if number else None)
            assert after == (listed[number + 1] if number + 1 < len(listed) else None)


def test_a_link_out_of_the_root_is_not_followed(index: Index, runs: Path, tmp_path: Path) -> None:
    write_rollouts(tmp_path / "secret", ("hidden",), 1)
    os.symlink(tmp_path / "secret", runs / "link")
    os.symlink(runs, runs / "circle")
    index.refresh()
    assert index.count() == 4


def test_a_spoilt_store_is_named_and_the_others_are_shown(index: Index, runs: Path) -> None:
    write_rollouts(runs / "spoilt", ("x",), 1)
    for file in (runs / "spoilt" / "meta" / "episodes").rglob("*.parquet"):
        file.write_bytes(b"no parquet")
    (runs / "evil" / "meta").mkdir(parents=True)
    (runs / "evil" / "meta" / "info.json").write_text("[" * 100_000)
    index.refresh()
    notes = {run.name: run.note for run in index.runs()}
    assert notes.keys() == {"first", "spoilt", "evil"}
    assert "parquet" in notes["spoilt"] and notes["evil"] and not notes["first"]


def test_recordings_are_no_evaluations(index: Index, runs: Path) -> None:
    place = write_rollouts(runs / "recordings", ("x",), 1).root
    info = place / "meta" / "info.json"
    info.write_text(info.read_text().replace('"rollouts"', '"recordings"'))
    index.refresh()
    assert len(index.runs()) == 1


def test_readers_go_on_while_it_refreshes(index: Index, runs: Path) -> None:
    errors: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                assert index.count() >= 4
                index.rollouts("good", order="trust")
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(3, 6):
        write_rollouts(runs / "first" / "rollouts" / "all", ("good",), number)
        index.refresh()
    stop.set()
    for reader in readers:
        reader.join()
    assert not errors


def test_an_unknown_identifier_is_a_sentence(index: Index) -> None:
    for name in ("", "nothing", "../../etc/passwd", "'; --"):
        with pytest.raises(WorldEvalError, match="choose one in the"):
            index.rollout(name)
        with pytest.raises(WorldEvalError, match="choose one in the"):
            index.run(name)
