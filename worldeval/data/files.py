"""Files as users give them, looked at before they are opened.

To open a named pipe waits for ever, a device never ends, and a folder has no content. What is no
regular file, is too large to be what it is taken for, is not text or is not JSON ends here in one
sentence. Enters: a path. Leaves: the same path, or what the file says.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from worldeval.errors import DataError, WorldEvalError

MOST_BYTES = 64 * 2**20
"""No text that worldeval reads whole is larger; parsed, JSON takes some ten times its size."""

_KINDS = {
    stat.S_IFIFO: ("a named pipe", "write its content into a file and give that"),
    stat.S_IFSOCK: ("a socket", "give a file"),
    stat.S_IFCHR: ("a device", "give a file"),
    stat.S_IFBLK: ("a device", "give a file"),
    stat.S_IFDIR: ("a folder", "give a file in it"),
}


def regular_file(
    path: str | Path, what: str = "file", *, error: type[WorldEvalError] = DataError
) -> Path:
    """``path``, if a regular file stands there (or a link to one) that may be read.

    what: the file's part in the sentence ("film", "verdict table"). Raises ``error`` for a name
    that is none, for what is missing, forbidden, a folder, a pipe, a socket or a device.
    """
    given = os.fspath(path)
    try:
        mode = os.stat(given).st_mode
    except FileNotFoundError:
        raise error(f"there is no {what} at {given}; check the spelling of the path") from None
    except (OSError, ValueError) as refusal:  # ValueError: a NUL in the name
        reason = getattr(refusal, "strerror", None) or refusal
        raise error(
            f"the {what} at {given!r} cannot be opened ({reason}); check the path"
        ) from None
    if not stat.S_ISREG(mode):
        kind, remedy = _KINDS.get(stat.S_IFMT(mode), ("no file", "give a file"))
        raise error(f"{given} is {kind}, expected a regular file as {what}; {remedy}")
    if not os.access(given, os.R_OK):
        raise error(f"the {what} {given} may not be read by you; change its permissions")
    return Path(path)


def read_text(
    path: str | Path,
    what: str = "file",
    *,
    most: int = MOST_BYTES,
    encoding: str = "utf-8",
    error: type[WorldEvalError] = DataError,
) -> str:
    """The whole text of a regular file of at most ``most`` bytes; else ``error``."""
    found = regular_file(path, what, error=error)
    try:
        with found.open("rb") as file:
            content = file.read(most + 1)
    except OSError as refusal:
        raise error(
            f"the {what} {found} cannot be read ({refusal.strerror or refusal}); check the disk"
        ) from refusal
    if len(content) > most:
        raise error(
            f"the {what} {found} has {found.stat().st_size:,} bytes, expected at most {most:,}; "
            "it is not what it is taken for"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as refusal:
        raise error(
            f"the {what} {found} is no text in {encoding} (byte {refusal.start}); save it as UTF-8"
        ) from refusal


def read_json(
    path: str | Path,
    what: str = "file",
    *,
    most: int = MOST_BYTES,
    strict: bool = False,
    error: type[WorldEvalError] = DataError,
) -> Any:
    """What a JSON file says; ``error`` for what is no JSON, or nested deeper than can be read.

    strict: as ``parsed_json`` takes it.
    """
    text = read_text(path, what, most=most, error=error)
    try:
        return parsed_json(text, strict=strict)
    except ValueError as refusal:
        raise error(
            f"the {what} {path} cannot be read as JSON ({refusal}); write it again, or restore it "
            "from a copy"
        ) from refusal


def load_json(path: str | Path) -> Any:
    """Like ``read_json``, for rooms with sentences of their own: raises OSError and ValueError."""
    os.stat(path)  # what is missing stays a FileNotFoundError
    try:
        return read_json(path)
    except DataError as refusal:
        raise ValueError(str(refusal)) from refusal


def parsed_json(text: str, *, strict: bool = False) -> Any:
    """``json.loads``, but ValueError also where brackets nest deeper than Python can follow, and
    where one name is given two values, of which Python would keep the last.

    strict: and where a number is none (NaN, Infinity).
    """
    try:
        if not strict:
            return json.loads(text, object_pairs_hook=_once)
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("its brackets nest too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
