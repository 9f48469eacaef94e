"""The list offers what there is to choose, and is of what was chosen and typed."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.context import Context

from .conftest import write_rollouts


def listed(client: TestClient, **state: str) -> str:
    answer = client.get("/inspector/pane/browse", params=state)
    assert answer.status_code == 200
    return answer.text


def cards(text: str) -> list[str]:
    return re.findall(r'we-card-name">([^<]+)', text)


def options(text: str, name: str) -> list[str]:
    select = text.partition(f'<select name="{name}"')[2].partition("</select>")[0]
    return re.findall(r'value="([^"]*)"', select)


def test_policy_task_judge_and_outcome_are_chosen_beside_the_query(client: TestClient) -> None:
    text = listed(client)
    assert options(text, "policy") == ["", "bad", "good"]
    assert options(text, "task") == ["", "push", "reach"]
    assert options(text, "judge") == ["", "stand-in@1"]
    assert "undecided" in options(text, "outcome")
    assert cards(listed(client, policy="bad", task="push")) == ["bad"]
    assert cards(listed(client, outcome="failure")) == ["bad", "bad"]
    assert cards(listed(client, outcome="failure", q="good")) == []
    assert cards(listed(client, judge="stand-in@1", q="reach")) == ["bad", "good"]
    gone = listed(client, policy="gone")
    assert cards(gone) == [] and "gone" in options(gone, "policy"), "what is chosen is seen"


def test_the_rollout_before_and_after_are_of_the_same_choice(
    client: TestClient, context: Context
) -> None:
    [first, last] = context.index.rollouts("policy=bad")
    shown = listed(client, rollout=first.id, policy="bad")
    assert "later" in shown and "earlier" not in shown
    assert "later" not in listed(client, rollout=last.id, policy="bad")


def test_the_table_is_of_what_is_listed(client: TestClient) -> None:
    text = listed(client, policy="bad", q="push")
    table = re.search(r'href="(inspector/table.csv[^"]*)"', text)
    assert table is not None
    lines = client.get("/" + table[1].replace("&amp;", "&")).text.splitlines()
    assert len(lines) == 2 and ",bad/push/" in lines[1]


def test_only_what_is_known_is_offered(client: TestClient, context: Context, runs: Path) -> None:
    text = listed(client)
    assert "failures" in text and "not to be believed" not in text and "judge and truth" not in text
    place = runs / "first" / "rollouts" / "all"
    keys = pd.read_parquet(place / "verdicts.parquet")["key"]
    told = {"key": keys, "distrust": 0.9, "trusted": [False] * 3 + [True]}
    pd.DataFrame(told).to_parquet(place / "trust.parquet", index=False)
    write_rollouts(runs / "other", ("third",), 1)
    context.index.refresh()
    assert "not to be believed" in listed(client)
    assert len(cards(listed(client, q="trusted:no"))) == 3
    other = next(run.id for run in context.index.runs() if run.name == "other")
    assert "not to be believed" not in listed(client, run=other)
    assert options(listed(client, run=other), "policy") == ["", "third"]
