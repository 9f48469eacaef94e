"""The lines of the front door, as printed, on an untrained world of a few kilobytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worldeval import shipped

sys.path.insert(0, str(Path(__file__).parent))

from test_demo import MY_POLICY, make_shipped

LINES = """
import worldeval as we
run = we.evaluate(["checkpoints/policies/able", "python:mine.py:Still"], out="runs/nb")
run
run.rollouts["able"][0].video()
run.verdicts; run.truth; run.trust
run.judge("checkpoints/judge"); run.rank(truth="checkpoints/suite/truth.parquet"); run.report()
we.Evaluation.open("runs/nb")
"""


def test_the_lines_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shipped(tmp_path / "checkpoints")
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MY_POLICY)
    lines = LINES.replace("checkpoints/suite/truth.parquet", f"checkpoints/{shipped.TRUTH}")
    names: dict = {}
    exec(lines, names)
    run = names["run"]
    assert {name: len(views) for name, views in run.rollouts.items()} == {"able": 6, "still": 6}
    assert len(run.verdicts) == 12 and len(run.truth) == 12
    assert "able" in repr(run) and "still" in run._repr_html_()
    assert (tmp_path / "runs" / "nb" / "report.html").is_file()
