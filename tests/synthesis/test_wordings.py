"""Other words by a model behind an endpoint: asked once, kept, and never trusted to be words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.judging.vlm.server import Asked, Reply, VlmServer, completion
from worldeval.errors import ConfigError, DataError, JudgeError
from worldeval.rollout.suite import Suite
from worldeval.synthesis.wordings import read_wordings, words_by
from worldeval.worlds.toy import toy_starts

SUITE = Suite(name="toy", robot="toy", chunks=2, starts=toy_starts(count=2))
RED = SUITE.starts[0].instruction


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VlmServer]]:
    monkeypatch.setenv("NO_PROXY", "*")
    servers: list[VlmServer] = []

    def start(replies: Sequence[Reply] | Callable[[Asked], Reply]) -> VlmServer:
        servers.append(VlmServer(replies).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def test_a_model_is_asked_once_per_instruction_and_its_answer_kept(
    serve: Callable[..., VlmServer], tmp_path: Path
) -> None:
    server = serve([completion(json.dumps(["go to it", "head there", RED]))])
    uri, kept = f"{server.url}?model=m", tmp_path / "wordings.json"
    words = words_by(uri, SUITE, kept)
    found = {words(RED, [RED], np.random.default_rng(seed)) for seed in range(20)}
    assert found == {"go to it", "head there"}  # never the instruction itself
    assert len(server.asked) == 2  # two tasks
    again = words_by(uri, SUITE, kept)
    assert again(RED, [RED], np.random.default_rng(3)) == words(
        RED, [RED], np.random.default_rng(3)
    )
    assert len(server.asked) == 2
    assert RED in json.loads(kept.read_text())["words"]


def test_kept_words_of_another_model_are_not_taken(
    serve: Callable[..., VlmServer], tmp_path: Path
) -> None:
    server = serve([completion('["other"]')])
    words_by(f"{server.url}?model=m", SUITE, tmp_path / "kept.json")
    with pytest.raises(DataError, match="holds wordings of .*model=m, now they are to come from"):
        words_by(f"{server.url}?model=n", SUITE, tmp_path / "kept.json")


@pytest.mark.parametrize("text", ["I cannot do that.", "[]", "[1, 2]", '["' + "x" * 300 + '"]', ""])
def test_an_answer_without_words_is_a_sentence_and_nothing_is_kept(
    text: str, serve: Callable[..., VlmServer], tmp_path: Path
) -> None:
    server = serve([completion(text)])
    with pytest.raises(JudgeError, match="found no other words for .*or use templates"):
        words_by(f"{server.url}?model=m", SUITE, tmp_path / "kept.json")
    assert not (tmp_path / "kept.json").exists()


def test_templates_ask_nobody(tmp_path: Path) -> None:
    words = words_by("templates", SUITE, tmp_path / "kept.json")
    assert words(RED, [RED], np.random.default_rng(0)) != RED
    assert not (tmp_path / "kept.json").exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gpt-5", "expected templates or http://HOST:PORT/v1"),
        ("http://h/v1", "which names no model"),
        ("http://h/v1?model=m&colour=red", "unknown setting 'colour'"),
        ("http://h/v1?model=m&timeout_s=soon", "timeout_s is 'soon', expected a finite number"),
    ],
)
def test_a_uri_that_is_none(uri: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        words_by(uri, SUITE, tmp_path / "kept.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Sure! ["a b", "c"]', ["a b", "c"]),
        ('```json\n["a",\n "a", "b"]\n```', ["a", "b"]),
        ("1. open it\n2) pull it\n- slide it", ["open it", "pull it", "slide it"]),
        ('["unfinished', []),
        ("only one line", []),
    ],
)
def test_what_is_read_of_an_answer(text: str, words: list[str]) -> None:
    assert read_wordings(text) == words
