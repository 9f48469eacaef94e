from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.ranking.verdict_tables import IMAGINED, TRUE, table
from worldeval.errors import ConfigError, DataError, MismatchError, StoreError
from worldeval.ranking.intervals import wilson_interval
from worldeval.ranking.judged_rates import JudgeCalibration
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.ranking.peer_rates import Confusion, PeerErrors
from worldeval.reports.ranking.page import write_report
from worldeval.reports.ranking.rates import trust_section
from worldeval.reports.ranking.text import render
from worldeval.types import Outcome


def test_undecided_and_errors_are_no_failures():
    good = build_leaderboard(IMAGINED).policies[0]
    assert good.name == "good"
    tally = good.imagined
    assert (tally.successes, tally.failures, tally.undecided, tally.errors) == (5, 1, 1, 1)
    assert tally.rate == pytest.approx(5 / 6)
    assert tally.interval == wilson_interval(5, 6)


def test_ranks_are_by_imagined_rate():
    board = build_leaderboard(IMAGINED, TRUE)
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
    assert "2 undecided, 1 error" in render(board)


def test_agreement_is_over_pooled_rates():
    board = build_leaderboard(IMAGINED, TRUE)
    true = [row.true.rate for row in board.policies if row.true]
    assert true == [6 / 8, 3 / 8, 0.0]
    assert board.agreement.policies == 3
    assert board.agreement.spearman == pytest.approx(1.0)
    assert board.agreement.mmrv == board.agreement.top1_regret == 0.0
    assert board.agreement.mean_bias == pytest.approx((5 / 6 - 6 / 8 + 0 + 1 / 8) / 3)
    assert board.cells.cells == 6


def test_single_rollouts_are_compared_where_both_are_decided():
    outcomes = build_leaderboard(IMAGINED, TRUE).outcomes
    # good: push sss/sss (one undecided), pull s.sf against s.ff; fair: ssff/sfff, sfff/ssff;
    # bad: ffff/ffff, sfff/ffff.
    assert outcomes.both_succeed == 3 + 1 + 1 + 1
    assert outcomes.only_imagined_succeeds == 1 + 1 + 1
    assert outcomes.only_true_succeeds == 1
    assert outcomes.both_fail == 1 + 2 + 2 + 4 + 3
    assert outcomes.same == pytest.approx(18 / 22)


def test_the_true_table_is_restricted_to_what_was_imagined():
    more = pd.concat([TRUE, table("metaworld", bad={"reach": "ssss"}, other={"push": "ssss"})])
    board = build_leaderboard(IMAGINED, more)
    assert replace(board, notes=()) == build_leaderboard(IMAGINED, TRUE)
    assert board.notes[0].startswith("8 of 32 true results are of no imagined rollout, such as pol")


def test_a_policy_without_truth_is_ranked_and_left_out_of_the_agreement():
    mine = pd.concat([IMAGINED, table(mine={"push": "ssss", "pull": "ssss"})])
    board = build_leaderboard(mine, TRUE)
    assert (board.policies[0].name, board.policies[0].true) == ("mine", None)
    assert board.excluded == {"mine": "no true results"}
    assert board.agreement == build_leaderboard(IMAGINED, TRUE).agreement
    assert board.to_dict()["policies"][0]["true"] is None


def test_a_missing_true_cell_is_named():
    with pytest.raises(MismatchError) as caught:
        build_leaderboard(IMAGINED, TRUE.drop(index=[9, 23]))
    assert "2 of 24" in str(caught.value)
    assert "policy 'good', task 'push', start 'push/1'" in str(caught.value)


def test_many_missing_cells_are_counted():
    with pytest.raises(MismatchError, match=r"7 of 24 .*; and 2 more\."):
        build_leaderboard(IMAGINED, TRUE.iloc[7:])


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
    board = build_leaderboard(IMAGINED, TRUE)
    assert [row.task for row in board.per_task] == ["push", "pull"]
    for i, row in enumerate(board.policies):
        parts = [task.policies[i] for task in board.per_task]
        assert {part.name for part in parts} == {row.name}
        assert sum(part.imagined.successes for part in parts) == row.imagined.successes
        assert sum(part.true.decided for part in parts if part.true) == row.true.decided


