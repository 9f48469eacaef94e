"""How far a run is, seen from outside: rollouts, rate, time left, errors, cost.

Enters: a run's folder. Leaves: a ``Status``. Nothing is written and nobody is disturbed: the
rollouts that lie in the stores are counted, and the beats of those at work are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from worldeval.data.provenance import MANIFEST, read_manifest
from worldeval.evaluation.execution import timing
from worldeval.evaluation.execution.heartbeat import Beat, beats
from worldeval.evaluation.execution.parts import opened_stores, read_plan
from worldeval.evaluation.ranked import OTHER_SEED
from worldeval.rollout.progress import duration
from worldeval.rollout.recording import rollout_key
from worldeval.terminal import printable, shortened
from worldeval.types import Outcome


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A rollout that ended in an error."""

    key: str
    error: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """done, total: rollouts; total is None for runs of earlier versions. cost: so far."""

    folder: Path
    done: int
    total: int | None
    beats: tuple[Beat, ...]
    errors: tuple[Failed, ...]
    cost: float | None
    paid: int
    """Rollouts that the cost is of."""

    @property
    def at_work(self) -> tuple[Beat, ...]:
        return tuple(beat for beat in self.beats if beat.at_work)

    @property
    def per_hour(self) -> float:
        """Rollouts an hour, of all that are at work."""
        return sum(
            3600 * beat.made / (beat.now - beat.began)
            for beat in self.at_work
            if beat.now > beat.began
        )

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the rate of now; None where nobody is at work yet."""
        if self.total is None or not self.per_hour:
            return None
        return (self.total - self.done) / self.per_hour * 3600

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        state = "at work" if self.at_work else self._resting()
        lines = [f"{self.folder}: {self.done}{of} rollouts, {state}"]
        if self.per_hour:
            soon = "" if self.left_s is None else f", {duration(self.left_s)} left"
            lines[0] += f", {self.per_hour:.3g} rollouts/h{soon}"
        for beat in self.at_work:
            many = f", {beat.workers} workers" if beat.workers > 1 else ""
            lines.append(
                f"  {beat.name} on {beat.host}{many}: {beat.done} of {beat.total}, now "
                f"{printable(beat.doing)}"
            )
        if self.errors:
            lines.append(f"  {len(self.errors)} ended in an error (none counts as a failure):")
            counted = Counter(shortened(one.error, 160) for one in self.errors)
            lines += [f"    {count} x {printable(text)}" for text, count in counted.most_common(5)]
        if self.cost is not None and self.paid:
            lines.append(f"  cost: {self.cost:.4g}, {self.cost / self.paid:.3g} per rollout")
        return "\n".join(lines)

    def _resting(self) -> str:
        if self.total is not None and self.done >= self.total:
            return "all made"
        return f"nobody at work (`worldeval resume {self.folder}` goes on)"


def status(folder: Path, price_per_hour: float | None = None) -> Status:
    """How far the run in ``folder`` is. price_per_hour: of each machine; as the run was told if
    None. ConfigError where there is no run."""
    manifest = read_manifest(folder)
    plan = read_plan(manifest, folder)
    facts: dict[str, Failed | None] = {}
    for store in opened_stores(folder):
        for row in map(store.facts, range(len(store))):
            key = str(row["key"])
            if row.get("outcome") != Outcome.ERROR.value:
                facts[key] = None
            elif key not in facts:
                said = str(row.get("error") or ""), str(row.get("traceback") or "")
                facts[key] = Failed(key=key, error=said[0], traceback=said[1])
    total = None
    done = len(facts)
    if plan is not None:
        keys = {rollout_key(p, s) for part in plan for p in part.policies for s in part.starts}
        total, done = len(keys), len(keys & facts.keys())
    found = beats(folder)
    spent = timing.read(manifest, folder)
    cost, paid = _cost(spent, found, price_per_hour)
    one = Status(
        folder=folder,
        done=done,
        total=total,
        beats=tuple(found),
        errors=tuple(error for error in facts.values() if error is not None),
        cost=cost,
        paid=paid,
    )
    again = folder / OTHER_SEED
    return _both(one, status(again, price_per_hour)) if (again / MANIFEST).is_file() else one


def _cost(
    spent: list[timing.Spent], found: list[Beat], price: float | None
) -> tuple[float | None, int]:
    """What was paid for which number of rollouts, those under way and those of a killed run too."""
    cost, paid, known = 0.0, 0, False
    times = [(s.price_per_hour, s.wall_s, s.rollouts) for s in spent]
    kept = {s.id for s in spent}
    times += [
        (b.price_per_hour, b.now - b.began, b.made)
        for b in found
        if not b.ended and b.id not in kept
    ]
    for own, seconds, rollouts in times:
        each = own if price is None else price
        if each is not None:
            known = True
            cost += each * seconds / 3600
            paid += rollouts
    return (cost, paid) if known else (None, 0)


def _both(one: Status, again: Status) -> Status:
    total = None if one.total is None or again.total is None else one.total + again.total
    costs = [cost for cost in (one.cost, again.cost) if cost is not None]
    return Status(
        folder=one.folder,
        done=one.done + again.done,
        total=total,
        beats=(*one.beats, *again.beats),
        errors=(*one.errors, *again.errors),
        cost=sum(costs) if costs else None,
        paid=one.paid + again.paid,
    )
