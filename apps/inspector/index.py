"""The index of all rollouts under the run roots, in a database; rebuildable from the files.

Enters: folders in which evaluations lie. Leaves: ``Run``s and ``Rollout``s by identifier, and pages
of them by query (``query.py``). The files are the truth; the index only finds them fast.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from worldeval import WorldEvalError

from .database import Connection, database
from .fence import Fence
from .found import FoundRun, FoundStore, find_runs, rows_of, stamp_of
from .query import Query
from .records import COLUMNS, Rollout, Run, identifier, rollout_of, run_of
from .schema import NAMED, ORDERS, VERSION

FEW = 5000


class Index:
    """What lies under the roots. Safe to use from several threads and processes."""

    def __init__(self, roots: Sequence[Path], place: Path | str) -> None:
        """place: as for ``database``."""
        self.fence = Fence(roots)
        self.roots = self.fence.roots
        self.database = database(place, self.roots)
        self._open = self.database.open
        self._refreshing = threading.Lock()
        self._changes = 0
        self.ready = False
        """Whether the files have been looked at since this was opened."""
        self._seen: dict[str, deque[tuple[float, int]]] = {}  # time and rollouts of running ones
        if self.database.version() != VERSION:
            self.forget()

    def forget(self) -> None:
        """Empty the index; the next ``refresh`` reads all files again."""
        self.database.forget()

    def refresh(self) -> int:
        """Take in what has changed on the disk; the number of stores that were read again."""
        with self._refreshing:
            found = [run for root in self.roots for run in find_runs(root)]
            if self.database.version() != VERSION:  # the database was lost meanwhile
                self.forget()
            with self._open() as db:
                known = dict(db.execute("SELECT path, stamp FROM stores"))
            gone = self._drop({str(store) for run in found for store in run.stores})
            read = 0
            for run in found:
                changed = [
                    store for store in run.stores if known.get(str(store)) != stamp_of(store)
                ]
                if changed or identifier(run.folder) in gone:
                    self._take_in(
                        run, [FoundStore.read(store, run, self.fence) for store in changed]
                    )
                    read += len(changed)
            if read or gone:
                self._changes += 1
                with self._open() as db:
                    db.execute("ANALYZE")
                for known_run in self.runs():
                    seen = self._seen.setdefault(known_run.id, deque(maxlen=30))
                    if not seen or seen[-1][1] != known_run.rollouts:
                        seen.append((time.time(), known_run.rollouts))
            self.ready = True
            return read

    def _take_in(self, run: FoundRun, stores: Iterable[FoundStore]) -> None:
        run_id = identifier(run.folder)
        marks = ", ".join("?" * len(COLUMNS))
        with self._open() as db:
            for store in stores:
                path = str(store.path)
                db.execute("DELETE FROM rollouts WHERE store = ?", (path,))
                rows = list(rows_of(store))
                db.executemany(
                    f"INSERT INTO rollouts ({', '.join(COLUMNS)}) VALUES ({marks}) "
                    f"ON CONFLICT (id) DO UPDATE SET {_all_new(COLUMNS)}",
                    (
                        [identifier(run_id, path, row["key"]), run_id, path]
                        + [row[name] for name in COLUMNS[3:]]
                        for row in rows
                    ),
                )
                db.executemany(
                    "INSERT INTO names VALUES (?, ?) ON CONFLICT DO NOTHING",
                    dict.fromkeys((name, row[name]) for name in NAMED for row in rows),
                )
                db.execute(
                    "INSERT INTO stores VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
                    + _all_new(("run", "stamp", "note")),
                    (path, run_id, store.stamp, store.note),
                )
            _sum_up(db, run_id, run)

    def _drop(self, there: set[str]) -> set[str]:
        """Forget the stores that lie there no more; the runs in which they lay."""
        with self._open() as db:
            stores = db.execute("SELECT path, run FROM stores").fetchall()
            gone = {path: run for path, run in stores if path not in there}
            for path in gone:
                db.execute("DELETE FROM rollouts WHERE store = ?", (path,))
                db.execute("DELETE FROM stores WHERE path = ?", (path,))
            if gone:
                db.execute("DELETE FROM runs WHERE id NOT IN (SELECT run FROM stores)")
                for name in NAMED:
                    db.execute(
                        "DELETE FROM names WHERE field = ? AND NOT EXISTS "
                        f"(SELECT 1 FROM rollouts WHERE {name} = names.value)",
                        (name,),
                    )
        return set(gone.values())

    def runs(self) -> list[Run]:
        """All evaluations, the newest first."""
        with self._open() as db:
            return [
                run_of(row) for row in db.execute("SELECT * FROM runs ORDER BY changed DESC, name")
            ]

    def run(self, id: str) -> Run:
        """Raises WorldEvalError if there is none of that identifier."""
        with self._open() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise WorldEvalError("there is no such evaluation here; choose one in the overview")
        return run_of(row)

    def rollout(self, id: str) -> Rollout:
        """Raises WorldEvalError if there is none of that identifier."""
        with self._open() as db:
            row = db.execute("SELECT * FROM rollouts WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise WorldEvalError("there is no such rollout here; choose one in the list")
        return rollout_of(row)

    def starts(self, *, run: str, task: str) -> list[str]:
        """The start states of a task in an evaluation."""
        sql = "SELECT DISTINCT start_id FROM rollouts WHERE run = ? AND task = ?"
        with self._open() as db:
            return [str(name) for (name,) in db.execute(sql, (run, task))]

    def version(self) -> int:
        """Another number whenever a refresh has found something new."""
        return self._changes

    def pace(self, run: Run) -> str:
        """How fast an evaluation goes and how long it still takes, in a sentence; empty if not
        known. From what was seen since the server runs, else from its beginning."""
        seen = self._seen.get(run.id, ())
        (then, before), now = (seen[0] if seen else (run.begun, 0)), seen[-1] if seen else None
        last, rollouts = now or (run.changed, run.rollouts)
        if last - then < 1 or rollouts <= before:
            return ""
        rate = 60 * (rollouts - before) / (last - then)
        told = f"{rate:.1f} rollouts a minute"
        if run.expected > run.rollouts:
            minutes = (run.expected - run.rollouts) / rate
            told += f", about {max(1, round(minutes))} minutes to go"
        return told

    def in_truth(self, rollout: Rollout) -> Rollout | None:
        """The same policy from the same start state in a world that is no imagination, if it is
        found; None for a rollout that is true itself."""
        if rollout.world != "imagination" or not rollout.start_id:
            return None
        sql = (
            "SELECT * FROM rollouts WHERE start_id = ? AND policy = ? AND world != ? "
            "AND world != '' ORDER BY run = ? DESC LIMIT 1"
        )
        values = (rollout.start_id, rollout.policy, rollout.world, rollout.run)
        with self._open() as db:
            row = db.execute(sql, values).fetchone()
        return None if row is None else rollout_of(row)

    def rollouts(
        self,
        query: str | Query = "",
        *,
        run: str | None = None,
        order: str = "",
        first: int = 0,
        count: int = 60,
        total: int | None = None,
    ) -> list[Rollout]:
        """A page of the rollouts that meet the query. Raises QueryError with a sentence.

        order: one of ``ORDERS``; the first of them where it is none. total: how many meet the
        query, of whom has counted them already.
        """
        if total == 0:
            return []
        where, values = _where(query, run)
        by = ", ".join(ORDERS.get(order, ORDERS[""])[1])
        # Where few rollouts meet the query they are found and sorted; else the order's own index is
        # followed, which would look at all rollouts to find these few ("+" forbids it).
        few = bool(where) and (self.count(query, run=run) if total is None else total) < FEW
        bare = self.database.unindexed
        follow = ", ".join(f"{bare}{column}" for column in ORDERS.get(order, ORDERS[""])[1])
        # First which, then all of them: a page far back passes over an index alone.
        page = (
            f"SELECT rowid FROM rollouts{where} ORDER BY {follow if few else by} LIMIT ? OFFSET ?"
        )
        sql = f"SELECT * FROM rollouts WHERE rowid IN ({page}) ORDER BY {by}"
        with self._open() as db:
            return [rollout_of(row) for row in db.execute(sql, (*values, count, first))]

    def neighbours(
        self, rollout: Rollout, query: Query, *, run: str | None = None, order: str = ""
    ) -> tuple[Rollout | None, Rollout | None]:
        """What comes before and after a rollout in a list."""
        where, values = _where(query, run)
        columns = ORDERS.get(order, ORDERS[""])[1]
        here = f"(SELECT {', '.join(columns)} FROM rollouts WHERE id = ?)"
        found = []
        with self._open() as db:
            for sign, way in (("<", "DESC"), (">", "ASC")):
                beyond = f"({', '.join(columns)}) {sign} {here}"
                by = ", ".join(f"{column} {way}" for column in columns)
                sql = (
                    f"SELECT * FROM rollouts{where} {'AND' if where else 'WHERE'} {beyond} "
                    f"ORDER BY {by} LIMIT 1"
                )
                row = db.execute(sql, (*values, rollout.id)).fetchone()
                found.append(None if row is None else rollout_of(row))
        return found[0], found[1]

    def count(self, query: str | Query = "", *, run: str | None = None) -> int:
        where, values = _where(query, run)
        with self._open() as db:
            return int(db.execute(f"SELECT COUNT(*) FROM rollouts{where}", values).fetchone()[0])

    def names(self, column: str, *, run: str | None = None) -> list[tuple[str, int]]:
        """The values of a column of ``Rollout`` and how many rollouts have each."""
        if column not in COLUMNS:
            raise ValueError(column)
        where, values = _where("", run)
        sql = f"SELECT {column}, COUNT(*) FROM rollouts{where} GROUP BY 1 ORDER BY 1 NULLS FIRST"
        with self._open() as db:
            return [(str(name), int(count)) for name, count in db.execute(sql, values)]

    def values(self, column: str, *, run: str | None = None) -> list[str]:
        """The different values of a column in ``NAMED``, without how often."""
        if column not in NAMED:
            raise ValueError(column)
        if run is None:
            sql, values = "SELECT value FROM names WHERE field = ? ORDER BY 1", (column,)
        else:
            sql = f"SELECT DISTINCT {column} FROM rollouts WHERE run = ? ORDER BY 1"
            values = (run,)
        with self._open() as db:
            return [str(name) for (name,) in db.execute(sql, values)]

    def knows(self, column: str, *, run: str | None = None) -> bool:
        """Whether any rollout has a value in a column that may be unknown."""
        if column not in ("trusted", "true_outcome"):
            raise ValueError(column)
        sql = f"SELECT 1 FROM rollouts WHERE {column} IS NOT NULL{' AND run = ?' if run else ''}"
        with self._open() as db:
            return db.execute(f"{sql} LIMIT 1", (run,) if run else ()).fetchone() is not None


def _where(query: str | Query, run: str | None) -> tuple[str, list[Any]]:
    parsed = Query.parse(query) if isinstance(query, str) else query
    parts, values = parsed.sql()
    if run:
        parts, values = ["run = ?", *parts], [run, *values]
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), values


def _all_new(columns: Sequence[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in columns if name != "id")


def _sum_up(db: Connection, run_id: str, run: FoundRun) -> None:
    policies, rollouts, judged, decided = db.execute(
        "SELECT COUNT(DISTINCT policy), COUNT(*), COUNT(*) FILTER (WHERE judge != ''), "
        "COUNT(*) FILTER (WHERE outcome IN ('success', 'failure')) FROM rollouts WHERE run = ?",
        (run_id,),
    ).fetchone()
    stores = db.execute("SELECT stamp, note FROM stores WHERE run = ? ORDER BY path", (run_id,))
    stamps, notes = zip(*stores.fetchall(), strict=True)
    db.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
        f"SET {_all_new([field.name for field in fields(Run)])}",
        (
            run_id,
            run.name,
            str(run.folder),
            run.begun,
            run.changed,
            policies,
            rollouts,
            run.expected,
            judged,
            decided,
            identifier(*stamps),
            max(notes),
        ),
    )
