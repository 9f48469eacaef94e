"""Small evaluations to inspect: made up in a moment, or real ones of the embedded world; a server
and a real browser for the latter, made once for all tests that ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from worldeval import EpisodeStore
from worldeval.types import Episode

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from apps.inspector.context import Context

VIEWS = ("top", "wrist")
CHROMIUM = os.environ.get("WORLDEVAL_CHROMIUM") or shutil.which("chromium")
SERVING = Path(__file__).with_name("serving.py")
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
"""A name that a page must never show as it is."""


def make_episode(policy: str, number: int, **extra: object) -> Episode:
    """17 frames in which a bright square moves to the right by a pixel a frame."""
    length, rng = 17, np.random.default_rng(number)
    frames = np.full((length, len(VIEWS), 32, 32, 3), 40 + 10 * number, np.uint8)
    for t in range(length):
        frames[t, :, 8:16, t : t + 8] = 220
    task = ("push", "reach")[number % 2]
    start = f"{task}/evaluation/{number:04d}"
    chunks = [
        {"step": 8 * i, "retrieved": [0, 4 * i][: i and 2], "seconds": {"policy": 0.1}}
        for i in range(4)
    ]
    return Episode(
        key=f"{policy}/{start}",
        task=task,
        instruction=f"{task} the block",
        views=VIEWS,
        frames=frames,
        poses=rng.normal(size=(length, 3)).cumsum(axis=0).astype(np.float32),
        actions=rng.uniform(-1, 1, (length - 1, 2, 3)).astype(np.float32),
        extra={
            "policy": policy,
            "world": "imagination",
            "start_id": start,
            "seed": number,
            "outcome": "undecided",
            "error": "",
            "chunks": json.dumps(chunks),
            **extra,
        },
    )


def write_rollouts(
    place: Path, policies: tuple[str, ...] = ("good", "bad"), starts: int = 2, **extra: object
) -> EpisodeStore:
    """A store of rollouts: ``starts`` of each policy."""
    store = EpisodeStore.open_or_create(
        place,
        views=VIEWS,
        image_size=(32, 32),
        pose_names=("x_m", "y_m", "gripper"),
        action_names=("dx", "dy", "gripper"),
        steps_per_frame=2,
        fps=10,
        robot_type="toy",
        extra={"kind": "rollouts"},
    )
    with store:
        for policy in policies:
            for number in range(starts):
                episode = make_episode(policy, number, **extra)
                if episode.key not in store:
                    store.append(episode)
    return store


def judge(place: Path, outcomes: dict[str, str]) -> None:
    """Verdicts as a judge writes them; outcomes by policy."""
    import pandas as pd

    rows = []
    for row in EpisodeStore.open(place).metadata().to_dict("records"):
        outcome = outcomes[row["policy"]]
        rows.append(
            {name: row[name] for name in ("key", "policy", "task", "start_id", "world")}
            | {"judge": "stand-in@1", "outcome": outcome, "reason": "", "frames": "2 4 8"}
            | {"probability": {"success": 0.9, "failure": 0.2}.get(outcome, 0.5)}
            | {"seconds": 0.0, "tokens": 0, "dollars": 0.0}
        )
    pd.DataFrame(rows).to_parquet(place / "verdicts.parquet", index=False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run root with one judged evaluation."""
    root = tmp_path / "runs"
    write_rollouts(root / "first" / "rollouts" / "all")
    judge(root / "first" / "rollouts" / "all", {"good": "success", "bad": "failure"})
    return root


@pytest.fixture
def context(runs: Path, tmp_path: Path) -> Context:
    """The inspector's state with all of ``runs`` in its index."""
    from apps.inspector.context import Context

    context = Context([runs], tmp_path / "cache")
    context.index.refresh()
    return context


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    """A browser without a screen at the inspector of ``context``."""
    from fastapi.testclient import TestClient

    from apps.inspector.guard import Guard
    from apps.inspector.server import make_server

    with TestClient(Guard(make_server(context)), base_url="http://localhost") as client:
        yield client


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
    yield


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shipped policies from two start states in the shipped world, judged and doubted.

    $WORLDEVAL_INSPECTED names a run root that is taken instead.
    """
    if given := os.environ.get("WORLDEVAL_INSPECTED"):
        return Path(given)
    root = tmp_path_factory.mktemp("inspected") / "runs"
    policies = [f"--policy=checkpoints/policies/{name}" for name in ("full", "stopped-early")]
    where = ["--task", "drawer-close", "--task", "reach", "--per-task", "1", "--threads", "1"]
    told = ["evaluate", *policies, *where, "--out", str(root / "small")]
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "worldeval", *told], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root


@contextmanager
def served(root: Path, cache: Path) -> Iterator[str]:
    """The address of an inspector of ``root``, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(SERVING), str(root), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        found = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{found}inspector/status", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        yield found
        server.terminate()


@pytest.fixture(scope="session")
def address(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(evaluated, tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test where a script fails."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = os.environ.get("WORLDEVAL_SCREENSHOTS")
    folder = Path(place) if place else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
