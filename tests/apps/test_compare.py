"""Compare: who is shown beside whom, and two evaluations in paired statistics."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.context import Context

from .conftest import EVIL, judge, write_rollouts


@pytest.fixture
def context(runs: Path, context: Context) -> Context:
    """With a second evaluation."""
    second = runs / "second"
    write_rollouts(second, ("good", "bad", EVIL), start_seed=7)
    judge(second, {"good": "success", "bad": "success", EVIL: "failure"})
    context.index.refresh()
    return context


def pane(client: TestClient, **state: str) -> str:
    answer = client.get("/inspector/pane/compare", params=state)
    assert answer.status_code == 200
    assert "<script" not in answer.text
    return answer.text


def test_policies_of_one_start_state_stand_beside_each_other(
    client: TestClient, context: Context
) -> None:
    run = next(run for run in context.index.runs() if run.name == "second")
    start = "push/evaluation/0000"
    text = pane(client, run=run.id, start=start)
    rollouts = {r.policy: r for r in context.index.rollouts("", run=run.id) if r.start_id == start}
    assert f"compare/side/{rollouts[EVIL].id}?by=policy" in text
    assert text.count("compare/side/") == 2, "two that ended differently"
    text = pane(client, run=run.id, start=start, policies="good|bad")
    for name in ("good", "bad"):
        assert f"compare/side/{rollouts[name].id}" in text
        told = client.get(f"/inspector/compare/side/{rollouts[name].id}").json()
        assert told["title"] == name and told["frames"] == 17
    assert client.get("/inspector/compare/side/nobody").status_code == 404
    swapped = pane(client, run=run.id, start=start, swap="good", policies="good")
    other = next(
        r for r in context.index.rollouts("", run=run.id)
        if r.policy == "good" and r.start_id == "reach/evaluation/0001"
    )  # fmt: skip
    assert f"compare/side/{other.id}?by=instruction" in swapped, "the same scene, another task"


def test_two_evaluations_are_compared_start_by_start(client: TestClient, context: Context) -> None:
    runs = {run.name: run.id for run in context.index.runs()}
    text = pane(client, run=runs["second"], other=runs["first"], start="push/evaluation/0000")
    assert "<th>bad</th><td>+100</td>" in text and "<th>good</th><td>+0</td>" in text
    assert text.count("compare/side/") == 2 and "by=run" in text
