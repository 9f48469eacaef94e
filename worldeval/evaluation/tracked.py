"""An evaluation as trackio or Weights & Biases shows it (``worldeval.tracking``), while it goes on.

Enters: the folder of a run. Leaves: a row of each rollout, with its films, soon after it is made,
whoever made it; then success rates, verdicts, and the ranking with its intervals. Rollouts are read
from the disk by a thread of its own, so a slow tracker holds nobody up, and a run that goes on
shows what an earlier process did not come to.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.data.provenance import read_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import WorldEvalError
from worldeval.evaluation.execution.options import ExecutionOptions, Shard
from worldeval.evaluation.execution.parts import part_stores, read_plan, stores_of_run
from worldeval.evaluation.policy_options import tell
from worldeval.evaluation.ranked import OTHER_SEED
from worldeval.ranking.outcome_counts import OutcomeCounts
from worldeval.tracking import FINISH_S, Rows, Tracker, require
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.evaluation.evaluation import Evaluation
    from worldeval.ranking.leaderboard.leaderboard import Leaderboard

EVERY_S = 5.0
BESIDE = "# "
"""How the names begin of what was shown and is no rollout."""
STATISTICS = ("pearson", "spearman", "kendall", "mmrv", "top1_regret")
_RATE = ("rate", "low", "high")
_COUNTS = ("rollouts", "successes", "failures", "undecided", "errors")


@contextmanager
def tracked(folder: Path, execution: ExecutionOptions) -> Iterator[Tracked]:
    """Show the rollouts of the run in ``folder`` while in this block, and the last at its end."""
    run = Tracked(folder, execution)
    run.start()
    try:
        yield run
    finally:
        run.end()


class Tracked:
    """A run and the trackers that show it; there may be none."""

    def __init__(self, folder: Path, execution: ExecutionOptions) -> None:
        self.folder, self._shard = folder, execution.part()
        named = require(execution.trackers)
        self._trackers: list[Tracker] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if not named:
            return
        manifest = read_manifest(folder)
        plan = read_plan(manifest, folder) or ()
        self._planned = sum(len(part.policies) * len(part.starts) for part in plan)
        settings = {name: manifest.get(name) for name in ("command", "seed", "config")}
        name = "" if self._shard is None else self._shard.name
        self._trackers = [Tracker(one, folder, settings, name) for one in named]

    def start(self) -> None:
        if self._trackers:
            self._thread.start()

    def end(self) -> None:
        """Show the last rollouts, and have the trackers take everything, within a minute."""
        if self._at_rest():
            for tracker in self._trackers:
                tracker.finish()

    def show_rates(self) -> None:
        """Success rates by policy, from what the world itself says."""
        if self._at_rest():
            facts = [one for root in self._roots() for _, _, one in _rollouts(root, "")]
            outcomes = [(str(f.get("policy")), str(f.get("outcome"))) for f in facts]
            self._show({"success rates": rates_of(outcomes)})

    def show_verdicts(self, run: Evaluation) -> None:
        """The judge's verdicts, and the ranking made of them."""
        if not self._at_rest():
            return
        self._show({"verdicts": _rows_of(run.verdicts), **ranking_of(run.leaderboard())})

    def _at_rest(self) -> bool:
        """Whether there are trackers, and the thread has shown all rollouts that there are."""
        if not self._trackers:
            return False
        self._stop.set()
        return self._in_time(self._send_last)

    def _send_last(self) -> None:
        self._thread.join()
        self._send()

    def _show(self, row: Mapping[str, Any]) -> None:
        def show() -> None:
            for tracker in self._trackers:
                _log_beside(tracker, row)

        self._in_time(show)

    def _in_time(self, do: Callable[[], None]) -> bool:
        """Whether it was done in ``FINISH_S``; trackers that are not done are left alone."""
        thread = threading.Thread(target=do, name="tracking", daemon=True)
        thread.start()
        thread.join(FINISH_S)
        if not thread.is_alive():
            return True
        names = " and ".join(str(one.named) for one in self._trackers if one.works)
        tell(f"{names} took nothing for {FINISH_S} s, and is left alone; all is in the folder")
        self._trackers = []
        return False

    def _work(self) -> None:
        pause = EVERY_S
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._send()
            pause = max(EVERY_S, 20 * (time.monotonic() - began))

    def _send(self) -> None:
        """Show every rollout that a tracker has not got yet."""
        with suppress(WorldEvalError, OSError):  # somebody writes; they are read the next time
            for root in self._roots():
                self._send_of(root, "")
            again = self.folder / OTHER_SEED
            for root in self._roots(again) if again.is_dir() else ():
                self._send_of(root, f"{OTHER_SEED}/")

    def _send_of(self, root: Path, prefix: str) -> None:
        working = [tracker for tracker in self._trackers if tracker.works]
        others = [sum(name.startswith(BESIDE) for name in one.sent) for one in working]
        for key, films, facts in _rollouts(root, prefix, [one.sent for one in working]):
            row = _row(prefix, films, facts)
            for tracker, beside in zip(working, others, strict=True):
                if key not in tracker.sent:
                    step = len(tracker.sent) + 1
                    made = step - beside
                    of = min(1.0, made / self._planned) if self._planned else None
                    tracker.log(step, {**row, "rollouts": made, "progress": of}, name=key)

    def _roots(self, folder: Path | None = None) -> list[Path]:
        """The stores whose rollouts are shown: of a shard, those that it makes itself."""
        folder = folder or self.folder
        if self._shard is None:
            return stores_of_run(folder)
        return [root for root in part_stores(folder) if _is_of(root, self._shard)]


