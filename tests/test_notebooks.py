"""The notebooks run from top to bottom, and what is kept of their outputs is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from notebooks.run import run

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
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(NOTEBOOKS.parent / "checkpoints"))
    kept, made = json.loads((NOTEBOOKS / name).read_text("utf-8")), run(NOTEBOOKS / name, tmp_path)
    # Numbers may differ from machine to machine, not what kind of thing a cell shows.
    assert [kinds(cell) for cell in made["cells"]] == [kinds(cell) for cell in kept["cells"]]


def kinds(cell: dict[str, Any]) -> list[list[str]]:
    return [[out["output_type"], *sorted(out.get("data", ()))] for out in cell.get("outputs", ())]
