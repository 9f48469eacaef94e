"""The notebooks run from top to bottom, and what is kept of their outputs is small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_and_small(name: str) -> None:
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(text.encode()) < 200_000
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
    assert "/root/" not in text and "Traceback" not in text


@pytest.mark.weights
@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, NOTEBOOKS / "run.py", name, "--check"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