def test_judge_correction_for_all_and_by_policy():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=50, negatives=50)
    everyone = build_leaderboard(IMAGINED, judge_errors=judge)
    # (3/8 + 0.8 - 1) / 0.7
    assert everyone.policies[1].corrected.rate == pytest.approx(0.25)
    one = build_leaderboard(IMAGINED, judge_errors={"fair": judge})
    assert [row.corrected is None for row in one.policies] == [True, False, True]
    assert "25 %" in render(one)


def test_a_policy_without_own_calibration_is_corrected_by_the_errors_on_others(tmp_path):
    cell = Confusion(true_success=45, false_failure=5, true_failure=40, false_success=10)
    peers = PeerErrors(peers=dict.fromkeys(("x", "y", "z"), {"push": cell, "pull": cell}))
    own = JudgeCalibration(
        sensitivity=0.9, specificity=0.8, positives=50, negatives=50, errors_of="own"
    )
    board = build_leaderboard(IMAGINED, judge_errors={"good": own, "fair": own, "bad": peers})
    rows = {row.name: row for row in board.policies}
    assert rows["bad"].corrected.errors_of == "others"
    assert rows["bad"].corrected.rate <= rows["bad"].imagined.rate
    assert "(own) or on other policies, task by task (others)." in " ".join(render(board).split())
    assert "errors of" in render(board)
    report = write_report(tmp_path / "report.html", board).read_text()
    assert "Errors of" in report and "other policies, task by task (others)" in report
    assert board.to_dict()["policies"][0]["corrected"]["errors_of"] == "own"
    alone = render(build_leaderboard(IMAGINED, judge_errors={"good": own}))
    assert "measured on the policy itself (own)." in alone and "errors of" not in alone


def test_json_schema(tmp_path):
    path = build_leaderboard(IMAGINED, TRUE).to_json(tmp_path / "deep" / "leaderboard.json")
    found = json.loads(path.read_text())
    sides = {"successes", "failures", "undecided", "errors", "rate", "low", "high"}
    sides |= {"effective_rollouts"}
    for row in found["policies"]:
        assert set(row["imagined"]) == set(row["true"]) == sides
    assert {"pearson", "spearman", "mmrv", "top1_regret", "policies"} <= set(found["agreement"])
    assert found["agreement"]["policies"] == 3
    assert found["worlds"] == {"imagined": ["imagination"], "true": ["metaworld"]}
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


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, worldeval.ranking.leaderboard, worldeval.reports.ranking.page; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def spread(policies: int = 3, starts: int = 10) -> pd.DataFrame:
    """``p0`` never succeeds, ``p1`` from start 0 on, ...: policies that differ by their rates."""
    rates = np.linspace(0, 1, policies)
    letters = {
        f"p{i}": {"push": "s" * round(r * starts) + "f" * (starts - round(r * starts))}
        for i, r in enumerate(rates)
    }
    return table(**letters)


def test_letters_and_plans():
    board = build_leaderboard(spread())
    assert [(row.name, row.letters) for row in board.policies] == [
        ("p2", "a"),
        ("p1", "ab"),
        ("p0", "b"),
    ]
    pair = board.pairwise.between("p0", "p2")
    assert (pair.p_value, pair.rollouts, pair.paired) == (2 * 0.5**10, 10, True)
    assert [(plan.a, plan.b, plan.have) for plan in board.pairwise.plans] == [
        ("p2", "p1", 10),
        ("p1", "p0", 10),
    ]
    found = board.to_dict()["comparisons"]
    assert len(found["pairs"]) == 3 and len(found["plans"]) == 2


def test_different_start_states_are_compared_by_counts_or_refused():
    uneven = spread().drop(index=[0])
    board = build_leaderboard(uneven)
    assert not board.pairwise.between("p0", "p2").paired
    assert board.pairwise.between("p1", "p2").paired
    assert "compared by counts" in board.notes[0] and "p0: 9" in board.notes[0]
    with pytest.raises(MismatchError, match=r"p0: 9; 'p0' lacks 'push/0' of task 'push'"):
        build_leaderboard(uneven, require_pairs=True)


