from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from worldeval.errors import DataError, MismatchError, StoreError
from worldeval.ranking.intervals import JudgeCalibration, wilson_interval
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.types import Outcome

LETTERS = {"s": "success", "f": "failure", "u": "undecided", "e": "error"}


def table(world: str = "imagination", **policies: dict[str, str]) -> pd.DataFrame:
    """``table(good={"push": "ssf"})``: three rollouts of one policy on one task."""
    rows = [
        {
            "key": f"{policy}/{task}/{number}",
            "policy": policy,
            "task": task,
            "start_id": f"{task}/{number}",
            "world": world,
            "judge": "test judge",
            "outcome": LETTERS[letter],
            "probability": None,
        }
        for policy, tasks in policies.items()
        for task, letters in tasks.items()
        for number, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows)


IMAGINED = table(
    bad={"push": "ffff", "pull": "sfff"},
    good={"push": "sssu", "pull": "sesf"},
    fair={"push": "ssff", "pull": "sfff"},
)
REAL = table(
    "metaworld",
    bad={"push": "ffff", "pull": "ffff"},
    good={"push": "ssss", "pull": "ssff"},
    fair={"push": "sfff", "pull": "ssff"},
)


def test_undecided_and_errors_are_no_failures():
    good = build_leaderboard(IMAGINED).policies[0]
    assert good.name == "good"
    tally = good.imagined
    assert (tally.successes, tally.failures, tally.undecided, tally.errors) == (5, 1, 1, 1)
    assert tally.rate == pytest.approx(5 / 6)
    assert tally.interval == wilson_interval(5, 6)


def test_ranks_are_by_imagined_rate():
    board = build_leaderboard(IMAGINED, REAL)
    assert [(row.rank, row.name) for row in board.policies] == [
        (1, "good"),
        (2, "fair"),
        (3, "bad"),
    ]


def test_ties_share_a_rank():
    board = build_leaderboard(table(b={"t": "sf"}, a={"t": "fs"}, c={"t": "ff"}))
    assert [(row.rank, row.name) for row in board.policies] == [(1, "a"), (1, "b"), (3, "c")]


def test_a_policy_that_is_never_decided_has_no_rank():
    board = build_leaderboard(
        table(a={"t": "uue"}, b={"t": "fff"}), table(a={"t": "sss"}, b={"t": "fff"})
    )
    last = board.policies[-1]
    assert (last.name, last.rank, last.imagined.rate) == ("a", None, None)
    assert board.excluded == {"a": "no decided imagined rollout"}
    assert "2 undecided, 1 error" in board.to_text()


def test_agreement_is_over_pooled_rates():
    board = build_leaderboard(IMAGINED, REAL)
    real = [row.real.rate for row in board.policies if row.real]
    assert real == [6 / 8, 3 / 8, 0.0]
    assert board.agreement.policies == 3
    assert board.agreement.spearman == pytest.approx(1.0)
    assert board.agreement.mmrv == board.agreement.top1_regret == 0.0
    assert board.agreement.mean_bias == pytest.approx((5 / 6 - 6 / 8 + 0 + 1 / 8) / 3)
    assert board.cells.cells == 6


def test_single_rollouts_are_compared_where_both_are_decided():
    outcomes = build_leaderboard(IMAGINED, REAL).outcomes
    # good: push sss/sss (one undecided), pull s.sf against s.ff; fair: ssff/sfff, sfff/ssff;
    # bad: ffff/ffff, sfff/ffff.
    assert outcomes.both_succeed == 3 + 1 + 1 + 1
    assert outcomes.only_imagined_succeeds == 1 + 1 + 1
    assert outcomes.only_real_succeeds == 1
    assert outcomes.both_fail == 1 + 2 + 2 + 4 + 3
    assert outcomes.same == pytest.approx(18 / 22)


def test_the_true_table_is_restricted_to_what_was_imagined():
    more = pd.concat([REAL, table("metaworld", bad={"reach": "ssss"}, other={"push": "ssss"})])
    assert build_leaderboard(IMAGINED, more) == build_leaderboard(IMAGINED, REAL)


def test_a_policy_without_truth_is_ranked_and_left_out_of_the_agreement():
    mine = pd.concat([IMAGINED, table(mine={"push": "ssss", "pull": "ssss"})])
    board = build_leaderboard(mine, REAL)
    assert (board.policies[0].name, board.policies[0].real) == ("mine", None)
    assert board.excluded == {"mine": "no real results"}
    assert board.agreement == build_leaderboard(IMAGINED, REAL).agreement
    assert board.to_dict()["policies"][0]["real"] is None


