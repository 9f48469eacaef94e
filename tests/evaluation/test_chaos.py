"""The benchmark in which everything dies, in short: no rollout is lost, wrong or kept twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.apps.postgres import INITDB

pytestmark = pytest.mark.heavy
RUN = Path(__file__).parents[2] / "benchmarks" / "chaos" / "run.py"


@pytest.mark.parametrize("phase", ["local", "ray"])
def test_every_rollout_ends_once_and_as_in_peace(phase: str, tmp_path: Path) -> None:
    for name in ("ray", "moto.server", "psycopg", "gradio"):
        pytest.importorskip(name)
    if INITDB is None:
        pytest.skip("no Postgres: apt-get install postgresql")
    words = [tmp_path / "chaos", "--rollouts=20", f"--phases={phase}", "--most-s=1500"]
    ended = subprocess.run(
        [sys.executable, RUN, *words, f"--json={tmp_path / 'chaos.json'}"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
