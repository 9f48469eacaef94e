"""The lines of the front door, as printed, typed into a shell: on an untrained world of a few
kilobytes, with a real server for the vision-language judge and the README's own policy."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.evaluation.test_demo import make_shipped
from tests.judging.vlm.server import VlmServer, vote
from worldeval import cli

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL
)
README = next(block for block in BLOCKS if "we.evaluate(" in block)
POLICY = next(block for block in BLOCKS if "class MyPolicy" in block)
DRAWN = """
import worldeval as we
run = we.evaluate(["checkpoints/policies/full", "python:mine.py:Mine"], out="runs/nb")
run
run.rollouts["full"][0].video()
run.verdicts; run.truth; run.trust
run.judge("vlm:http://..."); run.rank(truth="checkpoints/suite/truth.parquet"); run.report()
we.Evaluation.open("runs/demo")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after a clone and `worldeval demo`, with a policy of one's own."""
    root = tmp_path_factory.mktemp("home")
    make_shipped(root / "checkpoints", ("full", "poor"))
    (root / "my_policy.py").write_text(POLICY)
    (root / "mine.py").write_text(POLICY.replace("class MyPolicy", "class Mine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WORLDEVAL_CHECKPOINTS", raising=False)
        patch.chdir(root)
        assert cli.main(["demo", "--threads", "1"]) == 0
    return root


@pytest.mark.parametrize("lines", [README, DRAWN], ids=["README", "drawn"])
def test_the_lines_run_as_printed(
    lines: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLDEVAL_CHECKPOINTS", raising=False)
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.rmtree("runs/nb", ignore_errors=True)
    shown: list[Any] = []
    monkeypatch.setattr(sys, "displayhook", shown.append)
    names: dict[str, Any] = {}
    with VlmServer([vote("yes")]) as server:
        address = f"vlm:{server.url}?model=small&votes=1"
        for statement in ast.parse(re.sub(r'vlm:[^"]*', address, lines)).body:
            exec(compile(ast.Interactive([statement]), "<shell>", "single"), names)
        assert server.asked

    if lines is README:  # a tuple of tables, and what rank() gives is not shown
        shown[2:3] = shown[2]
        shown.insert(6, names["run"])
    run, video, verdicts, truth, trust, judged, ranked, report, demo = shown
    assert run is judged is ranked is names["run"] and report == Path("runs/nb/report.html")
    assert "full" in repr(run) and "mine" in repr(run) and "full" in run._repr_html_()
    assert b"ftyp" in video.mp4[:16] and "data:video/mp4" in video._repr_html_()
    assert isinstance(verdicts, pd.DataFrame) and {"full", "mine"} <= set(verdicts["policy"])
    assert truth is None and trust is None  # nothing is known of an untrained world
    assert set(run.verdicts["judge"]) != set(verdicts["judge"])
    assert set(run.truth["policy"]) == {"full", "poor"}
    rates = {row.name: (row.imagined.rate, row.true) for row in run.leaderboard().policies}
    assert rates["full"][0] == 1.0 and rates["full"][1].rate == 1.0 and rates["mine"][1] is None
    assert "data:video/mp4" in report.read_text()
    assert set(demo.rollouts) == {"full", "poor"}
