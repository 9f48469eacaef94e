"""LeRobot's own reward models, where an environment of lerobot 0.6 is named.

WORLDEVAL_LEROBOT_REWARDS=.../bin/python   with lerobot[robometer,topreward,sarm] 0.6
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_robometer_topreward_and_sarm_judge_as_asked_by_hand(tmp_path: Path) -> None:
    python = os.environ.get("WORLDEVAL_LEROBOT_REWARDS")
    if not python:
        pytest.skip("WORLDEVAL_LEROBOT_REWARDS names no python with lerobot 0.6")
    command = [python, str(ROOT / "benchmarks/lerobot_rewards_check.py"), str(tmp_path / "out")]
    own = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(found[kind]["equal"] for kind in ("robometer", "topreward", "sarm"))
    assert found["robometer"]["outcomes"] == ["failure", "success"]
    assert found["topreward"]["outcomes"] == ["success", "failure"]
    for kind in ("topreward", "sarm"):  # what is shown makes a difference
        assert len(set(found[kind]["values"])) == 3
    assert all(0 < value < 1 for value in found["sarm"]["values"])
