"""Where the index lies: a SQLite file, or a schema of its own in a Postgres database.

Enters: the SQL of ``index.py`` and ``query.py``, which is what both understand but for a few words;
values only as parameters. Leaves: rows. A database that cannot be reached is a sentence: the files
of the runs are the truth, and the index is made anew from them.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from worldeval import WorldEvalError

from .schema import SCHEMA, TABLES, VERSION

POSTGRES = ("postgresql://", "postgres://")


class Connection(Protocol):
    """Of one transaction: kept at its end, undone by an error."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any: ...


class Database(Protocol):
    """The tables of one index. name: for people."""

    name: str
    unindexed: str
    """Before a column by which to sort, that no index be followed for it."""

    def open(self) -> Any:
        """A context with a ``Connection``."""

    def version(self) -> int:
        """That of the tables; 0 where there are none."""

    def forget(self) -> None:
        """Empty tables of this version."""


def database(place: Path | str, roots: Sequence[Path]) -> Database:
    """A file, or the URL of a Postgres database, in which each set of roots has its own tables."""
    if isinstance(place, Path):
        return SQLite(place)
    if place.startswith(POSTGRES):
        return Postgres(place, roots)
    raise WorldEvalError(
        f"the index is {hidden(place)!r}, expected the URL of a Postgres database, such as "
        "postgresql://user@host/database; leave it out for a file in --cache"
    )


class SQLite:
    """One file, in WAL mode: any number of readers go on while one writes."""

    unindexed = "+"

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, str(file)
        file.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        with closing(sqlite3.connect(self.file, timeout=30)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA cache_size=-65536")
            db.row_factory = sqlite3.Row
            with db:
                yield db

    def version(self) -> int:
        with self.open() as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0])

    def forget(self) -> None:
        with self.open() as db:
            for table in TABLES:
                db.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")


class Row(tuple[Any, ...]):
    """A row of which the columns are known by name too, as SQLite's are."""

    names: tuple[str, ...]

    def keys(self) -> tuple[str, ...]:
        return self.names

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


class Postgres:
    """A schema for these roots, so that several inspectors share a database."""

    unindexed = ""

    def __init__(self, url: str, roots: Sequence[Path]) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise WorldEvalError(
                "the index is a Postgres database, but psycopg is not installed; pip install "
                "'worldeval[postgres]', or leave --index out"
            ) from error
        self._psycopg, self._url, self.name = psycopg, url, hidden(url)
        of = "\0".join(sorted(str(root.resolve()) for root in roots))
        digest = hashlib.sha256(of.encode("utf-8", "surrogateescape")).hexdigest()
        self._schema = f"worldeval_{digest[:12]}"
        self._idle: list[Any] = []
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        try:
            db = self._connected()
            try:
                with db.transaction():
                    yield _Translating(db)
            except BaseException:
                db.close()
                raise
            self._idle.append(db)
        except self._psycopg.Error as error:
            said = " ".join(str(error).replace(self._url, self.name).split())
            raise WorldEvalError(
                f"the index {self.name} cannot be used ({said[:300]}); start that database or "
                "correct --index. No run is harmed: `worldeval reindex` fills the index anew"
            ) from error

    def _connected(self) -> Any:
        """A connection that was used before, if it still lives, else a new one."""
        while self._idle:
            db = self._idle.pop()
            try:
                db.execute("SELECT 1")
            except self._psycopg.Error:
                db.close()
            else:
                return db
        return self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=10,
            row_factory=_rows,
            options=f"-c search_path={self._schema} -c client_encoding=UTF8",
        )

    def version(self) -> int:
        with self.open() as db:
            there = "SELECT to_regclass(?) IS NOT NULL"
            if not db.execute(there, (f"{self._schema}.version",)).fetchone()[0]:
                return 0
            return int(db.execute("SELECT number FROM version").fetchone()[0])

    def forget(self) -> None:
        with self.open() as db:
            db.execute("SELECT pg_advisory_xact_lock(?)", (int(self._schema[-12:], 16),))
            db.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")
            db.execute(f"CREATE SCHEMA {self._schema}")
            for statement in SCHEMA:
                db.execute(statement.replace(" TEXT", ' TEXT COLLATE "C"'))
            db.execute("CREATE TABLE version (number INTEGER)")
            db.execute("INSERT INTO version VALUES (?)", (VERSION,))


def _close(idle: list[Any]) -> None:
    for db in idle:
        db.close()


class _Translating:
    """SQL as SQLite has it, for Postgres. Texts are compared as SQLite compares them: by their
    bytes, and by LIKE with small and capital letters of ASCII as one."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        return self._db.execute(_translated(sql), [_storable(value) for value in values])

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        with self._db.cursor() as cursor:
            cursor.executemany(
                _translated(sql), [[_storable(value) for value in row] for row in rows]
            )


def _translated(sql: str) -> str:
    sql = sql.replace("%", "%%").replace("?", "%s").replace(" LIKE ", " ILIKE ")
    return re.sub(r"\browid\b", "id", sql)


def _storable(value: Any) -> Any:
    """Postgres keeps no NUL in a text."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _rows(cursor: Any) -> Any:
    names = tuple(column.name for column in cursor.description or ())
    kind = type("Row", (Row,), {"names": names})
    return lambda values: kind(values)


def hidden(url: str) -> str:
    """The URL without its password."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url.partition("://")[0] + "://..."
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{parts.path}" if parts.scheme else url
