"""Nothing is asked twice, nothing that was answered is lost, and nothing damaged is believed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.judging.vlm.server import completion, episode, vote
from worldeval.errors import StoreError
from worldeval.judging.vlm.cache import AnswerCache
from worldeval.judging.vlm.judge import VisionLanguageJudge
from worldeval.judging.vlm.reply import Choice, Reply
from worldeval.types import Cost


def test_a_second_run_asks_nothing_and_says_the_same(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("yes"), vote("no"), completion("hm")])
    prices = {"price_in": 2, "price_out": 10}
    first = judge_at(server, votes=3, **prices)
    episodes = [episode(), episode("p/2", colour=9)]
    verdicts = first.judge(episodes)
    assert len(server.asked) == 6 == first.spent.requests
    second = judge_at(server, votes=3, **prices)
    assert second.judge(episodes) == verdicts and second.name == first.name
    assert len(server.asked) == 6 and second.spent == Cost(dollars=0.0)


def test_more_votes_ask_only_for_those_that_are_missing(
    serve: Callable, judge_at: Callable
) -> None:
    server = serve([vote("yes")])
    judge_at(server, votes=2).judge([episode()])
    judge_at(server, votes=5).judge([episode()])
    assert sorted(asked.body["seed"] for asked in server.asked) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.9}, {"seed": 9}, {"max_tokens": 9}, {"frames": 4},
     {"image": "png"}, {"extra": '{"reasoning_effort":"low"}'}, {"layout": "grid"}],
)  # fmt: skip
def test_whatever_is_sent_otherwise_is_asked_anew_and_signed_otherwise(
    serve: Callable, judge_at: Callable, change: dict
) -> None:
    server = serve([vote("yes")])
    first, other = judge_at(server), judge_at(server, **change)
    first.judge([episode()])
    other.judge([episode()])
    assert len(server.asked) == 2
    assert first.name != other.name


def test_other_pictures_instructions_and_tasks_are_asked_anew(
    serve: Callable, judge_at: Callable, tmp_path: Path
) -> None:
    rubric = tmp_path / "rubric.json"
    rubric.write_text(json.dumps({"tasks": {"drawer-close": "yes: the drawer is shut"}}))
    server = serve([vote("yes")])
    judge = judge_at(server, rubric=rubric)
    for changed in ({}, {"colour": 1}, {"instruction": "shut it"}, {"task": "drawer-close"}):
        judge.judge([episode(**changed)])
    assert len(server.asked) == 4
    assert "yes: the drawer is shut" in server.asked[3].text
    assert "yes: the drawer is shut" not in server.asked[0].text
    judge.judge([episode("another key", extra={"policy": "another"})])
    assert len(server.asked) == 4  # what the model does not see does not matter


def test_rollouts_that_look_the_same_are_asked_about_once(
    serve: Callable, judge_at: Callable
) -> None:
    server = serve([vote("yes")])
    verdicts = judge_at(server, cache="none").judge([episode("p/1"), episode("p/2")])
    assert [verdict.key for verdict in verdicts] == ["p/1", "p/2"]
    assert len(server.asked) == 1


def test_without_a_cache_everything_is_asked_again(
    serve: Callable, judge_at: Callable, tmp_path: Path
) -> None:
    server = serve([vote("yes")])
    judge = judge_at(server, cache="none")
    for _ in range(2):
        judge.judge([episode()])
    assert len(server.asked) == 2 and not (tmp_path / "answers").exists()


def test_answers_are_kept_in_the_home_of_caches_unless_told_otherwise(
    serve: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    judge = VisionLanguageJudge.from_uri(f"vlm:{serve([vote('yes')]).url}?model=m&votes=1")
    judge.judge([episode()])
    judge.close()
    assert len(list((tmp_path / "worldeval" / "vlm").rglob("*.json"))) == 1


def test_a_damaged_answer_is_named_not_believed(
    serve: Callable, judge_at: Callable, tmp_path: Path
) -> None:
    server = serve([vote("yes")])
    judge = judge_at(server)
    judge.judge([episode()])
    (kept,) = (tmp_path / "answers").rglob("*.json")
    kept.write_text(kept.read_text()[:-20])
    with pytest.raises(StoreError, match=f"{kept.name} holds no answer .* delete it"):
        judge.judge([episode()])


def test_two_that_write_the_same_answer_at_once_do_not_meet(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    reply = Reply(
        choices=(Choice(text="x" * 50_000),),
        prompt_tokens=1, completion_tokens=None, seconds=0.5, requests=1,
    )  # fmt: skip

    def write(_: int) -> None:
        cache.put("ab", reply)
        assert cache.get("ab") == reply

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(100)))
    assert [path.name for path in tmp_path.rglob("*.*")] == ["ab.json"]


def test_a_full_disk_is_a_sentence(
    serve: Callable, judge_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="cannot keep an answer in .*No space left"):
        judge_at(serve([vote("yes")])).judge([episode()])
