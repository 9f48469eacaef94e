"""The query box finds what was meant, and says what it does not understand."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import pytest

pytest.importorskip("fastapi")
from apps.inspector.query import FIELDS, Query, QueryError
from apps.inspector.schema import NAMED, SCHEMA

COLUMNS = (
    "policy, task, start_id, world, judge, reason, instruction, error, key, outcome, true_outcome, "
    "trusted, trust, probability, length, seed"
)
ROWS = [
    ("full", "push", "push/0", "imagination", "a@1", "", "push it", "", "full/push/0", "failure",
     "success", 0, 0.2, 0.1, 33, 1),
    ("full-two", "push-back", "push/1", "imagination", "a@1", "50% there", "push it", "",
     "f/1", "success", "success", 1, 0.9, 0.8, 17, 2),
    ("o'neill \"x\"", "reach", "r/1", "imagination", "", "", "reach out", "", "o/1", "unjudged",
     None, None, None, None, 33, 3),
]  # fmt: skip


def found(text: str) -> list[str]:
    db = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        db.execute(statement)
    db.executemany(f"INSERT INTO rollouts ({COLUMNS}) VALUES ({', '.join('?' * 16)})", ROWS)
    for name in NAMED:
        db.execute(f"INSERT INTO names SELECT DISTINCT '{name}', {name} FROM rollouts")
    parts, values = Query.parse(text).sql()
    where = f" WHERE {' AND '.join(parts)}" if parts else ""
    rows = db.execute(f"SELECT policy FROM rollouts{where} ORDER BY rowid", values).fetchall()
    db.close()
    return [str(row[0]) for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2]),
        ("policy:full task:push outcome:failure trust<0.3", [0]),
        ("policy:full", [0, 1]),  # a name up to a mark
        ("policy=full", [0]),
        ("policy:ful", []),
        ("policy:ful*", [0, 1]),
        ("task:PUSH-back", [1]),
        ("-policy:full", [2]),
        ("policy!=full", [1, 2]),
        ("trust<30%", [0]),
        ("p>=0.1", [0, 1]),
        ("-trust<0.3", [1, 2]),  # what is not known is not below
        ("trusted:unknown", [2]),
        ("truth:unknown", [2]),
        ("wrong:yes", [0]),
        ("wrong:no", [1]),
        ("reason:*50%*", [1]),  # % is a letter here
        ("reason:*5_%*", []),
        ("reach", [2]),
        ("PUSH", [0, 1]),
        ("-reach", [0, 1]),
        ("push r/1", []),
        ("push wrong:yes", [0]),
        ("nowhere", []),
        ("frames=33", [0, 2]),
        ('policy:"o\'neill \\"x\\""', [2]),
        ("outcome:unjudged", [2]),
    ],
)
def test_finds(text: str, expected: list[int]) -> None:
    assert found(text) == [ROWS[number][0] for number in expected]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("polcy:full", "did you mean policy:full"),
        ("outcome:succes", "did you mean outcome:success"),
        ("outcome:maybe", "expected success, failure"),
        ("trust<low", "trust is a number, got 'low'"),
        ("trust:nan", "expected a number"),
        ("policy<3", "write policy:3"),
        ("task:", "lacks a value"),
        ('policy:"full', "quotation mark"),
        ("x" * 501, "500 at most"),
    ],
)
def test_says_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(QueryError, match=sentence):
        Query.parse(text)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["'; DROP TABLE rollouts; --", "1 OR 1=1", "\\", "%", "\x00"])
def test_no_value_becomes_sql(name: str, value: str) -> None:
    quoted = '"' + value.replace("\\", "\\\\") + '"'
    with suppress(QueryError):
        assert found(f"{name}:{quoted}") in ([], ["full-two"], ['o\'neill "x"'])
