"""The server gives what was asked by identifier, and nothing else to anybody."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi")
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from apps.inspector.guard import COOKIE, Guard
from apps.inspector.media import tidy
from apps.inspector.player import player_routes

from .conftest import EVIL, judge, make_episode, write_rollouts


def first(context: Context, query: str = "") -> str:
    return context.index.rollouts(query)[0].id


def test_a_rollout_is_described_with_its_film_and_pictures(
    client: TestClient, context: Context
) -> None:
    found = client.get(f"/inspector/rollout/{first(context, 'policy:good')}").json()
    assert (found["policy"], found["frames"], found["views"]) == ("good", 17, ["top", "wrist"])
    chunks = [event["frame"] for event in found["events"] if event["kind"] == "chunk"]
    memory = [event["frames"] for event in found["events"] if event["kind"] == "memory"]
    assert (chunks, memory) == ([0, 4, 8, 12], [[0, 4], [0, 8], [0, 12]])
    groups = {curve["group"] for curve in found["curves"]}
    assert groups == {"pose", "gripper", "action"}
    film = client.get(f"/inspector/{found['film']}")
    assert film.headers["content-type"] == "video/mp4" and film.content[4:8] == b"ftyp"
    part = client.get(f"/inspector/{found['film']}", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, film.content[100:200])
    pictures = client.get(f"/inspector/{found['pictures']['url']}")
    assert pictures.content[:2] == b"\xff\xd8"


def test_what_was_tidied_away_is_made_again(client: TestClient, context: Context) -> None:
    told = client.get(f"/inspector/rollout/{first(context)}").json()
    assert client.get(f"/inspector/{told['film']}").status_code == 200
    assert tidy(context.cache) == 0
    assert tidy(context.cache, most=0) == 2
    assert not [p for p in context.cache.glob("*/*") if p.suffix in (".mp4", ".jpg", ".json")]
    assert client.get(f"/inspector/rollout/{first(context)}").json() == told
    assert client.get(f"/inspector/{told['film']}").status_code == 200


def test_a_film_is_made_once(client: TestClient, context: Context) -> None:
    path = f"/inspector/{client.get(f'/inspector/rollout/{first(context)}').json()['film']}"
    client.get(path)
    [film] = (context.cache / "films").iterdir()
    made = film.stat().st_mtime_ns
    client.get(path)
    assert film.stat().st_mtime_ns == made


def test_a_link_out_of_the_root_is_refused_also_when_it_came_later(
    client: TestClient, context: Context, runs: Path, tmp_path: Path
) -> None:
    rollout = context.index.rollouts()[0]
    assert client.get(f"/inspector/rollout/{rollout.id}").status_code == 200
    shutil.move(rollout.store, tmp_path / "outside")
    os.symlink(tmp_path / "outside", rollout.store)
    for path in (f"rollout/{rollout.id}", f"film/{rollout.id}/other.mp4"):
        answer = client.get(f"/inspector/{path}")
        assert answer.status_code == 404 and "outside the folders" in answer.json()["error"]


def test_text_from_policies_instructions_and_judges_is_escaped(
    client: TestClient, context: Context, runs: Path
) -> None:
    place = runs / "evil" / "rollouts" / "all"
    store = write_rollouts(place, ("good",), 1)
    episode = make_episode(EVIL, 7, error=EVIL)
    episode.instruction, episode.task, episode.key = EVIL, EVIL, f"{EVIL}/{EVIL}"
    with store:
        store.append(episode)
    judge(place, {"good": "success", EVIL: "failure"})
    context.index.refresh()
    [rollout] = context.index.rollouts(f'policy="{EVIL.replace(chr(34), chr(92) + chr(34))}"')
    run = rollout.run
    for path in (
        f"pane/browse?run={run}", f"pane/browse?rollout={rollout.id}", f"pane/overview?run={run}",
        f"pane/browse?q={quote(EVIL)}", f"pane/overview?run={run}&task={quote(EVIL)}",
    ):  # fmt: skip
        text = client.get(f"/inspector/{path}").text
        assert "<script" not in text and "<img" not in text and "&lt;script" in text


def test_a_spoilt_log_of_chunks_is_no_end_of_the_page(
    client: TestClient, context: Context, runs: Path
) -> None:
    spoilt = ["{", "[1, 2]", '[{"step": "x"}]', "[" * 5000, '[{"step": 1e400}]']
    for number, text in enumerate(spoilt):
        write_rollouts(runs / "odd", (f"odd{number}",), 1, chunks=text)
    context.index.refresh()
    for number in range(len(spoilt)):
        answer = client.get(f"/inspector/rollout/{first(context, f'policy:odd{number}')}")
        assert answer.status_code == 200 and answer.json()["frames"] == 17


def test_a_crafted_film_is_a_sentence(client: TestClient, context: Context) -> None:
    rollout = context.index.rollouts()[0]
    for content in (b"", b"no film", b"\x00\x00\x00\x18ftypisom" + b"\xff" * 4000):
        for film in (rollout.store / "videos").rglob("*.mp4"):
            film.write_bytes(content)
        answer = client.get(f"/inspector/film/{rollout.id}/x.mp4")
        assert answer.status_code == 404 and "damaged" in answer.json()["error"]


def test_headers_keep_the_browser_at_home(client: TestClient) -> None:
    headers = client.get("/inspector/static/app.js").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    cookie = headers["set-cookie"]
    assert cookie.startswith(COOKIE) and "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_who_is_not_called_by_its_name_does_not_answer(context: Context) -> None:
    client = TestClient(Guard(FastAPI()), base_url="http://evil.example")
    assert client.get("/").status_code == 400


def test_another_page_cannot_write_here_nor_anybody_much(client: TestClient) -> None:
    evil = {"Origin": "http://evil.example"}
    assert client.post("/inspector/anything", headers=evil).status_code == 403
    assert client.post("/inspector/anything", content=b"x" * 3 * 2**20).status_code == 413


def test_a_body_of_unknown_length_is_cut_off(context: Context) -> None:
    app = FastAPI()

    async def read(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    app.post("/read")(read)
    client = TestClient(Guard(app, most_bytes=1000), base_url="http://localhost")
    parts = (b"x" * 300 for _ in range(10))
    assert client.post("/read", content=parts).status_code == 413
    assert client.post("/read", content=b"x" * 900).json() == {"length": 900}


def test_a_password_opens_every_route(context: Context) -> None:
    app = FastAPI()
    app.include_router(player_routes(context), prefix="/inspector")
    client = TestClient(Guard(app, auth=("lab", "secret")), base_url="http://localhost")
    path = f"/inspector/rollout/{first(context)}"
    wrong = base64.b64encode(b"lab:guess").decode()
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": f"Basic {wrong}"}).status_code == 401
    assert client.get(path, headers={"Authorization": "Basic !!"}).status_code == 401
    assert client.get(path, auth=("lab", "secret")).status_code == 200


def test_the_csv_is_of_all_that_meet_the_query(client: TestClient, context: Context) -> None:
    answer = client.get("/inspector/table.csv?q=policy:good")
    lines = answer.text.splitlines()
    assert len(lines) == 3 and lines[0].startswith("id,run,episode,key,policy")
    answer = client.get("/inspector/table.csv?q=polcy:good")
    assert answer.status_code == 400 and "did you mean" in answer.json()["error"]
