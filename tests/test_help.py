"""The help of every verb explains every option, and its examples can be typed as they stand."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from tyro import _docstrings

from worldeval import cli

ROOT = Path(__file__).parents[1]


def command(verb: str) -> type:
    module, name = cli.VERBS[verb][0].split(":")
    found = getattr(import_module(f"worldeval.commands.{module}"), name)
    assert isinstance(found, type)
    return found


def unexplained(kind: type) -> Iterator[str]:
    """Options of a verb without a text of their own, those of nested settings included."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        nested = [k for k in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(k)]
        for part in nested:
            assert isinstance(part, type)
            yield from (f"{field.name}.{name}" for name in unexplained(part))
        if not nested and not _docstrings.get_field_docstring(kind, field.name, ()):
            yield field.name


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_is_explained(verb: str) -> None:
    assert not list(unexplained(command(verb)))


@dataclasses.dataclass
class Inner:
    bare: int = 0


@dataclasses.dataclass
class Outer:
    told: int = 0
    """It has a text."""
    silent: int = 0
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_an_option_without_a_text_is_found() -> None:
    assert list(unexplained(Outer)) == ["silent", "inner.bare"]


def examples() -> Iterator[list[str]]:
    """Each command line that a help shows, as its words, without "worldeval"."""
    shown = [cli.EXAMPLES]
    for verb in cli.VERBS:
        text = command(verb).__doc__ or ""
        assert "For example:" in text, f"the help of {verb} has no example"
        shown.append(text.split("For example:", 1)[1])
    for text in shown:
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            said = line.strip()
            if not said.startswith("worldeval ") or said.startswith("worldeval VERB"):
                continue
            # Two spaces part a command from what is said of it.
            for part in re.split(r"\s{2,}", said)[0].split(" && "):
                yield shlex.split(part)[1:]


@pytest.mark.parametrize("words", list(examples()), ids=" ".join)
def test_every_example_can_be_typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verb = " ".join(words[:2]) if " ".join(words[:2]) in cli.VERBS else words[0]
    ran = []
    monkeypatch.setattr(command(verb), "run", lambda self: ran.append(self))
    assert cli.main(words) == 0
    assert ran
    named = [word.split("=")[-1] for word in words]
    missing = [n for n in named if n.startswith("checkpoints/") and not (ROOT / n).exists()]
    assert not missing
