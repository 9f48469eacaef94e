"""Data: what was kept and why the rest was not, odd episodes, and exports below the root alone."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from worldeval.synthesis.dataset import Relabelled

from .conftest import EVIL
from .making import write_recordings, write_synthesis


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    write_synthesis(root / "synthetic")
    write_recordings(root / "recorded")
    return root


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "runs")


def ids(context: Context) -> dict[str, str]:
    return {one.name: one.id for one in context.datasets.all()}


def pane(client: TestClient, **state: str) -> str:
    for _ in range(200):
        answer = client.get("/inspector/pane/data", params=state)
        assert answer.status_code == 200, answer.text
        assert "<script" not in answer.text
        if "data-again" not in answer.text:
            return answer.text
        time.sleep(0.05)
    raise AssertionError("it is still being read")


def side(text: str, name: str) -> str:
    return text.partition(f'data-side="{name}"')[2].partition("</section>")[0]


def exported(client: TestClient, dataset: str) -> dict[str, object]:
    for _ in range(600):
        found = client.get(f"/inspector/data/export/{dataset}").json()
        if not found["busy"]:
            return found
        time.sleep(0.05)
    raise AssertionError("it is still being written")


def test_kept_and_rejected_stand_side_by_side_with_the_reason(
    client: TestClient, context: Context
) -> None:
    assert set(ids(context)) == {"synthetic", "recorded"}, "its parts are no datasets of their own"
    text = pane(client, data=ids(context)["synthetic"])
    for head in ("imagined", "judged", "judged a success", "not a near copy"):
        assert f">{head}</th>" in text
    kept, lost = side(text, "kept"), side(text, "rejected")
    assert kept.count("data-preview") == lost.count("data-preview") == 6
    assert "not judged a success (outcome failure, probability 0.2)" in lost
    assert "by the rule success?threshold=0.8" in lost and "by the rule" not in kept
    only = side(pane(client, data=ids(context)["synthetic"], stage="not a near copy"), "rejected")
    assert "None." in only


def test_what_joined_the_dataset_as_another_task_stands_by_itself(
    client: TestClient, context: Context, runs: Path
) -> None:
    key = f"{EVIL}/push/evaluation/0000"
    taken = Relabelled(task="wave", instruction="wave", probability=0.9)
    write_synthesis(runs / "hindsight", relabelled={key: taken})
    context.datasets._found = (float("-inf"), {})
    dataset = ids(context)["hindsight"]
    text = pane(client, data=dataset)
    joined = side(text, "kept as another task")
    assert joined.count("data-preview") == 1 and "in the dataset as wave" in joined
    assert side(text, "kept").count("data-preview") == 6
    assert side(text, "rejected").count("data-preview") == 5
    number = joined.partition("episode=")[2].partition('"')[0]
    shown = pane(client, data=dataset, episode=number)
    assert "rejected as push; in the dataset as wave, which it achieved" in shown


def test_an_episode_has_its_film_and_the_reason(client: TestClient, context: Context) -> None:
    dataset = ids(context)["synthetic"]
    text = pane(client, data=dataset, episode="12")
    assert "rejected" in text and "by the rule success" in text
    assert "&lt;script&gt;" in text
    told = client.get(f"/inspector/rollout/s{dataset}-11").json()
    assert (told["frames"], told["imagined"]) == (17, True) and EVIL in told["instruction"]
    film = client.get(f"/inspector/{told['film']}")
    assert film.headers["content-type"] == "video/mp4" and film.content[4:8] == b"ftyp"
    assert client.get(f"/inspector/preview/s{dataset}-0").json()["count"] == 12


@pytest.mark.parametrize("number", ["12", "-1", "1e3", "", "../0", "²", "99999999999"])
def test_an_episode_that_is_not_there_is_refused(
    client: TestClient, context: Context, number: str
) -> None:
    answer = client.get(f"/inspector/rollout/s{ids(context)['synthetic']}-{number}")
    assert answer.status_code == 404
    assert client.get(f"/inspector/rollout/snobody-{number}").status_code == 404


def test_recorded_episodes_are_listed_and_the_odd_ones_told(
    client: TestClient, context: Context
) -> None:
    text = pane(client, data=ids(context)["recorded"])
    assert "1 of 8 episodes are odd" in text and text.count("data-preview") == 8
    odd = pane(client, data=ids(context)["recorded"], odd="flagged")
    assert odd.count("data-preview") == 1 and "standing still for 100 % of it" in odd
    shown = pane(client, data=ids(context)["recorded"], odd="flagged", episode="8")
    assert "standing still" in shown and "later" not in shown


def test_an_export_is_written_below_the_root_and_never_over_another(
    client: TestClient, context: Context, runs: Path
) -> None:
    dataset = ids(context)["synthetic"]
    assert client.get(f"/inspector/data/export/{dataset}").status_code == 404
    assert client.post(f"/inspector/data/export/{dataset}").json()["busy"] is True
    found = exported(client, dataset)
    assert not found["failed"] and found["done"] == found["of"] == 6
    assert str(found["told"]).startswith("runs/synthetic/lerobot-3.0: 6 episodes, ")
    assert (runs / "synthetic" / "lerobot-3.0" / "meta" / "info.json").is_file()
    again = client.post(f"/inspector/data/export/{dataset}")
    assert again.status_code == 404
    assert "runs/synthetic/lerobot-3.0 is there already" in again.json()["error"]
    recorded = ids(context)["recorded"]
    client.post(f"/inspector/data/export/{recorded}?version=2.1&only=solved")
    assert exported(client, recorded)["of"] == 4
    assert (runs / "recorded-lerobot-2.1" / "meta").is_dir()
    context.datasets._found = (float("-inf"), {})
    assert set(ids(context)) == {"synthetic", "recorded"}, "an export is no store"


def test_an_export_that_cannot_be_is_told(
    client: TestClient, context: Context, runs: Path, tmp_path: Path
) -> None:
    dataset = ids(context)["recorded"]
    refused = client.post(f"/inspector/data/export/{dataset}?version=../../x")
    assert "3.0, 2.1" in refused.json()["error"]
    (tmp_path / "outside").mkdir()
    (runs / "recorded-lerobot-3.0").symlink_to(tmp_path / "outside")
    refused = client.post(f"/inspector/data/export/{dataset}")
    assert "is there already" in refused.json()["error"]
    assert not list((tmp_path / "outside").iterdir())
    foreign = {"Origin": "http://elsewhere.example"}
    assert client.post(f"/inspector/data/export/{dataset}", headers=foreign).status_code == 403


def test_nothing_is_written_outside_of_the_root(runs: Path, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from apps.inspector.server import make_server

    context = Context([runs / "recorded"], tmp_path / "cache")
    with TestClient(make_server(context)) as client:
        refused = client.post(f"/inspector/data/export/{ids(context)['recorded']}")
    assert "nothing is written outside" in refused.json()["error"]


def test_where_nothing_was_kept_the_funnel_and_the_rejected_are_shown(
    client: TestClient, context: Context, runs: Path
) -> None:
    write_synthesis(runs / "none", ("success?threshold=0.99",))
    context.datasets._found = (float("-inf"), {})
    text = pane(client, data=ids(context)["none"])
    assert side(text, "rejected").count("data-preview") == 12 and "None." in side(text, "kept")
    refused = client.post(f"/inspector/data/export/{ids(context)['none']}")
    assert "nothing was kept" in refused.json()["error"]


def test_what_an_earlier_version_wrote_shows_its_funnel_and_says_what_is_not_known(
    client: TestClient, context: Context, runs: Path
) -> None:
    (runs / "synthetic" / "selection.parquet").unlink()
    text = pane(client, data=ids(context)["synthetic"])
    assert "run the same `worldeval synthesize` again" in text
    assert ">judged a success</th>" in text and text.count("data-preview") == 6


def test_rollouts_that_lie_elsewhere_are_told_and_not_served(
    client: TestClient, context: Context, runs: Path, tmp_path: Path
) -> None:
    (runs / "synthetic" / "imagined").rename(tmp_path / "pool")
    funnel = runs / "synthetic" / "funnel.json"
    told = json.loads(funnel.read_text()) | {"imagined": str(tmp_path / "pool")}
    funnel.write_text(json.dumps(told))
    text = pane(client, data=ids(context)["synthetic"])
    assert side(text, "kept").count("data-preview") == 6, "of the dataset's own films"
    assert "data-preview" not in side(text, "rejected") and "by the rule" in side(text, "rejected")


def test_links_out_of_the_root_are_neither_shown_nor_exported(
    client: TestClient, context: Context, runs: Path, tmp_path: Path
) -> None:
    for name in ("imagined", "dataset"):
        (runs / "synthetic" / name).rename(tmp_path / name)
        (runs / "synthetic" / name).symlink_to(tmp_path / name)
    dataset = ids(context)["synthetic"]
    assert "outside the folders" in pane(client, data=dataset)
    assert "data-preview" not in pane(client, data=dataset)
    assert client.get(f"/inspector/rollout/s{dataset}-0").status_code == 404
    refused = client.post(f"/inspector/data/export/{dataset}")
    assert "outside the folders" in refused.json()["error"]
    assert not (runs / "synthetic" / "lerobot-3.0").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"tasks": {"a": {"b": "x"}}}', "[" * 9999])
def test_a_crafted_funnel_is_told(
    client: TestClient, context: Context, runs: Path, damage: str
) -> None:
    (runs / "synthetic" / "selection.parquet").write_bytes(b"PAR1 damaged")
    (runs / "synthetic" / "funnel.json").write_text(damage)
    text = pane(client, data=ids(context)["synthetic"])
    assert "cannot be read as a parquet table" in text
    assert re.search(r"data-preview=.s\w+-0", text), "what was kept is there"


def test_with_no_datasets_it_says_how_to_make_one(tmp_path: Path) -> None:
    from apps.inspector.server import make_server

    (tmp_path / "empty").mkdir()
    context = Context([tmp_path / "empty"], tmp_path / "cache")
    with TestClient(make_server(context)) as client:
        assert "worldeval synthesize --policy" in client.get("/inspector/pane/data").text
        assert client.get("/inspector/pane/data?data=../x").status_code == 200
