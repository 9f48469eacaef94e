"""Labelling in the browser's routes: blinded all through, on the disk at once, nothing lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from worldeval import Labelling

from .conftest import EVIL


def say(client: TestClient, run: str, blind: str, rater: str, **more: object) -> int:
    given = {"run": run, "blind": blind, "rater": rater, "outcome": "success", **more}
    return client.post("/inspector/label/say", json=given).status_code


def following(client: TestClient, run: str, rater: str, skip: str = "") -> dict:
    where = {"run": run, "rater": rater, "skip": skip}
    return client.get("/inspector/label/next", params=where).json()


def test_a_rater_sees_neither_policy_nor_verdict(client: TestClient, context: Context) -> None:
    run = context.index.runs()[0]
    texts = [client.get(f"/inspector/pane/label?run={run.id}").text]
    skipped: list[str] = []
    for _ in range(4):
        item = following(client, run.id, "ann", ",".join(skipped))["item"]
        skipped.append(item["blind"])
        where = f"/inspector/label/rollout/{run.id}/{item['blind']}"
        told = client.get(where)
        film = client.get(f"/inspector/{told.json()['film']}")
        assert film.content[4:8] == b"ftyp"
        texts += [str(item), told.text]
    assert len(set(skipped)) == 4
    ids = [rollout.id for rollout in context.index.rollouts("")]
    for text in texts:
        assert not any(word in text for word in ("good", '"bad"', "stand-in", "0.9", *ids))


def test_labels_are_on_the_disk_at_once_and_taken_back(
    client: TestClient, context: Context
) -> None:
    run = context.index.runs()[0]
    blind = following(client, run.id, "ann")["item"]["blind"]
    assert say(client, run.id, blind, "ann", outcome="failure", credit=0.5, comment=EVIL) == 200
    label = Labelling(run.folder).said_by("ann")[blind]
    assert label.credit == 0.5 and label.reason == EVIL
    assert following(client, run.id, "ann")["left"] == 3
    assert say(client, run.id, blind, EVIL) == 200
    table = client.get(f"/inspector/part/raters?run={run.id}").text
    assert "<script" not in table and "&lt;script" in table
    undone = client.post("/inspector/label/undo", json={"run": run.id, "rater": "ann"})
    assert undone.json() == {"blind": blind} and following(client, run.id, "ann")["left"] == 4


def test_five_at_once_lose_no_label(client: TestClient, context: Context) -> None:
    run = context.index.runs()[0]
    items = [item.blind for item in Labelling(run.folder).items]
    jobs = [(rater, blind) for blind in items for rater in "abcde"]
    with ThreadPoolExecutor(5) as pool:
        codes = list(pool.map(lambda job: say(client, run.id, job[1], job[0]), jobs))
    assert set(codes) == {200}
    labelling = Labelling(run.folder)
    assert all(len(labelling.said_by(rater)) == len(items) for rater in "abcde")


def test_what_is_no_label_and_what_lies_elsewhere_is_refused(
    client: TestClient, context: Context, tmp_path: Path
) -> None:
    run = context.index.runs()[0]
    blind = following(client, run.id, "ann")["item"]["blind"]
    assert say(client, run.id, blind, "ann", outcome="banana") == 404
    assert say(client, run.id, "../../x", "ann") == 404 == say(client, "nobody", blind, "ann")
    assert say(client, run.id, blind, "ann", comment="x" * 5000) == 422
    for path in (f"{run.id}/..%2f..%2fx", f"{run.id}/{'0' * 16}", f"x/{blind}"):
        assert client.get(f"/inspector/label/rollout/{path}").status_code == 404
    outside = tmp_path / "outside.csv"
    outside.write_text("key,rater,outcome,reason,time\n")
    (run.folder / "labels.csv").symlink_to(outside)
    assert say(client, run.id, blind, "ann") == 404
    assert outside.read_text() == "key,rater,outcome,reason,time\n"
