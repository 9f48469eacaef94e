"""One rollout as a recording of Rerun: read back with its own SDK, and a sentence without it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worldeval.cli import main
from worldeval.data.store.episodes import EpisodeStore
from worldeval.types import Episode

ROOT = Path(__file__).parents[2]
KEY = "good/push/evaluation/0000"
READ = """
import json, sys
from rerun.chunk import RrdReader
found = {}
for chunk in RrdReader(sys.argv[1]).stream():
    batch = chunk.to_record_batch()
    names = [name for name in batch.schema.names
             if name in ("time", "frame") or name.endswith((":scalars", ":text"))]
    columns = {name.rpartition(":")[2]: batch.column(name).to_pylist() for name in names}
    columns["time"] = [v.total_seconds() for v in columns.get("time", ())]
    found[chunk.entity_path] = columns
print(json.dumps(found))
"""


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """A rollout of 5 frames at 10 Hz, two control steps a frame, chunks of two frames."""
    rng = np.random.default_rng(0)
    store = EpisodeStore.create(
        tmp_path / "rollouts",
        views=("top", "wrist"),
        image_size=(16, 16),
        pose_names=("x_m", "gripper"),
        action_names=("dx", "grip"),
        steps_per_frame=2,
        fps=10,
        robot_type="toy",
    )
    with store:
        store.append(
            Episode(
                key=KEY,
                task="push",
                instruction="push <b>the</b> block",
                views=("top", "wrist"),
                frames=rng.integers(0, 255, (5, 2, 16, 16, 3), np.uint8),
                poses=np.arange(10, dtype=np.float32).reshape(5, 2),
                actions=rng.uniform(-1, 1, (4, 2, 2)).astype(np.float32),
                extra={"policy": "good", "chunks": json.dumps([{"step": 0}, {"step": 4}])},
            )
        )
    return store


@pytest.mark.skipif(importlib.util.find_spec("rerun") is not None, reason="rerun-sdk is there")
def test_without_the_sdk_it_is_said_how_to_get_it(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.rrd"
    assert main(["export", "rerun", str(store.root), "--rollout", KEY, "--out", str(out)]) == 2
    assert "pip install 'worldeval[rerun]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture(scope="session")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rerun-sdk and what else it needs; $WORLDEVAL_RERUN names one that is there."""
    if given := os.environ.get("WORLDEVAL_RERUN"):
        return Path(given)
    place = tmp_path_factory.mktemp("rerun")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(place), "rerun-sdk", "attrs", "psutil"], check=True)
    return place


@pytest.mark.heavy
def test_the_sdk_reads_everything_on_one_timeline(
    store: EpisodeStore, sdk: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (ROOT, sdk)))
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    out = tmp_path / "x.rrd"
    words = ["-m", "worldeval", "export", "rerun", str(store.root), "--out", str(out)]
    done = run(*words, "--rollout", KEY)
    assert done.returncode == 0, done.stderr
    assert "5 frames of 2 views" in done.stdout and "not judged" in done.stdout
    read = run("-c", READ, str(out))
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)
    for view in ("top", "wrist"):
        assert found[f"/views/{view}"]["frame"] == [0, 1, 2, 3, 4]
        assert found[f"/views/{view}"]["time"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    pose = found["/pose/x_m"]
    assert [v for [v] in pose["scalars"]] == [0, 2, 4, 6, 8] and pose["frame"] == [0, 1, 2, 3, 4]
    assert [v for [v] in found["/gripper/gripper"]["scalars"]] == [1, 3, 5, 7, 9]
    action = found["/action/dx"]
    told = store.by_key(KEY).actions[..., 0].ravel()
    assert [v for [v] in action["scalars"]] == pytest.approx(told.tolist())
    assert action["time"] == pytest.approx(np.arange(8) * 0.05)
    assert action["frame"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found["/events"]["frame"] == [0, 2]
    assert "\\<b\\>the" in found["/about"]["text"][0][0]
    assert not [name for name in found if name.startswith(("/judge", "/progress", "/trust"))]
    again = run(*words, "--rollout", KEY)
    assert again.returncode == 2 and "is there already" in again.stderr
    other = run(*words[:-1], str(tmp_path / "y.rrd"), "--rollout", KEY.replace("00", "01", 1))
    assert other.returncode == 2 and f"did you mean {KEY!r}" in other.stderr