def _is_of(root: Path, shard: Shard) -> bool:
    return root.name == shard.name or root.name.startswith(f"{shard.name}-")


def _rollouts(
    root: Path, prefix: str, sent: Sequence[Collection[str]] = ((),)
) -> Iterator[tuple[str, dict[str, Path], dict[str, Any]]]:
    """Name, films and facts of the rollouts of a store that one of ``sent`` lacks."""
    store = EpisodeStore.open(root)
    keys = {prefix + key for key in store.keys}
    if all(keys <= set(known) for known in sent):
        return
    for number in range(len(store)):
        facts = store.facts(number)
        key = prefix + facts["key"]
        if all(key in known for known in sent):
            continue
        films = store.own_films(number) or ()
        yield key, dict(zip(store.layout.views, films, strict=False)), facts


def _row(prefix: str, films: Mapping[str, Path], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a rollout. seconds: of all parts of the work, its share of a batch's."""
    outcome = Outcome(facts["outcome"])
    seconds = 0.0
    with suppress(ValueError, TypeError, AttributeError):
        chunks = json.loads(facts.get("chunks") or "[]")
        seconds = sum(sum(chunk.get("seconds", {}).values()) for chunk in chunks)
    return {
        f"{prefix}rollout/policy": str(facts.get("policy")),
        f"{prefix}rollout/task": facts["task"],
        f"{prefix}rollout/start": facts.get("start_id"),
        f"{prefix}rollout/outcome": outcome.value,
        f"{prefix}rollout/success": int(outcome is Outcome.SUCCESS) if outcome.decided else None,
        f"{prefix}rollout/steps": facts.get("steps"),
        f"{prefix}rollout/seconds": seconds,
        f"{prefix}rollout/error": facts.get("error") or None,
        **{f"{prefix}film/{view}": film for view, film in films.items()},
    }


def rates_of(outcomes: Iterable[tuple[str, str]]) -> Rows:
    """Counts and the success rate, with Wilson's interval, of each policy in (policy, outcome)."""
    by_policy: dict[str, list[Outcome]] = {}
    for policy, outcome in outcomes:
        by_policy.setdefault(policy, []).append(Outcome(outcome))
    cells = [[name, *_counted(OutcomeCounts.of(some))] for name, some in by_policy.items()]
    return Rows(columns=("policy", *_RATE, *_COUNTS), cells=cells)


def ranking_of(board: Leaderboard) -> dict[str, Any]:
    """A leaderboard as a table and numbers; agreement where the truth is known."""
    sides = ("true", "corrected", "joined")
    known = [
        side for side in sides if any(getattr(row, side) is not None for row in board.policies)
    ]
    columns = ["rank", "policy", "letters", *_RATE, *_COUNTS]
    columns += [f"{side}{end}" for side in known for end in ("", "_low", "_high")]
    cells: list[list[Any]] = []
    numbers: dict[str, float | None] = {}
    for row in board.policies:
        bounds = [bound for side in known for bound in _bounds(getattr(row, side))]
        cells.append([row.rank, row.name, row.letters, *_counted(row.imagined), *bounds])
        numbers[f"success_rate/{row.name}"] = row.imagined.rate
    for name in STATISTICS:
        numbers[f"agreement/{name}"] = getattr(board.agreement, name)
        if (interval := board.agreement.intervals.get(name)) is not None:
            numbers[f"agreement/{name}_low"] = interval.low
            numbers[f"agreement/{name}_high"] = interval.high
    return {"ranking": Rows(columns=columns, cells=cells), **numbers}


def _counted(counts: OutcomeCounts) -> list[Any]:
    return [*_bounds(counts), *(getattr(counts, name) for name in _COUNTS)]


def _bounds(known: Any) -> list[float | None]:
    """Rate and interval of counts or of an estimate; None where nothing is known."""
    rate = None if known is None else getattr(known, "estimate", getattr(known, "rate", None))
    if rate is None:
        return [None, None, None]
    interval = getattr(known, "interval", known)
    return [rate, interval.low, interval.high]


def _rows_of(table: pd.DataFrame) -> Rows:
    known = ("policy", "task", "start_id", "judge", "outcome", "probability", "reason")
    columns = [name for name in known if name in table.columns]
    plain = table[columns].astype(object)
    return Rows(columns=columns, cells=plain.where(plain.notna(), None).to_numpy().tolist())


def show_ranking(
    board: Leaderboard, folder: Path, trackers: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Show a ranking alone. folder: where it is written, which names the trackers' run."""
    for named in require(trackers):
        tracker = Tracker(named, folder, settings)
        _log_beside(tracker, ranking_of(board))
        tracker.finish()


def _log_beside(tracker: Tracker, row: Mapping[str, Any]) -> None:
    """Show what is no rollout, at a step of its own: wandb takes none twice."""
    step = len(tracker.sent) + 1
    tracker.log(step, row, name=f"{BESIDE}{step}")
