"""LeRobot exports of datasets, made in the background, one after another.

Enters: a dataset and the version of the format. Leaves: a folder beside the dataset, below the run
root; how far it is. A folder that is there is never changed.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldeval import WorldEvalError, export_lerobot

from .datasets import Dataset

VERSIONS = ("3.0", "2.1")


@dataclass
class Export:
    """How far one is. told: what came of it, a sentence; failed: whether that is why not."""

    name: str
    busy: bool = True
    done: int = 0
    of: int = 0
    told: str = ""
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Exports:
    """Those of one server."""

    _of: dict[str, Export] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _workers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="export")
    )

    def get(self, dataset: Dataset) -> Export | None:
        """The last one of a dataset since the server began."""
        return self._of.get(dataset.id)

    def begin(self, dataset: Dataset, version: str, *, only_successful: bool) -> Export:
        """Start one. WorldEvalError where its folder is taken, or there is nothing to export."""
        if version not in VERSIONS:
            raise WorldEvalError(f"the version is one of {', '.join(VERSIONS)}")
        if not (dataset.store / "meta" / "info.json").is_file():
            raise WorldEvalError("nothing was kept here, so there is no dataset to export")
        place = self.place(dataset, version)
        with self._lock:
            running = self._of.get(dataset.id)
            if running is not None and running.busy:
                raise WorldEvalError("an export of this dataset is being written already")
            if place.exists() or place.is_symlink():
                raise WorldEvalError(
                    f"{_named(place, dataset)} is there already; an export never changes one: "
                    "delete or rename it first, or choose another version"
                )
            made = self._of[dataset.id] = Export(name=_named(place, dataset))
        self._workers.submit(self._make, dataset, place, version, only_successful, made)
        return made

    def place(self, dataset: Dataset, version: str) -> Path:
        """Within the folder of a synthesis, beside a recorded store. WorldEvalError where beside it
        is outside of the run root."""
        name = f"lerobot-{version}"
        if dataset.synthesis:
            return dataset.folder / name
        if dataset.folder == dataset.root:
            raise WorldEvalError(
                "this store is the folder that the inspector was given, and nothing is written "
                "outside of it; start the inspector with the folder above, or run "
                "`worldeval export lerobot`"
            )
        return dataset.folder.with_name(f"{dataset.folder.name}-{name}")

    def _make(
        self, dataset: Dataset, place: Path, version: str, only_successful: bool, made: Export
    ) -> None:
        def tell(done: int, of: int) -> None:
            made.done, made.of = done, of

        try:
            found = export_lerobot(
                dataset.store,
                place,
                version=version,
                only_successful=only_successful,
                progress=tell,
            )
            notes = "".join(f" {note[0].upper()}{note[1:]}." for note in found.notes)
            made.told = f"{made.name}: {found.episodes} episodes, {found.rows} rows.{notes}"
        except WorldEvalError as error:
            made.told, made.failed = str(error), True
        except Exception as error:  # told in the page; the server goes on
            made.told, made.failed = f"{type(error).__name__}: {error}", True
        made.busy = False


def _named(place: Path, dataset: Dataset) -> str:
    """Below the run root, with the root's own name."""
    return str(Path(dataset.root.name) / place.relative_to(dataset.root))
