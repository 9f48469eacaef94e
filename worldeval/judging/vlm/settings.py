"""Everything that can be set of a vision-language judge, and the one URI that sets it.

Enters: ``vlm:http://HOST:PORT/v1?model=NAME&votes=5&...``. Leaves: ``VisionLanguageSettings``. The
names after ``?`` are the fields of the dataclasses here and of ``Endpoint`` and ``PictureConfig``,
and ``rubric``; a value may be percent-encoded, and ``none`` leaves a thing out.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from worldeval.errors import ConfigError
from worldeval.judging.vlm.endpoint import Endpoint
from worldeval.judging.vlm.pictures import PictureConfig
from worldeval.judging.vlm.prompt import Rubric
from worldeval.types import Outcome

SCHEME = "vlm:"
ASKING = ("seeds", "n")
RESERVED = ("messages", "model", "n", "stream")
"""What ``extra`` may not set: the judge does, or could not read the answer."""


@dataclass(frozen=True, kw_only=True)
class PollConfig:
    """Whom to ask, and for how many votes.

    model: the name under which the server knows it. votes: answers for one rollout. temperature:
    above 0, so that votes differ. seed: of the first vote, the next has seed + 1. ask: ``seeds``
    sends one request a vote, which every server understands; ``n`` asks for all votes in one
    request, which pays for the pictures once, and goes on asking where a server gives fewer.
    max_tokens: of one answer; a model that thinks aloud needs thousands. ``None`` sends no
    temperature, seed or max_tokens. extra: further fields of the request, as they are
    (``{"max_completion_tokens": 4000}``, ``{"reasoning_effort": "low"}``).
    """

    model: str
    votes: int = 5
    temperature: float | None = 0.7
    seed: int | None = 0
    max_tokens: int | None = 1024
    ask: str = "seeds"
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigError(f"model is {self.model!r}, expected a name that the server knows")
        for name, low, high in (
            ("votes", 1, 100), ("seed", 0, 2**31 - 1), ("max_tokens", 1, 1_000_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name != "votes":
                continue
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}, expected a whole number {low} to {high}")
        if self.temperature is not None:
            number = (
                isinstance(self.temperature, int | float) and type(self.temperature) is not bool
            )
            if not number or not 0 <= self.temperature <= 2:
                raise ConfigError(f"temperature is {self.temperature!r}, expected 0 to 2 or none")
            if self.temperature == 0 and self.votes > 1:
                raise ConfigError(
                    f"temperature is 0 with {self.votes} votes, which would all be the same one; "
                    "set votes=1, or a temperature such as 0.7"
                )
        if self.ask not in ASKING:
            raise ConfigError(f"ask is {self.ask!r}, expected one of {', '.join(ASKING)}")
        if not isinstance(self.extra, Mapping) or set(self.extra) & set(RESERVED):
            raise ConfigError(
                f"extra is {self.extra!r}, expected a JSON object without {', '.join(RESERVED)}"
            )

    def body(self, content: list[dict[str, Any]], *, vote: int, count: int) -> bytes:
        """The request for ``count`` answers from the vote number ``vote`` on, as canonical JSON."""
        given: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
        }
        if self.temperature is not None:
            given["temperature"] = self.temperature
        if self.seed is not None:
            given["seed"] = self.seed + vote
        if self.max_tokens is not None:
            given["max_tokens"] = self.max_tokens
        if count > 1:
            given["n"] = count
        return json.dumps(given | dict(self.extra), sort_keys=True, separators=(",", ":")).encode()


def default_cache() -> Path:
    """Where answers are kept unless another folder is named: they cost money or hours."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldeval" / "vlm"


