"""The wheel is enough: it brings the embedded world, and works in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from worldeval import shipped

ROOT = Path(__file__).parents[1]


@pytest.mark.weights
def test_the_wheel_brings_its_world(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True)
    [wheel] = tmp_path.glob("worldeval-*.whl")
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("WORLDEVAL_CHECKPOINTS", None)
    code = (
        "import worldeval; from worldeval import EpisodeStore, Imagination, load_policy, shipped\n"
        "from worldeval.worlds.sawyer import ROBOT\n"
        "starts = EpisodeStore.open(shipped.path(shipped.STARTS))\n"
        "Imagination.open(shipped.path(shipped.WORLD_MODEL), starts, ROBOT)\n"
        "policies = [load_policy(str(place), ROBOT) for place in shipped.policies().values()]\n"
        "print(worldeval.__file__, shipped.folder(), len(policies))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    package, folder, policies = done.stdout.split()
    assert Path(package).parent == installed / "worldeval"
    assert Path(folder) == installed / "worldeval" / "checkpoints"
    assert int(policies) == len(shipped.policies())
