"""Finds evaluations below a folder and reads what the index keeps of their rollouts.

Enters: a run root. Leaves: the evaluations in it (folders with stores of rollouts, directly or in
``rollouts/``), each store's stamp, and one plain dict per rollout. Links that lead out of the root
are not followed. What cannot be read becomes a sentence of its store, never an end of the search.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from worldeval import EpisodeStore, Evaluation, WorldEvalError

from .fence import Fence

if TYPE_CHECKING:
    import pandas as pd

DEEP = 4
"""Folders below a run root that are looked into."""
_INFO = Path("meta") / "info.json"
_SKIPPED = {"data", "videos", "meta", "verdicts", "node_modules", "earlier"}
_CALLED = ("verdicts.parquet", "trust.parquet", "truth.parquet")
_TRUTHS = ("truth.parquet", "given-truth.parquet")


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """An evaluation's folder."""

    folder: Path
    name: str
    stores: tuple[Path, ...]
    begun: float
    changed: float
    expected: int


@dataclass(frozen=True, kw_only=True)
class FoundStore:
    """What one store of rollouts holds now."""

    path: Path
    stamp: str
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    trust: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    truth: Mapping[tuple[str, str], str] = field(default_factory=dict)
    note: str = ""
    """What could not be read, in a sentence."""

    @classmethod
    def read(cls, path: Path, run: FoundRun, fence: Fence) -> Self:
        stamp, notes = stamp_of(path), []
        try:
            fence.inside(path)
            store = EpisodeStore.open(path)
            rollouts = store.metadata().to_dict("records") if len(store) else []
            folder = Evaluation(path)
        except (WorldEvalError, OSError, ValueError, KeyError, TypeError) as error:
            return cls(path=path, stamp=stamp, note=_said(error))
        parts: dict[str, Mapping[str, dict[str, Any]]] = {"verdicts": {}, "trust": {}}
        for name, file in (("verdicts", "verdicts.parquet"), ("trust", "trust.parquet")):
            if (path / file).is_file():
                try:
                    parts[name] = _by_key(getattr(folder, name))
                except (WorldEvalError, OSError, ValueError, KeyError, TypeError) as error:
                    notes.append(_said(error))
        truth: Mapping[tuple[str, str], str] = {}
        try:
            for name in _TRUTHS:
                fence.inside(run.folder / name)
            truth = _truth(Evaluation(run.folder))
        except (WorldEvalError, OSError, ValueError, KeyError, TypeError) as error:
            notes.append(_said(error))
        return cls(
            path=path,
            stamp=stamp,
            rollouts=[{str(k): v for k, v in row.items()} for row in rollouts],
            verdicts=parts["verdicts"],
            trust=parts["trust"],
            truth=truth,
            note=" ".join(notes),
        )


def find_runs(root: Path) -> Iterator[FoundRun]:
    """The evaluations in ``root`` and below it; nothing that a link leads out to."""
    root = root.resolve()
    grouped: dict[Path, list[Path]] = {}
    for store in folders(root):
        if not (store / _INFO).is_file() or not _is_rollouts(store):
            continue
        run = store if store == root else store.parent
        if run.name == "rollouts" and run != root:
            run = run.parent
        elif not (run / "run.json").is_file() or (store / "run.json").is_file():
            run = store  # a store by itself, among others that have nothing to do with it
        grouped.setdefault(run, []).append(store)
    for run, stores in sorted(grouped.items()):
        times = [_time(store / "meta") for store in stores] or [0.0]
        yield FoundRun(
            folder=run,
            name=str(run.relative_to(root)) if run != root else root.name,
            stores=tuple(sorted(stores)),
            begun=_time(run / "run.json") or min(times),
            changed=max(_time(next(_index_files(store), store)) for store in stores),
            expected=_expected(run),
        )


