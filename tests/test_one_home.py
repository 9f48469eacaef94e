"""Ideas that many files need are spelled out in one of them."""

from __future__ import annotations

import ast
from pathlib import Path

import worldeval

ROOT = Path(worldeval.__file__).parent
SOURCES = sorted([*ROOT.rglob("*.py"), *(Path(__file__).parents[1] / "benchmarks").glob("*.py")])


def spelled(elements: set[str]) -> list[str]:
    """Files that name or search a tuple, list or set of exactly these elements."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            sides = node.comparators if isinstance(node, ast.Compare) else []
            sides = [node.value] if isinstance(node, ast.Assign) else sides
            for side in sides:
                members = getattr(side, "elts", ())
                if members and {ast.unparse(member) for member in members} == elements:
                    found.append(f"{path.parent.name}/{path.name}")
    return found


def test_which_outcomes_count_in_a_rate_is_said_by_outcome_alone() -> None:
    members = {"Outcome.SUCCESS", "Outcome.FAILURE"}
    assert spelled(members) == ["worldeval/types.py"]
    assert not spelled({f"{member}.value" for member in members})


def test_the_columns_that_name_a_rollout_stand_with_the_reader_of_tables() -> None:
    assert spelled({"'policy'", "'task'", "'start_id'"}) == ["data/tables.py"]


def test_psnr_has_one_definition() -> None:
    quotients = {"own_replays.py", "droid_world.py"}  # of two errors, also in dB
    caps = {"validation.py", "decoder_training.py"}
    digits = {"lerobot_proposal.py"}
    found = {path.name for path in SOURCES if ".log10(" in path.read_text()}
    assert found == {"psnr.py"} | quotients | caps | digits