def test_a_missing_true_cell_is_named():
    with pytest.raises(MismatchError) as caught:
        build_leaderboard(IMAGINED, REAL.drop(index=[9, 23]))
    assert "2 of 24" in str(caught.value)
    assert "policy 'good', task 'push', start 'push/1'" in str(caught.value)


def test_many_missing_cells_are_counted():
    with pytest.raises(MismatchError, match=r"7 of 24 .*; and 2 more\."):
        build_leaderboard(IMAGINED, REAL.iloc[7:])


def test_a_cell_twice_is_refused():
    with pytest.raises(DataError, match="'bad', task 'push', start 'push/0' more than once"):
        build_leaderboard(pd.concat([IMAGINED, IMAGINED.iloc[:1]]))


@pytest.mark.parametrize("outcome", [None, float("nan"), True, "won"])
def test_an_unknown_outcome_is_refused(outcome):
    broken = IMAGINED.astype({"outcome": object})
    broken.loc[0, "outcome"] = outcome
    with pytest.raises(DataError, match="'bad', task 'push', start 'push/0'.*expected one of"):
        build_leaderboard(broken)


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match=r"lacks the columns \['start_id'\]"):
        build_leaderboard(IMAGINED.drop(columns="start_id"))


def test_an_empty_table():
    with pytest.raises(DataError, match="empty"):
        build_leaderboard(IMAGINED.iloc[:0])


def test_outcomes_may_be_enum_members():
    members = IMAGINED.assign(outcome=[Outcome(value) for value in IMAGINED.outcome])
    assert build_leaderboard(members) == build_leaderboard(IMAGINED)


def test_uneven_start_states_are_noted():
    board = build_leaderboard(IMAGINED.drop(index=[0]))
    assert "bad: 7" in board.notes[0]
    assert not build_leaderboard(IMAGINED).notes


def test_per_task_rows_add_up():
    board = build_leaderboard(IMAGINED, REAL)
    assert [row.task for row in board.per_task] == ["push", "pull"]
    for i, row in enumerate(board.policies):
        parts = [task.policies[i] for task in board.per_task]
        assert {part.name for part in parts} == {row.name}
        assert sum(part.imagined.successes for part in parts) == row.imagined.successes
        assert sum(part.real.decided for part in parts if part.real) == row.real.decided


def test_judge_correction_for_all_and_by_policy():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=50, negatives=50)
    everyone = build_leaderboard(IMAGINED, judge_calibration=judge)
    # (3/8 + 0.8 - 1) / 0.7
    assert everyone.policies[1].corrected.rate == pytest.approx(0.25)
    one = build_leaderboard(IMAGINED, judge_calibration={"fair": judge})
    assert [row.corrected is None for row in one.policies] == [True, False, True]
    assert "25 %" in one.to_text()


def test_json_schema(tmp_path):
    path = build_leaderboard(IMAGINED, REAL).to_json(tmp_path / "deep" / "leaderboard.json")
    found = json.loads(path.read_text())
    sides = {"successes", "failures", "undecided", "errors", "rate", "low", "high"}
    for row in found["policies"]:
        assert set(row["imagined"]) == set(row["real"]) == sides
    assert {"pearson", "spearman", "mmrv", "top1_regret", "policies"} <= set(found["agreement"])
    assert found["agreement"]["policies"] == 3
    assert found["worlds"] == {"imagined": ["imagination"], "real": ["metaworld"]}
    assert [path.name for path in path.parent.iterdir()] == ["leaderboard.json"]


def test_json_without_any_truth_has_null_and_reasons(tmp_path):
    path = build_leaderboard(IMAGINED).to_json(tmp_path / "leaderboard.json")
    agreement = json.loads(path.read_text())["agreement"]
    assert agreement["pearson"] is None
    assert "0 policies" in agreement["reasons"]["pearson"]


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*leaderboard.json"):
        build_leaderboard(IMAGINED).to_json(tmp_path / "file" / "leaderboard.json")


def test_text_is_aligned():
    lines = build_leaderboard(IMAGINED, REAL).to_text(unicode=False).splitlines()
    header = "# policy imagined interval n true interval n diff left out"
    assert " ".join(lines[0].split()) == header
    assert lines[2].split()[:2] == ["1", "good"]
    ends = {line.index("%", line.index("  ")) for line in lines[2:5]}
    assert len(ends) == 1
    assert all(line.isascii() for line in lines)
    assert "Pearson" in "\n".join(lines)


def test_a_name_cannot_move_the_cursor():
    text = build_leaderboard(table(**{"a\x1b[2Jb\n" + 40 * "x": {"t": "sf"}})).to_text()
    assert "\x1b" not in text
    assert "a?[2Jb?xx" in text and "…" in text


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, worldeval.ranking.leaderboard, worldeval.ranking.report; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
