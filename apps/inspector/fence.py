"""The fence around the run roots: nothing is read through a link that leads out of them.

Enters: a path below a root. Leaves: its real place, or a sentence. Folders are looked through when
they change; of one that did not, only its time is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from worldeval import WorldEvalError


class Fence:
    """roots: folders that may be shown; a link from one into another is followed."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._clean: dict[str, tuple[int, tuple[str, ...]]] = {}
        """Folder -> its time when no link led out, and the folders in it."""

    def inside(self, path: Path) -> Path:
        """The real place of ``path``. WorldEvalError if it, or what is in it, is not below a
        root."""
        real = path.resolve()
        if not self._encloses(real):
            raise WorldEvalError("this lies outside the folders that the inspector was given")
        for link in self._leading_out(str(real)):
            name = os.path.relpath(link, real)
            raise WorldEvalError(
                f"{real.name} holds {name!r:.100}, a link that leads outside the folders that the "
                "inspector was given; put the file in its place, or give the folder that it leads "
                "to as well"
            )
        return real

    def _encloses(self, real: Path) -> bool:
        return any(real.is_relative_to(root) for root in self.roots)

    def _leading_out(self, folder: str) -> Iterator[str]:
        """Links in a folder and below it that lead out."""
        pending, seen = [folder], set()
        while pending:
            place = pending.pop()
            if place in seen:
                continue
            seen.add(place)
            try:
                time = os.stat(place).st_mtime_ns
                known = self._clean.get(place)
                if known is None or known[0] != time:
                    inner, links = self._look(place)
                    yield from links
                    known = self._clean[place] = time, inner
                pending += known[1]
            except (FileNotFoundError, NotADirectoryError):
                continue  # a file, or gone meanwhile

    def _look(self, place: str) -> tuple[tuple[str, ...], list[str]]:
        folders, out = [], []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_symlink():
                    real = Path(os.path.realpath(entry.path))
                    if not self._encloses(real):
                        out.append(entry.path)
                    elif real.is_dir():
                        folders.append(str(real))
                elif entry.is_dir():
                    folders.append(entry.path)
        return tuple(folders), out
