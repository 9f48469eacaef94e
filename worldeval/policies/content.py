"""What decides how a policy acts, digested: a changed policy is never taken for the old one.

Enters: a policy's URI. Leaves: part -> twelve digits (``data/digests.py``), for example::

    python:trained.py:Mine?weights=w.npz    trained.py, network.py (imported from beside it),
                                            weights=w.npz
    bc:runs/mine, runs/mine                 the checkpoint
    replay:recordings/training              the store's episodes
    faulty:runs/mine?gain=0.5               what the policy behind the fault is made of
    openpi://host:8000?keys=robot.toml      keys=robot.toml

Which code counts is said in ``source_code.py``. A server's weights cannot be seen from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldeval.data import digests
from worldeval.policies.arguments import split_arguments
from worldeval.policies.loading import ALONE, WITH_PLACE, entry_of
from worldeval.policies.source_code import SourceCode, existing


def policy_content(uri: str, *, but: Path | None = None) -> dict[str, str]:
    """Part -> digest of all that lies on the disk and decides how the policy acts.

    but: the folder that rollouts are written to, which is no part of anything. Raises ConfigError
    for a file that cannot be read.
    """
    head, arguments = split_arguments(uri)
    scheme, _, rest = head.partition(":")
    here = Path.cwd()
    if scheme == "python":
        code = _code_of(rest.rpartition(":")[0])
        parts, beside = code.parts(but), code.folder
    elif scheme == "faulty":  # what is wrong stands in the URI, whose policy it is does not
        parts, beside = policy_content(rest, but=but), here
    else:
        parts, beside = {}, here
        place = existing(rest if scheme in _BUILT_IN else head, [here])
        checkpoint = place is not None and (place / "config.json").is_file()
        if not checkpoint and scheme not in _BUILT_IN and (entry := entry_of(scheme)) is not None:
            code = _code_of(entry.value.partition(":")[0].strip())
            parts = {f"scheme {scheme}": entry.value} | code.parts(but)
            place = existing(rest, [here])
        if place is not None:
            parts["what it names"] = digests.of_path(place, but=but)
    for name, argument in arguments.items():
        if name == "name":  # what the policy is called, no file
            continue
        for text in _texts(argument.value):
            found = existing(text, [here, beside])
            if found is not None:
                parts[f"{name}={text}"] = digests.of_path(found, but=but)
    return parts


def code_content(where: str) -> dict[str, str]:
    """Part -> digest of the code of ``path/to/file.py`` or of ``package.module``."""
    return _code_of(where).parts(None)


_BUILT_IN = frozenset({*ALONE, *WITH_PLACE})


def _code_of(where: str) -> SourceCode:
    """The code of ``path/to/file.py`` or of ``package.module``."""
    if where.endswith(".py"):
        file = Path(where).expanduser().resolve()
        code = SourceCode(file.parent)
        code.follow(file)
        return code
    code = SourceCode(Path.cwd())
    code.module(where)
    return code


def _texts(value: Any) -> Iterator[str]:
    """All texts in the value of an argument; those within JSON lists and objects too."""
    if isinstance(value, str):
        yield value
        # weights=a.npz,b.npz and config=weights:a.npz
        pieces = re.split("[,;:]", value.removeprefix("file://"))
        yield from pieces[1:] and filter(None, pieces)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
