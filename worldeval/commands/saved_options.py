"""Options of a verb as a run.json kept them.

Enters: a verb and a command line with ``--config RUN_JSON``, or the folder of a run. Leaves: the
verb with the options of then, to be changed by those of now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldeval.errors import ConfigError
from worldeval.settings import settings_from


def with_config(kind: Any, words: list[str]) -> tuple[Any, list[str]]:
    """What ``--config`` names as a ``kind``, or None; and the words without it."""
    names = (
        {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else ()
    )
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option != "--config" or "config" not in names or {"-h", "--help"} & {*words}:
            continue
        if not equals:
            if i + 1 == len(words):
                raise ConfigError(
                    "--config is given without a value, expected the path of a run.json"
                )
            value = words[i + 1]
        rest = words[:i] + words[i + (1 if equals else 2) :]
        return saved(kind, Path(value)), rest
    return None, words


def saved(kind: Any, path: Path) -> Any:
    """The options in a run.json (or in the one of a folder), as a ``kind``. ConfigError if it keeps
    those of another verb."""
    from worldeval.data.provenance import MANIFEST, read_manifest

    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != MANIFEST:
        raise ConfigError(f"config is {str(path)!r}, expected a {MANIFEST} or the folder of a run")
    extra = read_manifest(folder).get("extra", {})
    options, verb = extra.get("options"), extra.get("verb")
    if verb not in (None, kind.__name__.lower()) or not isinstance(options, Mapping):
        raise ConfigError(
            f"{folder / MANIFEST} keeps no options of `worldeval {kind.__name__.lower()}`"
            f"{f' (but of {verb})' if verb else ''}; give the run.json of one"
        )
    return settings_from(kind, options, "config: ")