@dataclass(frozen=True, kw_only=True)
class VisionLanguageSettings:
    """A vision-language judge in full.

    price_in, price_out: dollars for a million tokens that are asked and answered; both or none.
    cache: the folder that keeps the answers; None keeps none. name: what verdicts are signed with;
    None makes it of the model and a digest of all that bears on a verdict, so that tables and
    calibrations of other settings are never taken for these; one who names it vouches for that.
    yes, no: words of another language that are read as these, with commas between (yes=ja,oui).
    """

    endpoint: Endpoint
    poll: PollConfig
    pictures: PictureConfig = PictureConfig()
    rubric: Rubric = Rubric()
    price_in: float | None = None
    price_out: float | None = None
    cache: Path | None = field(default_factory=default_cache)
    name: str | None = None
    yes: str | None = None
    no: str | None = None

    @property
    def extra_words(self) -> dict[str, Outcome]:
        """The words of ``yes`` and ``no``, in lower case."""
        sides = ((self.yes, Outcome.SUCCESS), (self.no, Outcome.FAILURE))
        return {
            word.strip().lower(): outcome
            for words, outcome in sides
            for word in (words or "").split(",")
            if word.strip()
        }

    def __post_init__(self) -> None:
        prices = (self.price_in, self.price_out)
        for name, value in zip(("price_in", "price_out"), prices, strict=True):
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}, expected dollars for a million tokens")
        if (self.price_in is None) != (self.price_out is None):
            raise ConfigError(
                f"price_in is {self.price_in!r} and price_out is {self.price_out!r}; give both "
                "(0 for what is free) or none"
            )
        for name in ("yes", "no"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value.strip(" ,")):
                raise ConfigError(f"{name} is {value!r}, expected words with commas between")
        both = {w.strip().lower() for w in (self.yes or "").split(",")} & set(
            w.strip().lower() for w in (self.no or "").split(",")
        ) - {""}
        if both:
            raise ConfigError(f"{sorted(both)} are in yes and in no; a word means one of them")
        if self.cache is not None and self.cache.exists() and not self.cache.is_dir():
            raise ConfigError(f"cache is {str(self.cache)!r}, which is a file; name a folder")


def settings_from_uri(uri: str) -> VisionLanguageSettings:
    """The settings that ``uri`` gives. Raises ConfigError; no message repeats the whole URI."""
    url, _, query = uri.removeprefix(SCHEME).partition("?")
    if not uri.startswith(SCHEME) or not url:
        raise ConfigError(
            "a vision-language judge is named as vlm:http://HOST:PORT/v1?model=NAME, expected "
            f"{SCHEME} and an address"
        )
    parts = {"endpoint": Endpoint, "poll": PollConfig, "pictures": PictureConfig}
    of_part = {
        option.name: (part, option)
        for part, cls in parts.items()
        for option in dataclasses.fields(cls)
        if option.name != "url"
    }
    own = {
        option.name: option
        for option in dataclasses.fields(VisionLanguageSettings)
        if option.name not in parts
    }
    given: dict[str, dict[str, Any]] = {part: {} for part in (*parts, "own")}
    for pair in filter(None, query.split("&")):
        name, equals, text = pair.partition("=")
        if not name.isidentifier():  # not quoted: who knows what was pasted there
            raise ConfigError(
                "the judge's URI has something after the ? that is no name=value, with & between"
            )
        part, option = of_part.get(name) or ("own", own.get(name))
        if option is None:
            raise _unknown(name, [*of_part, *own])
        if not equals or not text:
            raise ConfigError(f"the judge's {name!r} has no value; write {name}=VALUE")
        if name in given[part]:
            raise ConfigError(f"the judge's {name!r} is given twice; give it once")
        given[part][name] = _value(name, unquote(text), str(option.type))
    if "model" not in given["poll"]:
        raise ConfigError("the judge names no model; add model=NAME after the ?, as in ?model=NAME")
    return VisionLanguageSettings(
        endpoint=Endpoint(url=url, **given["endpoint"]),
        poll=PollConfig(**given["poll"]),
        pictures=PictureConfig(**given["pictures"]),
        **given["own"],
    )


def _value(name: str, text: str, kind: str) -> Any:
    """The value of a field whose annotation reads ``kind``; its dataclass checks it."""
    if text == "none" and "None" in kind:
        return None
    if "Rubric" in kind:
        return Rubric.load(text)
    if "Path" in kind:
        return Path(text).expanduser()
    if "str" in kind and "Mapping" not in kind:
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"the judge's {name!r} is {text!r}, expected {_expected(kind)}") from None


def _expected(kind: str) -> str:
    word = "a JSON object" if "Mapping" in kind else "a number"
    return f"{word} or none" if "None" in kind else word


def _unknown(name: str, known: list[str]) -> ConfigError:
    if "key" in name.lower() or name.lower() == "token":
        return ConfigError(
            f"the judge takes no {name!r}: API keys are never part of a URI; put the key into an "
            "environment variable and write key_env=ITS_NAME"
        )
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ConfigError(f"the judge takes no {name!r}{hint}; it takes {', '.join(sorted(known))}")