def test_equal_weights_and_weights_by_task():
    imagined = table(a={"push": "ssss", "pull": "ff"}, b={"push": "sfff", "pull": "ss"})
    plain = build_leaderboard(imagined)
    assert [(row.name, row.imagined.rate) for row in plain.policies] == [("a", 4 / 6), ("b", 0.5)]
    equal = build_leaderboard(imagined, weights="equal")
    assert [(row.name, row.imagined.rate) for row in equal.policies] == [("b", 0.625), ("a", 0.5)]
    # Kish: 1 / (0.25 / 4 + 0.25 / 2)
    assert equal.policies[0].imagined.effective == pytest.approx(16 / 3)
    own = build_leaderboard(imagined, weights={"push": 1, "pull": 3})
    assert own.policies[0].imagined.rate == pytest.approx((0.25 + 3) / 4)
    assert [row.weight for row in own.per_task] == [0.25, 0.75]
    one = build_leaderboard(imagined, imagined, weights={"push": 1, "pull": 0})
    assert one.policies[0].imagined.rate == 1.0
    assert one.agreement.mean_bias == 0.0
    assert one.to_dict()["weights"] == {"push": 1, "pull": 0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"push": 1}, r"no weight for \['pull'\]"),
        ({"push": 1, "pull": 1, "reach": 2}, r"no rollouts of \['reach'\]"),
        ({"push": 1, "pull": -1}, "'pull' is -1"),
        ({"push": 1, "pull": float("nan")}, "'pull' is nan"),
        ({"push": 1, "pull": 10**400}, "'pull' is 10000+, expected"),
        ({"push": 1, "pull": float("inf")}, "'pull' is inf"),
        ({"push": 0, "pull": 0}, "all task weights are 0"),
        ("size", "weights is 'size'"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    with pytest.raises((ConfigError, MismatchError), match=message):
        build_leaderboard(IMAGINED, weights=weights)


def test_agreement_follows_the_weights():
    imagined = table(a={"push": "ssss", "pull": "ff"}, b={"push": "sfff", "pull": "ss"})
    true = table("real", a={"push": "ssss", "pull": "sf"}, b={"push": "sfff", "pull": "sf"})
    equal = build_leaderboard(imagined, true, weights="equal")
    rates = {row.name: (row.imagined.rate, row.true.rate) for row in equal.policies}
    assert rates == {"a": (0.5, 0.75), "b": (0.625, 0.375)}
    assert equal.agreement.mean_bias == pytest.approx((-0.25 + 0.25) / 2)
    assert equal.agreement.top1_regret == pytest.approx(0.75 - 0.375)


def test_a_few_true_trials_are_joined():
    rng = np.random.default_rng(0)
    truly = {f"p{i}": rng.random(200) < 0.2 + 0.15 * i for i in range(5)}
    letters = {name: "".join("fs"[int(x)] for x in row) for name, row in truly.items()}
    imagined = table(**{name: {"push": row} for name, row in letters.items()})
    few = imagined[imagined["start_id"].isin([f"push/{n}" for n in range(20)])]
    few = few.assign(success=(few["outcome"] == "success").astype(int)).drop(columns="outcome")
    board = build_leaderboard(imagined, real=few)
    for row in board.policies:
        assert row.joined.trials == 20 and row.joined.imagined == 200
        # Imagination tells all: the joined rate is that of all 200, and far surer than 20 trials.
        assert row.joined.estimate == pytest.approx(row.imagined.rate, abs=0.06)
        assert row.joined.narrower > 0.4
    found = board.to_dict()["policies"][0]["joined"]
    assert {"estimate", "low", "high", "real_only", "narrower", "trials"} <= set(found)
    assert "joined in" in render(board)
    with pytest.raises(DataError, match="true trials is empty"):
        build_leaderboard(imagined, real=few.iloc[:0])


def test_distrusted_rollouts_are_shown_with_and_without():
    trust = IMAGINED[["key", "policy", "task", "start_id"]].assign(distrust=0.0, trusted=True)
    trust.loc[[8, 16], "trusted"] = False  # a success of good, one of fair
    board = build_leaderboard(IMAGINED, TRUE, trust=trust)
    good = board.policies[0]
    assert good.imagined.rate == pytest.approx(5 / 6)
    assert good.trusted.rate == pytest.approx(4 / 5)
    assert (good.trusted.undecided, good.trusted.errors) == (2, 1)
    assert (board.trust.decided, board.trust.distrusted) == (22, 2)
    # fair/push/0 truly succeeds, as does good/push/0: neither verdict is wrong.
    assert board.trust.wrong_distrusted == (0, 2)
    assert board.trust.wrong_trusted == (4, 20)
    assert "left reality" in render(board)
    with pytest.raises(MismatchError, match="1 of 24 imagined rollouts have no trust"):
        build_leaderboard(IMAGINED, trust=trust.iloc[1:])


def test_what_distrust_is_worth_where_the_truth_is_known():
    imagined = table(good={"push": "ssss"}, bad={"push": "ssff"})
    true = table("metaworld", good={"push": "ssss"}, bad={"push": "ffff"})
    trust = imagined[["policy", "task", "start_id"]].assign(distrust=0.1, trusted=True)
    trust.loc[[4, 5], "distrust"] = [0.9, 0.1]  # bad's two wrong verdicts, one of them doubted
    trust.loc[4, "trusted"] = False
    trust.attrs["worth"] = [
        {"signal": "blur", "auroc": 0.7, "low": 0.6, "high": 0.8, "counts": True},
        {"signal": "views", "auroc": None, "low": None, "high": None, "counts": False},
    ]
    board = build_leaderboard(imagined, true, trust=trust)
    # Against 6 right verdicts, all at 0.1: the doubted one wins, the other ties.
    assert board.trust.auroc == pytest.approx((1 + 0.5) / 2)
    assert board.errors_by_trust == pytest.approx(((0 + 1 / 2) / 2, (0 + 1 / 3) / 2))
    assert "Without them the rates err by 16.7 points on average" in render(board)
    page = trust_section(board)
    assert "0.70 [0.60, 0.80]" in page and "Together they reach 0.75 here" in page
    assert [s.counts for s in board.trust.signals] == [True, False]
    json.dumps(board.to_dict(), allow_nan=False)


def test_a_policy_without_calibration_is_named():
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=50, negatives=50)
    board = build_leaderboard(IMAGINED, judge_errors={"good": judge})
    assert board.notes[0].startswith("No corrected rate of bad, fair: the judge was not calibrated")
    assert build_leaderboard(IMAGINED, judge_errors=judge).notes == ()


