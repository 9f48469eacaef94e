"""``worldeval evaluate --until-sure``, as a user calls it, in the toy world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from worldeval import cli
from worldeval.errors import DataError
from worldeval.evaluation.until_sure_folder import stopping_notes
from worldeval.rollout.suite import Suite
from worldeval.worlds.toy import toy_starts

POLICIES = """
from worldeval.worlds.toy import ToyPolicy


class Toy(ToyPolicy):
    def __init__(self, robot, name, mistakes):
        super().__init__(robot=robot, name=name, mistakes=float(mistakes))
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    Suite(name="s", robot="toy", chunks=4, starts=toy_starts(count=12)).save(tmp_path / "s.json")
    (tmp_path / "toys.py").write_text(POLICIES)
    uris = [
        f"python:{tmp_path / 'toys.py'}:Toy?name={name}&mistakes={mistakes}"
        for name, mistakes in (("good", 0.0), ("bad", 1.0))
    ]
    given = ["evaluate", "--out", str(tmp_path / "runs"), "--until-sure", "order"]
    for uri in uris:
        given += ["--policy", uri]
    where = ["--world", "toy", "--suite", str(tmp_path / "s.json"), "--threads", "1"]
    return [*given, *where]


def test_it_rolls_out_ranks_and_says_what_it_saved(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "good > bad" in said and "after 16 of 48 rollouts: 32 saved (67%)" in said
    assert "biased towards the decision" in said
    runs = tmp_path / "runs"
    assert json.loads((runs / "run.json").read_text())["command"] == "rollout"
    assert len(pd.read_parquet(runs / "verdicts.parquet")) == 16
    assert len(pd.read_parquet(runs / "truth.parquet")) == 16
    record = json.loads((runs / "until-sure.json").read_text())
    assert record["order"] == [["good"], ["bad"]] and record["saved"] == 32
    assert "biased towards the decision" in (runs / "report.html").read_text()

    # The same again rolls out nothing; and to rank the folder later is to be told the same.
    assert cli.main(words) == 0
    assert "after 16 of 48 rollouts" in " ".join(capsys.readouterr().out.split())
    later = ["rank", str(runs), "--out", str(tmp_path / "later")]
    assert cli.main(later) == 0
    assert "biased towards the decision" in " ".join(capsys.readouterr().out.split())

    # `worldeval rollout` completes the folder; then there is nothing to be warned of.
    whole = ["rollout", "--out", str(runs), *words[words.index("--policy") :]]
    assert cli.main(whole) == 0
    assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main(later) == 0
    assert "biased" not in " ".join(capsys.readouterr().out.split())
    assert len(pd.read_parquet(runs / "verdicts.parquet")) == 48


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda words: words[: words.index("--policy")], "was given 0 policies"),
        (lambda words: [*words, "--round", "0"], "round is 0"),
        (lambda words: [*words, "--alpha", "2"], "alpha is 2.0"),
    ],
)
def test_what_does_not_fit_is_one_line(
    change: object, text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(change)
    assert cli.main(change(words)) == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    table = pd.DataFrame({"policy": ["a"], "start_id": ["s"]})
    assert stopping_notes(tmp_path, table) == ()
    (tmp_path / "until-sure.json").write_text('{"starts": 9}')
    with pytest.raises(DataError, match=r"until-sure\.json cannot be read .*'notes'"):
        stopping_notes(tmp_path, table)


def test_start_states_that_have_changed_decide_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    starts = tuple(replace(start, instruction="do not") for start in toy_starts(count=12))
    Suite(name="s", robot="toy", chunks=4, starts=starts).save(tmp_path / "s.json")
    capsys.readouterr()
    assert cli.main(words) == 2
    assert "its start state has changed" in capsys.readouterr().err
