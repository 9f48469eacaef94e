"""The URI of a vision-language judge: every setting, every mistake, and no key in it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from worldeval.errors import ConfigError
from worldeval.judging.vlm.judge import VisionLanguageJudge

KEY = "sk-secret/0123456789+abc"


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.json"
    rubric.write_text(json.dumps({"default": "yes: all is well"}))
    judge = VisionLanguageJudge.from_uri(
        "vlm:https://host:8000/v1/?model=org%2Fname:8b&votes=7&frames=12&layout=grid&image=png"
        f"&quality=80&view_px=0&temperature=none&seed=none&max_tokens=none&ask=n&rubric={rubric}"
        "&requests_per_minute=60&concurrency=2&timeout_s=9.5&attempts=3&backoff_s=0.5&price_in=0.4"
        "&price_out=1.6&cache=none&name=mine&extra=%7B%22reasoning_effort%22%3A%22low%22%7D"
    )
    settings = judge.settings
    judge.close()
    assert judge.name == "mine" and settings.cache is None
    assert settings.endpoint.completions == "https://host:8000/v1/chat/completions"
    assert settings.endpoint.requests_per_minute == 60 and settings.endpoint.timeout_s == 9.5
    assert (settings.poll.model, settings.poll.votes, settings.poll.ask) == ("org/name:8b", 7, "n")
    assert settings.poll.temperature is settings.poll.seed is settings.poll.max_tokens is None
    assert settings.poll.extra == {"reasoning_effort": "low"}
    assert settings.pictures.frames == 12 and settings.pictures.layout == "grid"
    assert settings.rubric.of("any") == "yes: all is well"
    assert (settings.price_in, settings.price_out) == (0.4, 1.6)
    body = json.loads(settings.poll.body([], vote=0, count=1))
    assert set(body) == {"model", "messages", "reasoning_effort"}


def test_the_name_tells_the_model_and_the_settings_apart_not_the_address() -> None:
    names = []
    for uri in (
        "http://a/v1?model=m",
        "http://b/v1?model=m&attempts=2",
        "http://a/v1?model=m&votes=3",
    ):
        judge = VisionLanguageJudge.from_uri(f"vlm:{uri}")
        judge.close()
        names.append(judge.name)
    assert re.fullmatch(r"vlm-m@[0-9a-f]{8}", names[0])
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("vlm:http://h/v1", "names no model; add model=NAME"),
        ("vlm:http://h/v1?model=", "'model' has no value"),
        ("vlm:http://h/v1?model=m&vote=3", "no 'vote' .did you mean 'votes'"),
        ("vlm:http://h/v1?model=m&bananas=3", "no 'bananas'; it takes ask, attempts"),
        ("vlm:http://h/v1?model=m&url=x", "no 'url'"),
        ("vlm:http://h/v1?model=m&votes=five", "'votes' is 'five', expected a number"),
        ("vlm:http://h/v1?model=m&votes=0", "votes is 0, expected a whole number 1 to 100"),
        ("vlm:http://h/v1?model=m&votes=2.5", "votes is 2.5"),
        ("vlm:http://h/v1?model=m&votes=true", "votes is True"),
        ("vlm:http://h/v1?model=m&votes=3&votes=3", "'votes' is given twice"),
        ("vlm:http://h/v1?model=m&temperature=3", "temperature is 3, expected 0 to 2"),
        ("vlm:http://h/v1?model=m&temperature=0", "temperature is 0 with 5 votes"),
        ("vlm:http://h/v1?model=m&frames=8&stride=2", "give one of them"),
        ("vlm:http://h/v1?model=m&price_in=3", "give both"),
        ("vlm:http://h/v1?model=m&price_in=-3&price_out=1", "price_in is -3"),
        ("vlm:http://h/v1?model=m&requests_per_minute=0", "requests_per_minute is 0"),
        ("vlm:http://h/v1?model=m&timeout_s=inf", "'timeout_s' is 'inf'"),
        ("vlm:http://h/v1?model=m&timeout_s=Infinity", "timeout_s is inf"),
        ("vlm:http://h/v1?model=m&extra={\"stream\":true}", "extra is .* without messages"),
        ("vlm:http://h/v1?model=m&extra=[]", "extra is"),
        ("vlm:http://h/v1?model=m&ask=nicely", "ask is 'nicely', expected one of seeds, n"),
        ("vlm:http://h/v1?model=m&rubric=/no/where.json", "cannot read the rubric /no/where.json"),
        ("vlm:h:8000/v1?model=m", "address of a judge is 'h:8000/v1', expected http://HOST"),
        ("vlm:?model=m", "expected vlm: and an address"),
        ("vlm:http://h/v1?model=m&votes", "'votes' has no value"),
    ],
)  # fmt: skip
def test_a_wrong_uri_is_refused_with_a_remedy(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        VisionLanguageJudge.from_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        f"vlm:http://h/v1?model=m&api_key={KEY}",
        f"vlm:http://h/v1?model=m&key={KEY}",
        f"vlm:http://h/v1?model=m&key_env={KEY}",
        f"vlm:http://h/v1?model=m&{KEY}",
        f"vlm:http://me:{KEY.replace('/', '')}@h/v1?model=m",
    ],
)
def test_a_key_in_the_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisionLanguageJudge.from_uri(uri)
    assert KEY[:9] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "has another form"),
        ('{"tasks": []}', "has another form"),
        ('{"task": {}}', "unknown key 'task' .did you mean 'tasks'"),
        ('{"drawer-open": "text"}', "texts of tasks go under 'tasks'"),
        ('{"default": 3}', "rubric of 'default' is 3"),
        ('{"tasks": {"a": " "}}', "rubric of 'a' is ' '"),
    ],
)
def test_a_wrong_rubric_is_refused_with_a_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rubric.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        VisionLanguageJudge.from_uri(f"vlm:http://h/v1?model=m&rubric={path}")


def test_settings_are_frozen() -> None:
    judge = VisionLanguageJudge.from_uri("vlm:http://h/v1?model=m")
    judge.close()
    with pytest.raises(dataclasses.FrozenInstanceError):
        judge.settings.poll.votes = 9  # type: ignore[misc]
