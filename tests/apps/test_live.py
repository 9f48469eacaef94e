"""A live world answers to its own visitor alone, moves as told, and is kept among the runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector import worlds as limits
from apps.inspector.context import Context, LiveWorld
from apps.inspector.guard import Guard
from apps.inspector.server import make_server
from worldeval import EpisodeStore

pytestmark = pytest.mark.weights
START = {"start": "reach/evaluation/0001", "seed": 0}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    root = tmp_path_factory.mktemp("live") / "runs"
    root.mkdir()
    context = Context([root], root.parent / "cache")
    yield Guard(make_server(context)), root


@pytest.fixture
def visitors(app: tuple[Any, Path]) -> Iterator[tuple[TestClient, TestClient]]:
    with (
        TestClient(app[0], base_url="http://localhost") as one,
        TestClient(app[0], base_url="http://localhost") as other,
    ):
        yield one, other


def ask(client: TestClient, path: str, body: Any = None, status: int = 200) -> Any:
    path = f"/inspector/live/{path}"
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_visitor_moves_only_the_own_world(visitors: tuple[TestClient, TestClient]) -> None:
    one, other = visitors
    assert ask(other, "now") == {"open": False}
    told = ask(other, "keys", {"keys": "r"}, 404)
    assert told == {"error": "your world is no longer open; begin again at a start state"}
    began = ask(one, "begin", START)
    ask(other, "begin", START)
    moved = ask(one, "keys", {"keys": "r"})
    assert moved["pose"][0] - began["pose"][0] == pytest.approx(0.06, abs=1e-3)
    assert moved["moment"]["by"] == "keys" and moved["count"] == 4
    assert moved["hand"]["left"][3] != moved["hand"]["left"][0]
    untouched = ask(other, "now")
    assert untouched["pose"] == began["pose"] and len(untouched["moments"]) == 1
    one.cookies.clear()
    assert ask(one, "now") == {"open": False}, "without the cookie nobody is known"


def test_back_a_path_a_policy_and_kept(
    app: tuple[Any, Path], visitors: tuple[TestClient, TestClient]
) -> None:
    one, _ = visitors
    began = ask(one, "begin", START)
    ask(one, "keys", {"keys": "u"})
    assert ask(one, "go", {"number": 0})["now"] == 0
    hand = np.array(began["hand"]["left"][0])
    points = (hand + np.linspace(0, 1, 9)[:, None] * [0.05, -0.05]).tolist()
    plan = ask(one, "sketch", {"view": "left", "points": points, "speed": 1.0})
    assert plan["path"]["left"][-1] == pytest.approx(points[-1], abs=1e-3)
    told = {"left": plan["left"]}
    while told["left"]:
        told = ask(one, "follow", {})
    assert told["hand"]["left"][-1] == pytest.approx(points[-1], abs=1e-3)
    acted = ask(one, "policy", {"policy": "full", "instruction": "move the hand to the red ball"})
    assert acted["moment"]["what"] == "full"
    kept = ask(one, "save", {"name": "ann"})
    assert kept["key"] == "ann/reach/evaluation/0001/001" and kept["run"]
    store = EpisodeStore.open(app[1] / "live")
    assert store.facts(0)["driven_by"] == "poses, policy"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("begin", {"start": "../../etc/passwd"}, 404),
        ("keys", {"keys": "q"}, 404),
        ("keys", {"keys": "x" * 99}, 422),
        ("keys", {"keys": "l", "speed": 9}, 422),
        ("sketch", {"view": "wrist", "points": [[0.5, 0.5]]}, 404),
        ("sketch", {"view": "left", "points": [[0.5, 7]]}, 404),
        ("sketch", {"view": "left", "points": [[0.5, 0.5]] * 2001}, 422),
        ("policy", {"policy": "python:/tmp/evil.py:Evil"}, 404),
        ("policy", {"policy": "../policies/full"}, 404),
        ("go", {"number": 99}, 404),
        ("follow", {}, 404),
        ("save", {"name": "../../x"}, 422),
        ("save", {"name": "live"}, 404),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    visitors: tuple[TestClient, TestClient], path: str, body: Any, status: int
) -> None:
    one, _ = visitors
    ask(one, "begin", START)
    ask(one, path, body, status)
    assert len(ask(one, "now")["moments"]) == 1


def test_policies_that_end_alike_are_all_offered() -> None:
    mine = ("runs/mine/full", "a/best", "b/best/", "c/other")
    offered = limits.Worlds(LiveWorld(policies=mine)).policies
    assert [offered[name] for name in (*mine[:3], "other")] == list(mine)
    assert offered["full"].endswith("policies/full"), "the shipped one keeps its name"
    assert "best" not in offered


def test_worlds_that_nobody_drives_make_room(
    visitors: tuple[TestClient, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_WORLDS", 1)
    one, other = visitors
    ask(one, "begin", START)
    ask(other, "begin", START)
    assert ask(one, "now") == {"open": False} and ask(other, "now")["open"]
