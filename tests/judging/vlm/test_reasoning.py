"""Servers of models that reason: wherever the answer is, it is read, or it is told where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.judging.vlm.server import completion, episode, http, vote
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, JudgeError
from worldeval.evaluation.folder import VERDICTS, judge_folder
from worldeval.types import Outcome

ANSWER = '{"reason": "open in frame 8", "answer": "yes"}'


def message(finish: str = "stop", **fields: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **fields}}
    return http("200 OK", json.dumps({"choices": [choice]}).encode())


def called(arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": None, "reasoning_content": ANSWER},
        {"content": "", "reasoning": ANSWER},
        {"content": " \n", "reasoning": f"It moves.\n{ANSWER}"},
        {"reasoning_content": ANSWER},
        {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": ANSWER}]},
        {"content": None, "tool_calls": [called(ANSWER)]},
        {"content": None, "tool_calls": [called(json.loads(ANSWER))]},
        {"content": None, "function_call": {"name": "f", "arguments": ANSWER}},
        {"content": "Here is my verdict.", "tool_calls": [called(ANSWER)]},
        {"content": [{"type": "text", "text": ANSWER}]},
        {"content": [{"type": "thinking", "text": "no?"}, {"type": "text", "text": ANSWER}]},
        {"content": f"```json\n{ANSWER}\n```", "reasoning_content": "Answer: no"},
        {"content": ANSWER, "reasoning": '{"answer": "no"}', "tool_calls": None},
        {"content": f"<think>Answer: no</think>{ANSWER}"},
    ],
)
def test_the_answer_is_read_where_it_stands(serve: Callable, judge_at: Callable, fields) -> None:
    (verdict,) = judge_at(serve([message(**fields)])).judge([episode()])
    assert verdict.outcome is Outcome.SUCCESS and "open in frame 8" in verdict.reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (message(content=None), "empty (neither content nor reasoning nor a tool call"),
        (message(content=None, reasoning="It may be open."), "which stood in reasoning"),
        (message(content=None, tool_calls=[called("{}")]), "which stood in a tool call"),
        (message("length", content=None, reasoning=ANSWER), "cut off at max_tokens=1024"),
        (message("length", content="The drawer"), "cut off at max_tokens=1024"),
        (message("content_filter", content=None), "withheld by the server's filter"),
        (message(content=None, refusal="No."), "refused by the model"),
        (message(content="It is a nice drawer."), "without an answer in their content"),
        (message(content=None, tool_calls="x", reasoning=5), "empty"),
    ],
)
def test_what_cannot_be_read_is_undecided_and_says_why(
    serve: Callable, judge_at: Callable, reply, words
) -> None:
    (verdict,) = judge_at(serve([reply])).judge([episode()])
    assert verdict.outcome is Outcome.UNDECIDED and verdict.probability is None
    assert verdict.reason.startswith("1 unreadable of 1 votes") and words in verdict.reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    first = episode("p/1")
    with EpisodeStore.create(
        tmp_path / "rolls", views=first.views, image_size=first.frames.shape[2:4],
        fps=5.0, robot_type="r", steps_per_frame=first.actions.shape[1],
        pose_names=tuple(f"p{i}" for i in range(first.poses.shape[1])),
        action_names=tuple(f"a{i}" for i in range(first.actions.shape[2])),
        images="lossless",
    ) as store:  # fmt: skip
        for number in (1, 2):  # that look different, or they are asked about once
            store.append(episode(f"p/{number}", colour=50 * number))
    return tmp_path / "rolls"


def test_a_run_of_which_nothing_could_be_read_is_an_error_and_is_asked_again(
    serve: Callable, judge_at: Callable, folder: Path, tmp_path: Path
) -> None:
    mute = message(content="", reasoning="The drawer is open, I think.")
    server = serve([mute])
    judge = judge_at(server, votes=2, cache=tmp_path / "answers")
    with pytest.raises(JudgeError) as error:
        judge_folder(judge, folder)
    for words in ("4 of 4 answers of vlm-m@", "which stood in reasoning", "the same command asks"):
        assert words in str(error.value)
    assert not (folder / VERDICTS).exists()
    asked = len(server.asked)
    with pytest.raises(JudgeError):
        judge_folder(judge, folder)
    assert len(server.asked) == asked  # text that stood somewhere was paid for, and is kept


def test_answers_without_text_are_asked_for_again(
    serve: Callable, judge_at: Callable, folder: Path, tmp_path: Path
) -> None:
    server = serve([message(content=None), message(content=None), vote("yes")])
    judge = judge_at(server, cache=tmp_path / "answers", concurrency=1)
    with pytest.raises(JudgeError, match="2 of 2 answers"):
        judge_folder(judge, folder)
    assert set(judge_folder(judge, folder)["outcome"]) == {"success"}


def test_some_unread_answers_are_told_each_time(
    serve: Callable, judge_at: Callable, folder: Path, capsys
) -> None:
    server = serve([vote("yes"), completion("<think>let me", finish="length"), vote("no")])
    judge = judge_at(server, votes=2, concurrency=1)
    for _ in range(2):  # also when the table is there already
        judge_folder(judge, folder)
        told = capsys.readouterr().err
        assert "1 of 4 answers of vlm-m@" in told and "1 cut off at max_tokens=1024" in told
        assert "allow more with max_tokens=4000" in told
    assert len(server.asked) == 4


def test_an_answer_kept_by_a_version_that_read_content_alone_is_asked_for_again(
    serve: Callable, judge_at: Callable, tmp_path: Path
) -> None:
    server = serve([vote("yes")])
    judge = judge_at(server, cache=tmp_path / "answers")
    judge.judge([episode()])
    (kept,) = (tmp_path / "answers").rglob("*.json")
    old = json.loads(kept.read_text())
    old["choices"] = [{"text": "", "finish": "stop"}]
    kept.write_text(json.dumps(old))
    assert judge.judge([episode()])[0].outcome is Outcome.SUCCESS and len(server.asked) == 2


def test_words_of_other_languages_are_a_setting_and_another_judge(
    serve: Callable, judge_at: Callable
) -> None:
    server = serve([completion("Nein.")])
    plain, german = judge_at(server), judge_at(server, yes="ja", no="nein,nie")
    assert plain.judge([episode()])[0].outcome is Outcome.UNDECIDED
    assert german.judge([episode()])[0].outcome is Outcome.FAILURE
    assert plain.name != german.name
    with pytest.raises(ConfigError, match="are in yes and in no"):
        judge_at(server, yes="ja", no="JA")
