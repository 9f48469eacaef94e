"""The API key goes to its own server in one header, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.judging.vlm.server import completion, episode, vote
from worldeval.errors import ConfigError, JudgeError
from worldeval.judging.vlm.judge import VisionLanguageJudge

KEY = "sk-secret/0123456789+abc"


def test_the_key_goes_into_one_header_and_nowhere_else(
    serve: Callable, judge_at: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    echo = completion(json.dumps({"reason": f"I was told {KEY}", "answer": "yes"}))
    server = serve([echo], key=KEY)
    judge = judge_at(server, key_env="MY_KEY")
    (verdict,) = judge.judge([episode()])
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(server.asked[0].body)
    assert verdict.reason.endswith("I was told [key]")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(KEY in text for text in written)
    for shown in (repr(judge), repr(judge.settings), repr(judge._client), judge.name):
        assert KEY not in shown


def test_a_wrong_key_is_refused_at_once_and_not_repeated(
    serve: Callable, judge_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-wrong-key-000")
    server = serve([vote("yes")], key=KEY)
    with pytest.raises(JudgeError, match="HTTP 401 .*environment variable MY_KEY") as caught:
        judge_at(server, key_env="MY_KEY").judge([episode()])
    assert "sk-wrong" not in str(caught.value) and "[key]" in str(caught.value)


def test_no_key_is_sent_that_was_not_asked_for(
    serve: Callable, judge_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key for one server must not go to another one, only because it is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(JudgeError, match="HTTP 401 .*by key_env=NAME"):
        judge_at(serve([vote("yes")], key=KEY)).judge([episode()])


@pytest.mark.parametrize("value", [None, "", " ", "two words", "clé"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="environment variable MY_KEY") as caught:
        VisionLanguageJudge.from_uri("vlm:http://h/v1?model=m&key_env=MY_KEY")
    assert not (value or "").strip() or value not in str(caught.value)
