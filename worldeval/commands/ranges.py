"""What no option of any verb may be, whatever it is for.

Enters: the words of a command line, then the verb made of them. Raises ConfigError before anything
is opened: for empty or undecodable text, numbers that are none or absurd, and paths of pipes and
devices. What an option means, and which of its values fit together, its own room checks.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from worldeval.data.files import regular_file
from worldeval.errors import ConfigError
from worldeval.terminal import shortened

_LARGEST = 2**31 - 1
_LARGEST_SEED = 2**53  # run.json keeps it exactly
_FROM_ONE = {
    "batch", "batches", "chunks", "data_mb", "demonstrations", "draws", "episodes",
    "episodes_per_task", "frames_per_chunk", "hidden", "image_size", "latent_channels", "limit",
    "max_episodes", "max_views", "min_frames", "per_task", "repeats", "replay_steps", "round",
    "sampler_steps", "steps", "steps_per_frame", "threads", "token_width", "video_mb", "widths",
    "workers", "heads", "blocks", "channels",
}  # fmt: skip
_BELOW_ZERO = {"label_gain"}
_MOST = {
    "threads": 1024,
    "workers": 1024,
    "batch": 65_536,
    "chunks": 10_000,
    "hidden": 65_536,
    "draws": 10_000_000,
    "widths": 65_536,
    "channels": 65_536,
    "token_width": 65_536,
    "latent_channels": 65_536,
    "image_size": 16_384,
    "blocks": 1_000,
    "heads": 1_000,
    "seed": _LARGEST_SEED,
}
_SEVERAL_ELSEWHERE = {"policy", "judge", "store", "data"}
"""Options that some verbs take several of: to others the first would be lost in silence."""


def check_words(words: Sequence[str]) -> None:
    """Raise ConfigError for a word that is empty or not text."""
    for before, word in zip(["", *words], words, strict=False):
        option = word.partition("=")[0] if word.startswith("--") else before
        name = option if option.startswith("--") else "an argument"
        if not word or (word.startswith("--") and word.endswith("=")):
            raise ConfigError(f"{name} is empty, expected a value; leave it out, or give one")
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ConfigError(
                f"{name} is {word!r}, which is no text in UTF-8; rename the file, or set LC_ALL "
                "to a locale such as C.UTF-8"
            )


def check_values(verb: Any) -> None:
    """Raise ConfigError for a value of an option that cannot be right for any verb."""
    for name, value, default in _options(verb):
        if value == default:
            continue
        for one in _plain(value):
            if isinstance(one, bool):
                continue
            if isinstance(one, float):
                if not math.isfinite(one):
                    raise ConfigError(f"{name} is {one}, expected a finite number")
                if one < 0 and name not in _BELOW_ZERO:
                    raise ConfigError(f"{name} is {one:g}, expected 0 or more")
                if abs(one) > 1e30:
                    raise ConfigError(f"{name} is {one:g}, expected a number of a sensible size")
            elif isinstance(one, int):
                _check_count(name, one)
            elif isinstance(one, str | Path):
                _check_path(name, one)


def check_once(verb: Any, words: Sequence[str], said: str) -> None:
    """Raise ConfigError for two values of an option of which this verb, called ``said``, takes one
    and others take several."""
    for name, value, _ in _options(verb):
        if name not in _SEVERAL_ELSEWHERE or isinstance(value, tuple | list):
            continue
        option = f"--{name}"
        given = [after for word, after in itertools.pairwise(words) if word == option]
        given += [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
        if len(found := list(dict.fromkeys(given))) > 1:
            raise ConfigError(
                f"{option} was given {shortened(found[0], 80)!r} and {shortened(found[1], 80)!r}, "
                f"but `{said}` takes one; run it once for each"
            )


def _check_count(name: str, value: int) -> None:
    low = 1 if name in _FROM_ONE else 0
    high = _MOST.get(name, _LARGEST)
    if not low <= value <= high:
        shown = value if abs(value) < 10**20 else f"a number of {len(str(abs(value)))} digits"
        raise ConfigError(f"{name} is {shown}, expected {low} to {high}")


def _check_path(name: str, value: str | Path) -> None:
    """Folders, files and what does not exist pass; to open anything else would wait for ever."""
    try:
        mode = os.stat(value).st_mode
    except OSError as error:
        if isinstance(value, Path) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError(
                f"{name} is {shortened(str(value), 80)!r}, which cannot be a path "
                f"({error.strerror}); choose another"
            ) from None
        mode = 0
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        regular_file(value, name, error=ConfigError)


def _options(verb: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and default of every option, those of its parts too."""
    for field in dataclasses.fields(verb):
        value = getattr(verb, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _options(value)
        else:
            yield field.name, value, field.default


def _plain(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _plain(item)
    else:
        yield value
