"""What really lies in a store's folders, whatever its index says.

Enters: the root of a store. Leaves: names of its files, those that no episode names, and refusals
where a part of it is a link. Nothing that is named nowhere is ever deleted or overwritten: it may
be the only copy of a recording whose index was lost.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from worldeval.data.atomic import TEMPORARY
from worldeval.data.store.layout import FILES_PER_CHUNK
from worldeval.errors import StoreError

log = logging.getLogger(__name__)

SET_ASIDE = "set-aside"
"""Folder in a store for what killed writers left; nobody reads or empties it."""

_OWN = ("meta", "data", "videos", ".compaction", ".writer.lock", SET_ASIDE)
_DATA = re.compile(r"(?:data/|videos/[^/]+/)chunk-(\d{3,})/file-(\d{3,})\.(?:parquet|mp4)")


def refuse_links(root: Path) -> None:
    """Raise StoreError if a part of the store is a symbolic link: nothing is written through it.

    Reading through links is fine, as in the cache of a model hub.
    """
    _refuse_links(root, _walk(root))


def recordings(root: Path) -> list[str]:
    """Every file below data/ and videos/, half-written ones left out, as the index would name it.

    Raises StoreError if a part of the store is a link.
    """
    entries = _walk(root)
    _refuse_links(root, entries)
    return _recordings(entries)


def recordings_read(root: Path) -> list[str]:
    """The same for readers, to whom links to files are files."""
    return _recordings(_walk(root))


def slot_of(name: str) -> int | None:
    """The number of a data file or video; None for a file that is neither."""
    match = _DATA.fullmatch(name)
    return int(match[1]) * FILES_PER_CHUNK + int(match[2]) if match else None


def left_by_a_killed_writer(unnamed: Collection[str], next_slot: int) -> bool:
    """Whether ``unnamed`` can be the one episode that a writer was about when it died.

    More than one unnamed episode is a lost index: a writer begins none before the last is named.
    """
    return all(slot_of(name) == next_slot for name in unnamed)


def set_aside(root: Path, names: Sequence[str]) -> Path:
    """Move files to a folder of their own, away from readers and writers; which one is reported."""
    number = 0
    while (root / SET_ASIDE / f"{number:03d}").exists():
        number += 1
    folder = root / SET_ASIDE / f"{number:03d}"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(root / name, folder / name)
    log.warning(
        "%s: a writer was killed before it could name %s; kept in %s",
        root,
        ", ".join(names),
        folder,
    )
    return folder


def remove_halves(root: Path) -> None:
    """Delete what a killed writer had not written to its end: files under way, by their suffix."""
    for entry in _walk(root):
        if entry.name.endswith(TEMPORARY) and not entry.folder:
            (root / entry.name).unlink()


class _Entry(NamedTuple):
    name: str
    """Relative to the store, with slashes."""
    link: bool
    folder: bool


def _walk(root: Path) -> list[_Entry]:
    """All that lies in the parts of a store; links are named and not followed."""
    found = [
        _Entry(name, (root / name).is_symlink(), (root / name).is_dir())
        for name in _OWN
        if os.path.lexists(root / name)
    ]
    for entry in found:  # grows meanwhile
        if entry.folder and not entry.link:
            with os.scandir(root / entry.name) as inside:
                found += [
                    _Entry(f"{entry.name}/{one.name}", one.is_symlink(), one.is_dir())
                    for one in inside
                ]
    return found


def _refuse_links(root: Path, entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if entry.link:
            path = root / entry.name
            raise StoreError(
                f"{path} is a link to {os.readlink(path)}: nothing is written or deleted through "
                f"links; make a copy without them (`cp -rL {root} COPY`) and use that"
            )


def _recordings(entries: Sequence[_Entry]) -> list[str]:
    names = [e.name for e in entries if e.name.startswith(("data/", "videos/")) and not e.folder]
    return sorted(name for name in names if not name.endswith(TEMPORARY))
