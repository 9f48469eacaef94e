"""Datasets below the run roots: what was synthesised, and stores of recorded episodes.

Enters: the roots. Leaves: ``Dataset``s by identifier and, made in the background and kept until the
files change, what a page shows of one (``Looked``): its episodes, which were kept and why the
others were not, and which are odd.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval import EpisodeStore, Synthesis, WorldEvalError, odd_episodes

from .found import folders
from .records import identifier

if TYPE_CHECKING:
    import pandas as pd

    from .context import Context

FUNNEL, DATASET, IMAGINED = "funnel.json", "dataset", "imagined"
_INFO = Path("meta") / "info.json"
LOOK_S = 3.0
"""The disk is looked at again after so many seconds."""
MOST_KEPT = 16


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A folder that ``worldeval synthesize`` wrote, or a store of recorded episodes."""

    id: str
    name: str
    """Its folder, below the run root."""
    folder: Path
    synthesis: bool
    root: Path

    @property
    def store(self) -> Path:
        """What is learned from, and exported; not there if nothing was kept."""
        return self.folder / DATASET if self.synthesis else self.folder

    @property
    def changed(self) -> float:
        """Seconds since the epoch; 0 for what is gone."""
        places = (self.folder / FUNNEL, self.store / "meta", self.folder / "selection.parquet")
        return max((_time(place) for place in places), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One episode of the list. number: in the store that is shown; None where its film is gone.
    kept: None for what nobody selected. joined: the task as which a rejected one joined the dataset
    in hindsight; empty if it did not."""

    number: int | None
    key: str
    task: str
    instruction: str
    outcome: str
    kept: bool | None
    stage: str
    """The stage of the funnel that it did not reach."""
    why: str
    flags: str
    joined: str = ""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a page shows. store: of the films, None if there are none below the roots. counts: the
    funnel, task by stage. notes: sentences, among them what is not known."""

    store: Path | None
    rows: tuple[Row, ...]
    counts: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()


class Datasets:
    """The datasets below a context's roots. Safe to use from several threads."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Dataset]] = (-LOOK_S, {})
        self._made: dict[tuple[str, float], Future[Looked]] = {}
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="datasets")

    def all(self) -> list[Dataset]:
        """The newest first."""
        with self._lock:
            when, found = self._found
            if time.monotonic() - when > LOOK_S:
                listed = [one for root in self.context.roots for one in find_datasets(root)]
                found = {one.id: one for one in listed}
                self._found = time.monotonic(), found
        return sorted(found.values(), key=lambda one: (-one.changed, one.name))

    def get(self, id: str) -> Dataset:
        """Raises WorldEvalError if there is none of that identifier."""
        found = next((one for one in self.all() if one.id == id), None)
        if found is None:
            raise WorldEvalError("there is no such dataset here; choose one in the list")
        return found

    def looked(self, dataset: Dataset) -> Looked | None:
        """What there is to show; None while it is being read."""
        name = dataset.id, dataset.changed
        with self._lock:
            future = self._made.get(name)
            if future is None:
                while len(self._made) >= MOST_KEPT:
                    self._made.pop(next(iter(self._made)))
                future = self._made[name] = self._workers.submit(self._look, dataset)
        return future.result() if future.done() else None

    def shown_store(self, id: str) -> EpisodeStore:
        """The store whose films are shown for a dataset. WorldEvalError if there is none."""
        dataset = self.get(id)
        looked = self.looked(dataset)
        if looked is None:
            place = _place(self.context, dataset, _synthesis(dataset)[0])
        else:
            place = looked.store
        if place is None:
            raise WorldEvalError("the films of this dataset do not lie here")
        return self.context.store_at(place)

    def _look(self, dataset: Dataset) -> Looked:
        try:
            return look(self.context, dataset)
        except WorldEvalError as error:
            return Looked(store=None, rows=(), notes=(str(error),))
        except Exception as error:  # a spoilt table shall not end the page
            return Looked(store=None, rows=(), notes=(f"{type(error).__name__}: {error}",))


def find_datasets(root: Path) -> list[Dataset]:
    """Folders with a funnel, and stores of episodes that are no rollouts; what a synthesis wrote
    into its folder belongs to it."""
    root, found = root.resolve(), dict[Path, bool]()
    for folder in folders(root):
        if (folder / FUNNEL).is_file():
            found[folder] = True
        elif _is_dataset(folder) and not found.get(folder.parent):
            found[folder] = False
    return [
        Dataset(
            id=identifier("data", folder),
            name=str(folder.relative_to(root)) if folder != root else root.name,
            folder=folder,
            synthesis=synthesis,
            root=root,
        )
        for folder, synthesis in found.items()
    ]


def look(context: Context, dataset: Dataset) -> Looked:
    """Read what a page shows of a dataset."""
    made, note = _synthesis(dataset)
    place = _place(context, dataset, made)
    store = None if place is None else EpisodeStore.open(place)
    flags = _flags(store)
    if made is None:
        counts = _counts(dataset.folder) if dataset.synthesis else None
        return Looked(store=place, rows=_recorded(store, flags), counts=counts, notes=note)
    funnel = made.funnel
    keys = [] if store is None else [str(key) for key in store.metadata()["key"]]
    numbers = {key: number for number, key in enumerate(keys)}
    joined = _relabelled(context.inside(dataset.store))
    rows = []
    for row in funnel.rollouts.to_dict("records"):
        key = str(row["key"])
        stage, why = funnel.lost_at(key), funnel.why_lost(key)
        rows.append(
            Row(
                number=numbers.get(key),
                key=key,
                task=str(row["task"]),
                instruction=str(row.get("instruction") or ""),
                outcome=_word(row.get("outcome")),
                kept=not stage,
                stage=stage,
                why=why,
                flags=flags.get(key, ""),
                joined=joined.get(key, ""),
            )
        )
    notes = list(funnel.notes)
    if store is None:
        notes.append("The imagined rollouts do not lie in a folder that this inspector looks at.")
    return Looked(
        store=place,
        rows=tuple(rows),
        counts=funnel.counts(),
        notes=tuple(notes),
        stages=tuple(dict.fromkeys(stage.name for stage in funnel.stages)),
    )


def _synthesis(dataset: Dataset) -> tuple[Synthesis | None, tuple[str, ...]]:
    """What was selected, read once; None for a recording, or with a sentence where it cannot be
    read."""
    try:
        return (Synthesis.open(dataset.folder) if dataset.synthesis else None), ()
    except WorldEvalError as error:
        return None, (str(error),)


def _place(context: Context, dataset: Dataset, made: Synthesis | None) -> Path | None:
    """Where the films are: of a synthesis all that was imagined, else what was kept."""
    if not dataset.synthesis:
        return context.inside(dataset.folder)
    try:
        if made is None:
            raise FileNotFoundError
        context.inside(made.pool)  # before anything of it is read
        (imagined,) = made.imagined.stores
        return context.inside(imagined)
    except (WorldEvalError, OSError, ValueError):
        pass
    kept = dataset.store
    return context.inside(kept) if (kept / _INFO).is_file() else None


def _flags(store: EpisodeStore | None) -> dict[str, str]:
    if store is None or not len(store):
        return {}
    found = odd_episodes(store)
    return dict(zip(found["key"], found["flags"], strict=True))


def _recorded(store: EpisodeStore | None, flags: dict[str, str]) -> tuple[Row, ...]:
    rows = []
    for number in range(0 if store is None else len(store)):
        assert store is not None
        facts = store.facts(number)
        solved = {"True": "success", "False": "failure"}.get(str(facts.get("success")), "")
        rows.append(
            Row(
                number=number,
                key=str(facts["key"]),
                task=str(facts.get("task") or ""),
                instruction=str(facts.get("instruction") or ""),
                outcome=solved,
                kept=None,
                stage="",
                why="",
                flags=flags.get(str(facts["key"]), ""),
            )
        )
    return tuple(rows)


def _counts(folder: Path) -> pd.DataFrame | None:
    """The funnel's numbers alone, which earlier versions wrote too."""
    import pandas as pd

    try:
        tasks = json.loads((folder / FUNNEL).read_text("utf-8"))["tasks"]
        return pd.DataFrame.from_dict(tasks, orient="index").astype(int)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _relabelled(place: Path) -> dict[str, str]:
    """Key of an imagined rollout -> the task as which it joined the dataset."""
    if not (place / _INFO).is_file():
        return {}
    table = EpisodeStore.open(place).metadata()
    if "relabelled_from" not in table.columns:
        return {}
    rows = table[table["relabelled_from"].fillna("") != ""]
    pairs = zip(rows["key"].map(str), rows["task"].map(str), strict=True)
    return {key.removesuffix(f"+{task}"): task for key, task in pairs}


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is a store of worldeval's that holds no rollouts (those are browsed)."""
    try:
        own: Any = json.loads((folder / _INFO).read_text("utf-8"))["worldeval"]
        ours = str(own["format"]).startswith("worldeval-store")
        return ours and own.get("extra", {}).get("kind") != "rollouts"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _word(value: Any) -> str:
    return "" if value is None or value != value else str(getattr(value, "value", value))


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
