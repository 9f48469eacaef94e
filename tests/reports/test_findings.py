"""What is said in plain words, and the same in the terminal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.ranking.verdict_tables import IMAGINED, TRUE, table
from worldeval.ranking.judged_rates import JudgeCalibration
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.reports.ranking.findings import findings, listed
from worldeval.reports.ranking.text import WIDTH, render


def rates(world: str = "imagination", starts: int = 10, **successes: int) -> pd.DataFrame:
    """The first so many of a policy's rollouts succeed; half of them are of either task."""
    half = starts // 2
    return table(
        world,
        **{
            name: {
                "push": "s" * min(n, half) + "f" * (half - min(n, half)),
                "pull": "s" * max(n - half, 0) + "f" * (half - max(n - half, 0)),
            }
            for name, n in successes.items()
        },
    )


def said(*tables, **options) -> str:
    order, evidence = findings(build_leaderboard(*tables, **options))
    return " ".join(order + evidence)


def test_who_is_best_and_who_cannot_be_told_apart():
    imagined = rates(starts=40, good=36, fair=33, bad=4)
    text = said(imagined)
    assert text.startswith("good takes the first place of 3 in imagination: 90 % success on 2 tas")
    assert "But it cannot be told apart from fair; the other is worse" in text
    assert "Of all 3 pairs of policies 2 differ." in text
    assert "whether they hold in truth was not checked" in text
    clear = said(rates(starts=40, good=36, bad=4))
    assert "The only other policy is worse by more than chance." in clear
    few = said(rates(a=6, b=5, c=4))
    assert "cannot be told apart from b and c: with so few rollouts" in few


def test_ties_for_the_first_place():
    assert said(rates(a=5, b=5)).startswith("a and b share the first place of 2")


def test_nothing_is_decided():
    assert said(IMAGINED.assign(outcome="undecided")) == (
        "No policy has a decided rollout: nothing can be ranked."
    )


def test_what_agreement_says():
    imagined = rates(low=1, mid=4, high=8)
    true = rates("metaworld", low=2, mid=5, high=9)
    assert "r = 1.000, and among these the imagined winner is the true one" in said(imagined, true)
    wrong = rates("metaworld", low=9, mid=4, high=8)
    assert "taking the imagined winner costs 10.0 points of true success" in said(imagined, wrong)
    two = said(rates(low=1, high=8), rates("metaworld", low=1, high=8))
    assert "cannot be told: 2 policies have rates on both sides" in two


def test_a_correction_that_changes_the_winner_is_said():
    judges = {
        "good": JudgeCalibration(sensitivity=0.9, specificity=0.3, positives=80, negatives=80),
        "fair": JudgeCalibration(sensitivity=0.6, specificity=1.0, positives=80, negatives=80),
    }
    text = said(rates(good=6, fair=5), judge_errors=judges)
    # good: (0.6 + 0.3 - 1) / 0.2 is cut to 0; fair: 0.5 / 0.6.
    assert "and the first place goes to fair" in text
    none = JudgeCalibration(sensitivity=1.0, specificity=1.0, positives=80, negatives=80)
    alike = said(rates(good=6, fair=5), judge_errors=none)
    assert "no rate moves by a point" in alike and "1 other may be as good as the first" in alike
    clear = said(rates(starts=80, good=72, bad=4), judge_errors=none)
    assert "Nor does what is not known of these errors put it in question." in clear


def test_imagination_that_does_not_help_is_said():
    rng = np.random.default_rng(1)
    imagined = table(**{p: {"t": "".join(rng.choice(["s", "f"], 60))} for p in "abcd"})
    real = table("robot", **{p: {"t": "".join(rng.choice(["s", "f"], 15))} for p in "abcd"})
    text = said(imagined, real=real)
    assert "With 60 true trials of 4 policies joined in" in text
    assert "Imagination does not help here" in text


def test_lists_stay_short():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg")) == "a, b, c and 4 more"


def test_text_is_aligned():
    lines = render(build_leaderboard(IMAGINED, TRUE), unicode=False).splitlines()
    assert lines[0].split() == [
        "#",
        "policy",
        "imagined",
        "n",
        "group",
        "true",
        "diff",
        "left",
        "out",
    ]
    assert lines[2].split()[:2] == ["1", "good"]
    assert len({line.index("%") for line in lines[2:5]}) == 1
    assert all(line.isascii() for line in lines)
    assert "Pearson" in "\n".join(lines)
    assert "  ! 3 policies cannot support a correlation" in "\n".join(lines)


def test_text_fits_the_terminal_with_all_that_can_be_known():
    names = [f"a-policy-with-a-rather-long-name-{i}" for i in range(6)]
    imagined = rates(starts=40, **{n: 6 * i + 5 for i, n in enumerate(names)})
    true = rates("metaworld", starts=40, **{n: 6 * i + 3 for i, n in enumerate(names)})
    judge = JudgeCalibration(sensitivity=0.9, specificity=0.8, positives=50, negatives=50)
    trust = imagined[["policy", "task", "start_id"]].assign(trusted=True, distrust=0.0)
    trust.loc[0, "trusted"] = False
    undecided = imagined.copy()
    undecided.loc[undecided.index % 9 == 1, "outcome"] = "undecided"
    board = build_leaderboard(undecided, true, real=true.iloc[::8], judge_errors=judge, trust=trust)
    lines = render(board).splitlines()
    assert max(map(len, lines)) <= WIDTH
    for word in ("imagined", "group", "corrected", "trusted", "joined", "true", "diff"):
        assert word in lines[0].split()


@pytest.mark.parametrize("unicode", [True, False])
def test_a_name_cannot_move_the_cursor(unicode):
    names = ["a\x1b[2Jb\n" + 40 * "x", "é\x07"]
    board = build_leaderboard(table(**{name: {"t": "sf"} for name in names}))
    text = render(board, unicode=unicode)
    assert "\x1b" not in text and "\x07" not in text
    assert "a?[2Jb?xx" in text and ("…" if unicode else "~") in text
