"""What judges think frame by frame comes when it is computed, once, and only from judges that who
started the server has named."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.context import Context, Watching
from apps.inspector.guard import Guard
from apps.inspector.server import make_server
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.progress import ProgressJudge

from .conftest import VIEWS

SMALL = JudgeConfig(
    views=VIEWS, image_size=(32, 32), pose_dim=3, channels=(8, 8, 8), hidden=8, outputs=5
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A judge of progress that has learned nothing; as a classifier it tells a probability too."""
    made = ProgressJudge(JudgeNetwork(SMALL), Calibration(), bins=(0, 1, 2, 3, 5))
    return made.save(tmp_path / "judge")


def asked(context: Context, name: str) -> dict[str, Any]:
    with TestClient(Guard(make_server(context)), base_url="http://localhost") as client:
        for _ in range(400):
            found = client.get(f"/inspector/curves/{name}").json()
            if "busy" not in found:
                return found
            time.sleep(0.05)
    raise AssertionError("never computed")


def first(context: Context) -> str:
    context.index.refresh()
    return context.index.rollouts("policy:good")[0].id


def test_probability_and_progress_of_every_frame(small: Path, runs: Path, tmp_path: Path) -> None:
    watching = Watching(judge=small, progress=small)
    context = Context([runs], tmp_path / "cache", watching=watching)
    found = asked(context, first(context))
    curves = {curve["group"]: curve for curve in found["curves"]}
    assert curves.keys() == {"probability", "progress"}
    assert curves["progress"]["at"] == list(range(17))
    assert curves["probability"]["at"][-1] == 16
    assert all(0 <= value <= 1 for c in curves.values() for value in c["values"])
    # The verdict is somebody else's, which is said.
    assert any("the verdict that of stand-in@1" in note for note in found["notes"])
    [kept] = (context.cache / "curves").iterdir()
    made = kept.stat().st_mtime_ns
    assert asked(context, first(context)) == found and kept.stat().st_mtime_ns == made


def test_without_judges_there_is_the_verdict_and_how_to_get_more(context: Context) -> None:
    found = asked(context, first(context))
    [curve] = found["curves"]
    assert (curve["group"], curve["at"], curve["values"]) == ("probability", [8], [0.9])
    assert any("--progress" in note for note in found["notes"])
    [asking] = [note for note in found["notes"] if "worldeval trust" in note]
    root = context.index.rollouts("policy:good")[0].store
    assert str(root.parent.parent) not in " ".join(found["notes"])
    assert f"`worldeval trust {root.parent.name}/{root.name}`" in asking


def test_a_judge_of_another_robot_is_a_sentence(small: Path, runs: Path, tmp_path: Path) -> None:
    other = JudgeConfig(
        views=("left",), image_size=(32, 32), pose_dim=3, channels=(8, 8, 8), hidden=8, outputs=5
    )
    place = ProgressJudge(JudgeNetwork(other), Calibration(), bins=(0, 1, 2, 3, 5)).save(
        tmp_path / "other"
    )
    context = Context([runs], tmp_path / "cache", watching=Watching(judge=place))
    found = asked(context, first(context))
    assert not found["curves"] and "the judge needs ('left',)" in found["notes"][0]


def test_raters_get_no_curves(client: TestClient, context: Context) -> None:
    run = context.index.runs()[0].id
    blind = client.get(f"/inspector/label/next?run={run}&rater=ann").json()["item"]["blind"]
    assert "later" not in client.get(f"/inspector/label/rollout/{run}/{blind}").json()
    assert client.get(f"/inspector/curves/{blind}").status_code == 404


def test_judges_are_loaded_before_the_first_visitor(
    small: Path, runs: Path, tmp_path: Path
) -> None:
    context = Context([runs], tmp_path / "cache", watching=Watching(judge=small))
    with TestClient(Guard(make_server(context)), base_url="http://localhost") as client:
        for load in context.before_serving:
            load()
        shutil.rmtree(small)  # nobody reads it again
        name = first(context)
        while "busy" in (found := client.get(f"/inspector/curves/{name}").json()):
            time.sleep(0.02)
    assert len(found["curves"][0]["at"]) > 1


def test_a_judge_that_cannot_be_loaded_does_not_keep_the_server_from_starting(
    runs: Path, tmp_path: Path
) -> None:
    context = Context([runs], tmp_path / "cache", watching=Watching(judge=tmp_path / "none"))
    make_server(context)
    for load in context.before_serving:
        load()