def _expected(folder: Path) -> int:
    """Rollouts of a finished evaluation, as its run.json says; 0 if it does not."""
    try:
        manifest = json.loads((folder / "run.json").read_text("utf-8"))
        starts, policies = manifest["extra"]["starts"], manifest["config"]["policy_names"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    known = type(starts) is int and 0 < starts < 10**9 and isinstance(policies, dict)
    return starts * len(policies) if known else 0


def folders(folder: Path, deep: int = DEEP) -> Iterator[Path]:
    """``folder`` and what lies below it, as deep as is looked; of a store only the store itself. No
    link is followed, and nothing that cannot be read."""
    yield folder
    if (folder / _INFO).is_file() or deep == 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            inside = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if inside:
            yield from folders(Path(entry.path), deep - 1)


def _is_rollouts(folder: Path) -> bool:
    """Whether a store is of rollouts: recordings to learn from are not evaluations."""
    try:
        with open(folder / _INFO, encoding="utf-8") as file:
            info = json.load(file)
        kind = info["worldeval"].get("extra", {}).get("kind")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True  # unreadable: it is shown with what is wrong with it
    return bool(kind == "rollouts")


def stamp_of(store: Path) -> str:
    """Changes with what the index reads of a store."""
    files = [*_index_files(store), *(store / name for name in _CALLED)]
    for above in (store.parent, store.parent.parent):
        files += [above / name for name in _TRUTHS]
    parts = []
    for file in files:
        try:
            stat = file.stat()
            parts.append(f"{file.name}:{stat.st_mtime_ns}:{stat.st_size}")
        except OSError:
            continue
    return " ".join(parts)


def _index_files(store: Path) -> Iterator[Path]:
    """The newest first."""
    yield from sorted((store / "meta" / "episodes").glob("*/*.parquet"), reverse=True)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _by_key(table: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    if table is None:
        return {}
    return {
        str(row["key"]): {str(k): v for k, v in row.items()} for row in table.to_dict("records")
    }


def _truth(evaluation: Evaluation) -> dict[tuple[str, str], str]:
    """(policy, start_id) -> what truly happened, where the folder knows."""
    table = evaluation.truth
    if table is None or not {"policy", "start_id", "outcome"} <= set(table.columns):
        return {}
    columns = (table[name] for name in ("policy", "start_id", "outcome"))
    return {(str(p), str(s)): str(getattr(o, "value", o)) for p, s, o in zip(*columns, strict=True)}


def rows_of(store: FoundStore) -> Iterator[dict[str, Any]]:
    """One row of the index per rollout; what is unknown is None."""
    for found in store.rollouts:
        key = str(found["key"])
        policy = _text(found.get("policy")) or key.partition("/")[0]
        start = _text(found.get("start_id"))
        verdict, trust = store.verdicts.get(key, {}), store.trust.get(key, {})
        own = _text(found.get("outcome"))
        # The world's own word where it knows and no judge was asked.
        outcome = _text(verdict.get("outcome")) or (own if own != "undecided" else "unjudged")
        distrust = _number(trust.get("distrust"))
        trusted = trust.get("trusted")
        truth = store.truth.get((policy, start))
        yield {
            "episode": int(found["episode_index"]),
            "key": key,
            "policy": policy,
            "task": _text(found.get("task")),
            "start_id": start,
            "world": _text(found.get("world")),
            "instruction": _text(found.get("instruction")),
            "seed": _whole(found.get("seed")),
            "length": int(found["length"]),
            "outcome": outcome or "unjudged",
            "probability": _number(verdict.get("probability")),
            "judge": _text(verdict.get("judge")),
            "reason": _text(verdict.get("reason")),
            "frames": _text(verdict.get("frames")),
            "trusted": None if trusted is None or trusted != trusted else int(bool(trusted)),
            "trust": None if distrust is None else 1 - distrust,
            "true_outcome": truth,
            "error": _text(found.get("error")),
        }


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)[:4000]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and abs(number) < 2**63 else None


def _said(error: Exception) -> str:
    text = str(error) if isinstance(error, WorldEvalError) else f"{type(error).__name__}: {error}"
    return text[:600]