@pytest.mark.parametrize("letters", ["ssss", "ffff", "uuuu", "ueue", "sfsf"])
def test_boards_without_any_difference(letters, tmp_path):
    board = build_leaderboard(table(a={"t": letters}, b={"t": letters}), real=None)
    decided = set(letters) & set("sf")
    assert [row.letters for row in board.policies] == ["a" if decided else ""] * 2
    assert len(board.pairwise.plans) == (1 if decided else 0)
    json.loads(board.to_json(tmp_path / "x.json").read_text())
    said = render(board)
    assert ("nothing can be ranked" in said) == (not decided)
    assert ("have the same rate" in said) == bool(decided)


def test_one_policy_has_nobody_to_be_compared_with():
    board = build_leaderboard(table(a={"t": "ssf"}), table("metaworld", a={"t": "ssf"}))
    assert board.policies[0].letters == "a" and not board.pairwise.comparisons
    assert "no other policy" in render(board)
    assert board.agreement.pearson is None


def test_pairs_that_share_no_decided_start_cannot_be_told_apart():
    board = build_leaderboard(table(a={"t": "ssuu"}, b={"t": "uuff"}))
    pair = board.pairwise.between("a", "b")
    assert (pair.rollouts, pair.difference, pair.p_value) == (0, None, 1.0)
    assert [row.letters for row in board.policies] == ["a", "a"]


def test_alpha_and_correction():
    strict = build_leaderboard(spread(), alpha=1e-6)
    assert {row.letters for row in strict.policies} == {"a"}
    with pytest.raises(ConfigError, match="alpha is 5"):
        build_leaderboard(spread(), alpha=5)
    with pytest.raises(ConfigError, match="correction is 'tukey'"):
        build_leaderboard(spread(), correction="tukey")


def test_letters_of_a_single_task():
    board = build_leaderboard(
        table(
            a={"push": "s" * 10, "pull": "s" * 10},
            b={"push": "f" * 10, "pull": "s" * 10},
        )
    )
    letters = {task.task: [row.letters for row in task.policies] for task in board.per_task}
    assert letters == {"push": ["a", "b"], "pull": ["a", "a"]}
