"""Rollouts that others made beside a run's store, and how they become one store.

Enters: a run's folder, in which every process or machine that helped has a store of its own (below
``.parts``), or folders of runs elsewhere. Leaves: one store, in the order in which one process
alone would have written it; each rollout once. A rollout is one atomic unit in its part, and the
parts are removed only when all of it lies in the run: a kill at any moment loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from worldeval.data.atomic import WriterLock
from worldeval.data.provenance import naming_the_manifest
from worldeval.data.store.carrying_over import Source
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.layout import INFO_PATH
from worldeval.errors import StoreError
from worldeval.settings import settings_from
from worldeval.types import Outcome

PARTS = ".parts"
_GONE = ".gone-"
_RELEASE_S = 10.0
"""How long the writer of a part may take to end, before the part is left to the next gathering."""


def part_stores(folder: Path) -> list[Path]:
    """The stores of a run's parts."""
    found = sorted(info.parent.parent for info in (folder / PARTS).glob(f"*/{INFO_PATH}"))
    return [root for root in found if not root.name.startswith(_GONE)]


def stores_of_run(folder: Path) -> list[Path]:
    """The store of a run, if it has one yet, and then those of its parts."""
    parts = part_stores(folder)  # first: what is gone by now lies in the run's own
    return [*([folder] if (folder / INFO_PATH).is_file() else ()), *parts]


def opened_stores(folder: Path) -> list[EpisodeStore]:
    """The same, opened, also while the parts are being gathered. StoreError if one is damaged."""
    while True:
        roots = stores_of_run(folder)
        try:
            return [EpisodeStore.open(root) for root in roots]
        except StoreError:
            if all(root.exists() for root in roots):
                raise
            # one was taken in meanwhile


def held_keys(folder: Path) -> set[str]:
    """Keys of all rollouts of a run, those of its parts too."""
    return {key for store in opened_stores(folder) for key in store.keys}


@contextmanager
def at_work(folder: Path, name: str) -> Iterator[None]:
    """Be the only one who makes the part ``name``. StoreError if another is."""
    place = folder / PARTS
    place.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(place / f".{name}.lock")
    try:
        lock.acquire()
    except StoreError as error:
        raise StoreError(
            f"{name} of {folder} is being made by another process; wait for it "
            f"(`worldeval status {folder}`), or stop that one first"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Rollouts that there are to be: every one of the policies from all start states."""

    policies: tuple[str, ...]
    starts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Extra:
    plan: tuple[Planned, ...]


def read_plan(manifest: Mapping[str, Any], folder: Path) -> tuple[Planned, ...] | None:
    """``Stage.plan`` as it stands in the folder's manifest; None in those of earlier versions.
    ConfigError where it is damaged."""
    plan = manifest.get("extra", {}).get("plan")
    if plan is None:
        return None
    with naming_the_manifest(folder):
        return settings_from(_Extra, {"plan": plan}).plan


@dataclass(frozen=True, kw_only=True)
class Order:
    """The place of every rollout in a store that one process alone would write."""

    policies: Sequence[str]
    starts: Sequence[str]

    @classmethod
    def of_plan(cls, plan: Sequence[Planned]) -> Order:
        return cls(
            policies=[name for part in plan for name in part.policies],
            starts=list(dict.fromkeys(start for part in plan for start in part.starts)),
        )

    def ranks(self) -> tuple[dict[str, int], dict[str, int]]:
        return (
            {name: i for i, name in enumerate(self.policies)},
            {name: i for i, name in enumerate(self.starts)},
        )


def take_in(store: EpisodeStore, roots: Sequence[Path], order: Order) -> int:
    """Append the rollouts of other stores that ``store`` lacks; how many they were.

    Of a rollout that several have, one without an error is taken.
    """
    policies, starts = order.ranks()
    found: dict[str, tuple[tuple[bool, int, int, int, int], Source, int]] = {}
    for part, root in enumerate(roots):
        source = Source(root)
        for number in range(len(source.store)):
            facts = source.store.facts(number)
            key = facts["key"]
            if key in store:
                continue
            wrong = facts.get("outcome") == Outcome.ERROR.value
            policy = policies.get(str(facts.get("policy")), len(policies))
            start = starts.get(str(facts.get("start_id")), len(starts))
            one = (wrong, policy, start, part, number), source, number
            if key not in found or one[0][0] < found[key][0][0]:
                found[key] = one
    for _, source, number in sorted(found.values(), key=lambda one: one[0][1:]):
        episode, coded = source.episode(number, store.root)
        store.append(episode, coded)
    return len(found)


def gather(folder: Path, order: Order, others: Sequence[Path] = ()) -> int:
    """Take the parts of a run into its store, and remove them; how many rollouts came.

    others: stores elsewhere that are taken in too, and stay. Raises StoreError while anybody makes
    a part.
    """
    place = folder / PARTS
    if not place.is_dir() and not others:
        return 0
    count = 0
    with ExitStack() as held:
        for lock in sorted(place.glob(".*.lock")):
            held.enter_context(at_work(folder, lock.stem[1:]))
        parts = part_stores(folder)
        roots = [*parts, *others]
        if roots:
            with _store_of(folder, roots[0]) as store:
                count = take_in(store, roots, order)
        for root in parts:
            _remove(root)
        for left in place.glob(f"{_GONE}*"):  # by a gathering that was killed meanwhile, too
            shutil.rmtree(left, ignore_errors=True)
        for lock in place.glob(".*.lock"):
            lock.unlink()
    with suppress(OSError):  # somebody begins another part
        place.rmdir()
    return count


def _remove(root: Path) -> None:
    """Take a part away in one step: what is half removed is no store. One whose writer lives on, on
    a machine that is out of reach, stays until it does not."""
    lock = WriterLock(root / ".writer.lock")
    try:
        lock.acquire(_RELEASE_S)
    except StoreError:
        return
    lock.release()
    root.rename(root.with_name(f"{_GONE}{root.name}-{uuid4().hex[:8]}"))


def _store_of(folder: Path, part: Path) -> EpisodeStore:
    """The run's store; made as that of its part is, if there is none."""
    if (folder / INFO_PATH).is_file():
        return EpisodeStore.open(folder)
    return EpisodeStore.create_like(folder, EpisodeStore.open(part))
