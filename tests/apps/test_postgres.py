"""The index in a real Postgres: the answers of the file, and what happens when it dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("psycopg", reason="psycopg is not installed: `make setup`")
import psycopg
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from apps.inspector.database import hidden
from apps.inspector.index import Index
from apps.inspector.query import Query
from apps.inspector.schema import ORDERS
from apps.inspector.server import make_server
from tests.apps.postgres import INITDB, Server
from worldeval import WorldEvalError, cli

from .conftest import EVIL, judge, write_rollouts

pytestmark = pytest.mark.skipif(INITDB is None, reason="no Postgres: apt-get install postgresql")

ATTACKS = ("'; DROP TABLE rollouts; --", '" OR 1=1', "%s %(x)s ?", "\\' $$x$$", "a%_\\b", EVIL)
QUERIES = (
    *("", "good", "policy:GOOD", "policy=good", "-policy:good", "policy!=good", "task:push"),
    *("outcome:success", "-outcome:success", "truth:unknown", "trusted:unknown", "wrong:no"),
    *("-wrong:yes", "probability<0.5", "p>=50%", "seed:0", "frames>3", "policy:go*", "reason:a"),
    *("key:good/*", "-good", '"%s"', "policy:a%_", "instruction:push", "-trust<0.5"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = Path("/tmp") / f"worldeval-postgres-{os.getpid()}"
    folder.mkdir()
    running = Server(folder)
    yield running
    running.stop()
    shutil.rmtree(folder)


def both(server: Server, runs: Path, tmp_path: Path) -> tuple[Index, Index]:
    made = Index([runs], tmp_path / "index.sqlite"), Index([runs], server.url)
    for index in made:
        index.refresh()
    return made


def test_every_query_has_the_answer_that_the_file_gives(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(ATTACKS):
        write_rollouts(runs / f"attack-{number}", (name.replace("/", ""), "Good"), 2)
    judge(runs / "attack-0", {ATTACKS[0]: "success", "Good": "failure"})
    file, postgres = both(server, runs, tmp_path)
    # Times of folders and files are those of the disk in both.
    assert postgres.runs() == file.runs() and len(file.runs()) == 1 + len(ATTACKS)
    queries = [*QUERIES, *(f"policy={_quoted(name)}" for name in ATTACKS)]
    for query in (*queries, *(_quoted(name) for name in ATTACKS)):
        for order in ORDERS:
            found = file.rollouts(query, order=order)
            assert postgres.rollouts(query, order=order) == found, (query, order)
        assert postgres.count(query) == file.count(query) == len(found), query
    for column in ("policy", "task", "true_outcome", "trusted", "seed"):
        assert postgres.names(column) == file.names(column)
    assert postgres.values("policy") == file.values("policy")
    for rollout in file.rollouts(count=7):
        assert postgres.rollout(rollout.id) == rollout
        assert postgres.in_truth(rollout) == file.in_truth(rollout)
        for order in ORDERS:
            ways = [i.neighbours(rollout, Query(), order=order) for i in (file, postgres)]
            assert ways[0] == ways[1]
    for name in (*ATTACKS, "\0", "é"):
        with pytest.raises(WorldEvalError, match="choose one in the"):
            postgres.rollout(name)


def _quoted(text: str) -> str:
    return "'" + text.replace("/", "").replace("'", "'\"'\"'") + "'"


def test_what_changes_on_the_disk_changes_there(server: Server, runs: Path, tmp_path: Path) -> None:
    file, postgres = both(server, runs, tmp_path)
    write_rollouts(runs / "first" / "rollouts" / "all", ("good", "third"), 3)
    assert file.refresh() == postgres.refresh() == 1
    assert postgres.rollouts() == file.rollouts() and postgres.refresh() == 0
    shutil.rmtree(runs / "first")
    for index in (file, postgres):
        index.refresh()
    assert postgres.runs() == file.runs() == [] and postgres.values("policy") == []


def test_a_database_that_dies_is_a_sentence_and_comes_back_as_it_was(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    file, postgres = both(server, runs, tmp_path)
    server.stop()
    try:
        for act in (postgres.runs, postgres.refresh, postgres.count):
            with pytest.raises(WorldEvalError, match="No run is harmed") as told:
                act()
            assert "secret" not in str(told.value)
        write_rollouts(runs / "meanwhile", ("good",), 2)
    finally:
        server.start()
    assert file.refresh() == postgres.refresh() == 1
    assert postgres.rollouts() == file.rollouts()
    with psycopg.connect(server.url) as db:  # and if all of it is lost
        for (name,) in db.execute("SELECT nspname FROM pg_namespace").fetchall():
            if name.startswith("worldeval_"):
                db.execute(f"DROP SCHEMA {name} CASCADE")
    postgres.refresh()
    assert postgres.rollouts() == file.rollouts()


def test_a_table_to_download_is_a_sentence_too_while_it_is_down(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    with TestClient(make_server(Context([runs], tmp_path / "cache", index=server.url))) as client:
        assert client.get("/inspector/table.csv").status_code == 200
        server.stop()
        try:
            answer = client.get("/inspector/table.csv")
        finally:
            server.start()
        assert "No run is harmed" in answer.json()["error"]
        assert client.get("/inspector/table.csv").status_code == 200


def test_reindex_fills_it_and_two_inspectors_share_it(
    server: Server, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rollouts(tmp_path / "others" / "run", ("else",), 3)
    other = Index([tmp_path / "others"], server.url)
    other.refresh()
    assert cli.main(["reindex", str(runs), "--index", server.url]) == 0
    told = capsys.readouterr().out
    assert "4 rollouts" in told and "secret" not in told and str(server.port) in told
    assert other.count() == 3


def test_first_mistakes_are_told_in_a_sentence(
    server: Server, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(url: str) -> str:
        assert cli.main(["reindex", str(runs), "--index", url]) == 2
        told = capsys.readouterr().err.strip()
        assert len(told.splitlines()) == 1 and "secret" not in told, told
        return told

    assert "expected the URL of a Postgres database" in wrong("mysql://u:secret@host/db")
    assert "start that database" in wrong("postgresql://u:secret@127.0.0.1:9/db")
    assert "no-such" in wrong(server.url.replace("/postgres", "/no-such"))
    assert "cannot be used" in wrong("postgresql://u:secret@[bad/db")
    monkeypatch.setenv("WORLDEVAL_INDEX", server.url)
    assert cli.main(["reindex", str(runs)]) == 0
    assert "postgresql://" in capsys.readouterr().out
    assert hidden("postgresql://u:secret@h:1/d?password=x") == "postgresql://u@h:1/d"
