"""Nobody reaches a file: every route with every odd name, links out, crafted files, uploads."""

from __future__ import annotations

import http.client
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("gradio")
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from apps.inspector.server import make_server

from .conftest import write_rollouts

PASSWD = (
    "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "..%252f..%252fetc%252fpasswd", "%00",
    "t../../etc/passwd", "..\\..\\etc\\passwd", "file:///etc/passwd", "' OR 1=1 --",
)  # fmt: skip
STATE = (
    "run", "other", "rollout", "start", "task", "policies", "swap", "q", "page", "data", "episode",
    "policy", "judge", "outcome", "order", "stage", "odd",
)  # fmt: skip
"""Names in the URL that panes read beside those that a route declares."""


def test_no_route_takes_a_path_for_a_name(client: TestClient, context: Context) -> None:
    tried = 0
    for path, methods in make_server(context).openapi()["paths"].items():
        for method, told in methods.items():
            asked = told.get("parameters", [])
            inside = [one["name"] for one in asked if one["in"] == "path"]
            query = {one["name"] for one in asked if one["in"] == "query"} | set(STATE)
            for name in PASSWD:
                for form in (name, quote(name, safe="")):
                    place = path.format(**dict.fromkeys(inside, form))
                    answer = client.request(method, place, params=dict.fromkeys(query, name))
                    assert answer.status_code < 500, (method, place, answer.text)
                    assert "root:" not in answer.text, (method, place)
                    assert not inside or answer.status_code in (400, 404, 405, 422), place
                    tried += 1
    assert tried > 400


@pytest.mark.weights
def test_what_gradio_itself_serves_is_closed(address: str, evaluated: Path) -> None:
    info = next(evaluated.rglob("info.json"))
    host = address.removeprefix("http://").rstrip("/")
    for method, path, size in (
        ("GET", "gradio_api/file=/etc/passwd", 0),
        ("GET", f"gradio_api/file={info}", 0),
        ("GET", "file=/etc/passwd", 0),
        ("GET", "gradio_api/file%3D/etc/passwd", 0),
        ("GET", "gradio_api/file=http://127.0.0.1:22/", 0),
        ("GET", "gradio_api/proxy=http://localhost/", 0),
        ("GET", "assets/..%2f..%2f..%2fetc/passwd", 0),
        ("GET", "static/..%2f..%2fetc%2fpasswd", 0),
        ("GET", "custom_component/x/y/..%2f..%2fetc%2fpasswd", 0),
        ("POST", "gradio_api/upload", 10),
        ("POST", "gradio_api/upload", 3 * 2**20),
    ):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.putrequest(method, f"/{path}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status in (400, 403, 404), path
        assert "root:" not in text and "codebase" not in text
        assert method == "GET" or text == "nothing is uploaded here"


def moved_out(path: Path, outside: Path) -> None:
    """A link in its place, to where it lies now."""
    outside.mkdir(exist_ok=True)
    shutil.move(path, outside / path.name)
    os.symlink(outside / path.name, path)


@pytest.mark.parametrize("what", ["videos/*/*/*.mp4", "data/*/*.parquet", "meta/info.json", "data"])
def test_a_store_s_file_that_is_a_link_out_is_refused(
    what: str, client: TestClient, context: Context, tmp_path: Path
) -> None:
    rollout = context.index.rollouts()[0]
    routes = [f"/inspector/{kind}/{rollout.id}" for kind in ("rollout", "preview")]
    assert [client.get(path).status_code for path in routes] == [200, 200]
    moved_out(next(rollout.store.glob(what)), tmp_path / "outside")
    for path in (*routes, f"/inspector/film/{rollout.id}/other.mp4"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "a link that leads outside the folders" in answer.json()["error"]


def test_tables_that_are_links_out_are_not_read(
    client: TestClient, context: Context, runs: Path, tmp_path: Path
) -> None:
    moved_out(runs / "first" / "rollouts" / "all" / "verdicts.parquet", tmp_path / "outside")
    write_rollouts(runs / "late")
    moved_out(runs / "late" / "meta" / "info.json", tmp_path / "late")
    fresh = Context([runs], tmp_path / "fresh")
    fresh.index.refresh()
    notes = {run.name: run.note for run in fresh.index.runs()}
    assert "verdicts.parquet" in notes["first"] and "info.json" in notes["late"]
    assert fresh.index.count() == 0
    [first] = context.index.runs()
    told = client.get(f"/inspector/pane/label?run={first.id}").text
    assert "good" not in told and "bad" not in told


def test_links_from_one_root_into_another_are_followed(runs: Path, tmp_path: Path) -> None:
    both = Context([runs, tmp_path / "disk"], tmp_path / "cache")
    film = next(runs.rglob("*.mp4"))
    moved_out(film, tmp_path / "disk")
    assert both.inside(runs) == runs
    os.symlink(runs, runs / "circle")
    assert both.inside(runs) == runs
    os.symlink(tmp_path, tmp_path / "disk" / "up")
    with pytest.raises(Exception, match="'up', a link that leads outside"):
        both.inside(tmp_path / "disk")


CRAFTED = ("{", "[" * 100_000, '{"extra": {"starts": 1e999}}', '"\\ud800"', "\x00", "5",
           '{"config": {"policy_names": {"<script>": "x"}}, "extra": {"starts": 1}}')  # fmt: skip


def test_crafted_json_in_a_run_folder_is_no_end_of_any_page(
    client: TestClient, context: Context, runs: Path
) -> None:
    for text in CRAFTED:
        for name in ("run.json", "leaderboard.json", "funnel.json", "rollouts/all/run.json"):
            (runs / "first" / name).write_text(text)
        context.index.refresh()
        [run] = context.index.runs()
        for tab in ("overview", "browse", "compare", "label", "data"):
            answer = client.get(f"/inspector/pane/{tab}", params={"run": run.id})
            assert answer.status_code == 200 and "<script" not in answer.text, (tab, text[:20])
        board = client.get(f"/inspector/part/board?run={run.id}")
        assert board.status_code == 200 and "<script" not in board.text
