"""A judge whose server is down, slow, busy, broken or something else entirely.

What may pass is asked again; what cannot is refused at once with a sentence; neither is a verdict,
and no answer that was given is lost."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.judging.vlm.server import (
    Reply,
    VlmServer,
    break_off,
    completion,
    drip,
    episode,
    error,
    hang_up,
    http,
    slow,
    vote,
)
from worldeval.errors import JudgeError
from worldeval.judging.vlm.judge import VisionLanguageJudge
from worldeval.judging.vlm.pace import Pace, retry_after_s
from worldeval.types import Outcome

QUICK = {"backoff_s": 0.01}
HTML = b"<!DOCTYPE html>\n<html><body><h1>Welcome to nginx!</h1></body></html>"


@pytest.mark.parametrize(
    "trouble",
    [
        error("500 Internal Server Error", "oops"),
        error("503 Service Unavailable", "loading the model"),
        error("429 Too Many Requests", "slow down", code="rate_limit_exceeded"),
        http("502 Bad Gateway", HTML, "text/html"),
        http("408 Request Timeout", b""),
        http("200 OK", json.dumps({"error": {"code": 502, "message": "upstream"}}).encode()),
        hang_up,
        break_off,
    ],
)
def test_what_may_pass_is_asked_again(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
    trouble: Reply,
) -> None:
    server = serve([trouble, trouble, vote("yes")])
    (verdict,) = judge_at(server, **QUICK).judge([episode()])
    assert verdict.outcome is Outcome.SUCCESS
    assert len(server.asked) == 3 and verdict.cost.requests == 3
    assert server.asked[0].body == server.asked[2].body


@pytest.mark.parametrize("trouble", [slow, drip])
def test_an_answer_that_takes_too_long_is_asked_for_again(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
    trouble: Reply,
) -> None:
    server = serve([trouble, vote("yes")])
    (verdict,) = judge_at(server, timeout_s=0.7, **QUICK).judge([episode()])
    assert verdict.outcome is Outcome.SUCCESS and verdict.cost.requests == 2
    assert server.asked[1].at_s - server.asked[0].at_s > 0.6


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (error("401 Unauthorized", "no key"), "HTTP 401 .no key.; name the environment variable"),
        (error("403 Forbidden", "not for you"), "HTTP 403 .not for you.; this key"),
        (error("404 Not Found", "model 'm' not found"), "model 'm' not found.*check the model"),
        (http("404 Not Found", HTML, "text/html"), "an HTML page.*address, which mostly ends in"),
        (http("404 Not Found", b'{"detail":"Not Found"}'), "HTTP 404 .*detail"),
        (http("400 Bad Request", b'{"error": "no images, please"}'), "HTTP 400 .no images, please"),
        (
            http("400 Bad Request", b'{"object": "error", "message": "too long", "code": 400}'),
            "HTTP 400 .too long.; change what it complains of",
        ),
        (error("400 Bad Request", "no n", param="n"), "with ask=seeds"),
        (error("400 Bad Request", "use the other", param="max_tokens"), "max_completion_tokens"),
        (http("200 OK", HTML, "text/html"), "answered with an HTML page, expected JSON"),
        (http("200 OK", b'{"choices": [{"mess'), "answered with something that is no JSON"),
        (http("200 OK", b""), "answered with something that is no JSON"),
        (http("200 OK", b'{"models": ["m"]}'), "JSON without choices .*models"),
        (http("200 OK", b'{"choices": []}'), "JSON without choices"),
        (http("200 OK", b'[{"choices": 1}]'), "JSON without choices"),
        (http("200 OK", b'{"error": {"message": "no vision"}}'), "without choices .'no vision'"),
        (http("200 OK", b'{"choices": [{"text": "yes"}]}'), "choices that hold no message"),
        (http("307 Temporary Redirect", b"", Location="http://x/y"), "points to 'http://x/y'"),
        (
            error("429 Too Many Requests", "pay first", code="insufficient_quota"),
            "quota is used up .pay first",
        ),
        (error("429 Too Many Requests", "later", Retry_After="86400"), "asks to wait 86400 s"),
    ],
)
def test_what_cannot_pass_is_refused_at_once(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
    refusal: bytes,
    said: str,
) -> None:
    server = serve([refusal])
    with pytest.raises(JudgeError, match=said) as caught:
        judge_at(server, **QUICK).judge([episode()])
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_retry_after_is_obeyed(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    server = serve([error("429 Too Many Requests", "wait", Retry_After="0.3"), vote("yes")])
    # without the header it would wait for half a minute and more
    judge_at(server, backoff_s=60).judge([episode()])
    first, second = server.asked
    assert 0.3 <= second.at_s - first.at_s < 5


def test_when_the_server_asks_one_to_wait_all_wait(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    busy = error("429 Too Many Requests", "wait", Retry_After="0.4")
    server = serve([busy, vote("yes")])
    # the second request waits for its turn when the first one is turned away
    judge_at(server, votes=2, concurrency=1).judge([episode()])
    assert min(asked.at_s for asked in server.asked[1:]) - server.asked[0].at_s >= 0.4


@pytest.mark.parametrize("text", ["", "soon", "-5", "nan", "Thu, 99 Foo 2026", "0"])
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert retry_after_s(text) == 0.0


def test_a_retry_after_may_be_a_number_or_a_date() -> None:
    assert retry_after_s("2.5") == 2.5 and retry_after_s(" 3 ") == 3
    soon = datetime.now(UTC) + timedelta(seconds=20)
    assert 18 < retry_after_s(format_datetime(soon, usegmt=True)) <= 20
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0


def test_pauses_double_with_jitter(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    server = serve([error("500 Internal Server Error", "oops")])
    with pytest.raises(JudgeError):
        judge_at(server, backoff_s=0.06, attempts=4).judge([episode()])
    moments = [asked.at_s for asked in server.asked]
    for k, (before, after) in enumerate(zip(moments, moments[1:], strict=False)):
        longest_s = 0.06 * 2**k
        assert longest_s / 2 <= after - before < longest_s + 3


def test_a_server_that_is_down_is_told_with_what_was_tried(
    judge_at: Callable[..., VisionLanguageJudge],
    serve: Callable[..., VlmServer],
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    judge = VisionLanguageJudge.from_uri(
        f"vlm:http://127.0.0.1:{port}/v1?model=m&votes=1&attempts=3&backoff_s=0.01&cache={tmp_path}"
    )
    with pytest.raises(JudgeError) as caught:
        judge.judge([episode()])
    judge.close()
    said = str(caught.value)
    assert f"127.0.0.1:{port}" in said and "asked 3 times" in said
    assert re.search(r"3 x ConnectError: .*refused", said) and "see whether the server runs" in said


def test_different_troubles_are_all_told(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    server = serve([slow, error("503 Service Unavailable", "loading"), hang_up])
    with pytest.raises(JudgeError) as caught:
        judge_at(server, attempts=4, timeout_s=0.7, **QUICK).judge([episode()])
    said = str(caught.value)
    assert "1 x no answer within 0.7 s; 1 x HTTP 503 (loading); 2 x RemoteProtocolError" in said


def test_answers_given_before_a_failure_are_kept_and_not_asked_again(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
    tmp_path: Path,
) -> None:
    broken = threading.Event()
    broken.set()

    def fails_on_the_third(asked: object) -> bytes:
        seen = len(server.asked)
        return error("403 Forbidden", "no") if broken.is_set() and seen > 5 else vote("yes")

    server = serve(fails_on_the_third)
    episodes = [episode(f"p/{i}", colour=20 * i) for i in range(4)]
    options = {"votes": 2, "concurrency": 2, "image": "png"}
    with pytest.raises(JudgeError, match=f"kept in {tmp_path}.*goes on from there"):
        judge_at(server, **options).judge(episodes)
    assert len(list((tmp_path / "answers").rglob("*.json"))) == 5
    broken.clear()
    before = len(server.asked)
    verdicts = judge_at(server, **options).judge(episodes)
    assert len(server.asked) - before == 8 - 5
    assert [verdict.reason[:9] for verdict in verdicts] == ["2 success"] * 4


def test_after_a_failure_nothing_new_is_asked(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    server = serve([error("403 Forbidden", "no")])
    with pytest.raises(JudgeError):
        judge_at(server, votes=50, concurrency=2).judge([episode()])
    # the refused one, and the other one that was under way
    assert len(server.asked) <= 2


def test_a_failing_judge_does_not_wait_for_pauses_of_others(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    def one_busy_one_refused(asked: object) -> bytes:
        if getattr(asked, "body")["seed"] == 0:  # noqa: B009
            return error("500 Internal Server Error", "oops")
        time.sleep(0.1)
        return error("403 Forbidden", "no")

    judge = judge_at(serve(one_busy_one_refused), votes=2, concurrency=2, backoff_s=50)
    began = time.monotonic()
    with pytest.raises(JudgeError, match="HTTP 403"):
        judge.judge([episode()])
    assert time.monotonic() - began < 5


def test_an_answer_without_end_is_refused(
    serve: Callable[..., VlmServer],
    judge_at: Callable[..., VisionLanguageJudge],
) -> None:
    server = serve([completion("x" * (9 * 2**20))])
    with pytest.raises(JudgeError, match="more than 8 MiB"):
        judge_at(server, timeout_s=20).judge([episode()])


def test_a_pace_ends_at_once_when_stopped() -> None:
    pace, stop = Pace(per_minute=1), threading.Event()
    pace.wait(stop)
    stop.set()
    began = time.monotonic()
    pace.wait(stop)
    assert time.monotonic() - began < 1
