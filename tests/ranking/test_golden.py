"""Every number of the published tables and computed vectors in golden/, at its printed precision.

A number is reproduced if it rounds to what is printed. Each file says where it comes from.
"""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests.ranking.exact import barnard_in_fractions
from worldeval.ranking import (
    JudgeCalibration,
    TaskCounts,
    agree_in_cells,
    agreement,
    barnard_test,
    beta_interval,
    bradley_terry,
    clopper_pearson_interval,
    compact_letters,
    difference_interval,
    e_values,
    mmrv,
    prediction_powered_mean,
    rogan_gladen,
    rollouts_needed,
    wilson_interval,
)

GOLDEN = Path(__file__).parent / "golden"


def read(name: str):
    """Numbers as Decimal: these remember how many digits are printed."""
    return json.loads((GOLDEN / name).read_text(), parse_float=Decimal, parse_int=Decimal)


VECTORS = read("vectors.json")
SIMPLER = read("simpler_google_robot.json")
CTRL_WORLD = read("ctrl_world_table3.json")
WORLDGYM = read("worldgym_cells.json")


def floats(values) -> list[float]:
    return [float(value) for value in values]


def check(value: float | None, printed: Decimal) -> None:
    """``value`` rounds to ``printed``; whole numbers stand for themselves, to six digits."""
    assert value is not None
    digit = printed.as_tuple().exponent
    assert isinstance(digit, int)
    half = 10.0**digit / 2 if digit < 0 else 5e-7
    assert value == pytest.approx(float(printed), abs=half * (1 + 1e-9))


# --- SIMPLER, Table IV -------------------------------------------------------------------------

SIMPLER_CASES = [
    (task, setting)
    for task in SIMPLER["tasks"]
    for setting in ("visual_matching", "variant_aggregation")
]


@pytest.mark.parametrize(("task", "setting"), SIMPLER_CASES)
def test_simpler(task, setting):
    """Rates are printed to three digits: 0.001 of MMRV and 0.004 of r may be lost by that."""
    table = SIMPLER["tasks"][task]
    real, predicted = floats(table["real"]), floats(table[setting])
    published = table["published"][setting]
    found = agreement(real, predicted, names=SIMPLER["policies"])
    assert mmrv(real, predicted) == found.mmrv
    assert found.mmrv == pytest.approx(float(published["mmrv"]), abs=1e-3)
    assert found.pearson == pytest.approx(float(published["pearson"]), abs=4e-3)


@pytest.mark.parametrize("task", ["pick coke can", "close drawer"])
def test_simpler_with_swapped_arguments(task):
    table = SIMPLER["tasks"][task]
    real, predicted = floats(table["real"]), floats(table["visual_matching"])
    swapped = table["swapped_arguments_mmrv_visual_matching"]
    check(mmrv(predicted, real), swapped)
    assert abs(mmrv(real, predicted) - float(swapped)) > 5e-3


# --- WorldGym, appendix matrix -----------------------------------------------------------------


def worldgym(side: str) -> TaskCounts:
    policies = list(dict.fromkeys(cell["policy"] for cell in WORLDGYM["cells"]))
    tasks = list(dict.fromkeys(cell["task"] for cell in WORLDGYM["cells"]))
    counts = {(c["policy"], c["task"]): float(c[side]) for c in WORLDGYM["cells"]}
    successes = np.array([[counts[policy, task] for task in tasks] for policy in policies])
    return TaskCounts(successes=successes, decided=np.full_like(successes, 10))


def test_worldgym():
    real, imagined = worldgym("real"), worldgym("imagined")
    expected = WORLDGYM["expected"]
    assert real.successes.size == len(WORLDGYM["cells"]) == 51
    check(agree_in_cells(real=real, predicted=imagined).pearson, expected["pooled_pearson"])
    means = agreement(real, imagined, names=["RT-1-X", "Octo", "OpenVLA"])
    check(means.pearson, expected["policy_mean_pearson"])
    check(means.mmrv, expected["policy_mean_mmrv"])
    check(100 * means.mean_absolute_error, expected["policy_mean_abs_error_points"])
    assert means.winner == "OpenVLA"
    # The paper prints r from three policies; that is what cannot be done.
    assert "3 policies cannot support a correlation" in means.warnings[0]


# --- Ctrl-World, Table 3 -----------------------------------------------------------------------


def ctrl_world(measure: str, side: str) -> TaskCounts:
    rates = np.array([floats(task[side]) for task in CTRL_WORLD[measure].values()]).T
    return TaskCounts(successes=20 * rates, decided=np.full_like(rates, 20))


@pytest.mark.parametrize("measure", ["instruction_following", "success"])
def test_ctrl_world(measure):
    """The paper prints the fits y = 0.87 x - 0.04 and y = 0.81 x - 0.11.

    The printed cells give a slope of 0.8154 for the second: the paper fitted rates before they
    were rounded to 5 points.
    """
    real, imagined = ctrl_world(measure, "real"), ctrl_world(measure, "imagined")
    expected = CTRL_WORLD["recomputed"][measure]
    cells = agree_in_cells(real=real, predicted=imagined)
    assert cells.cells == 21
    check(cells.pearson, expected["pearson"])
    check(cells.spearman, expected["spearman"])
    check(cells.mean_bias, expected["mean_bias"])
    assert f"{cells.order_kept}/{cells.order_pairs}" == expected["order_kept"]
    fit = agreement(real.cell_rates.ravel(), imagined.cell_rates.ravel())
    check(fit.slope, expected["slope"])
    check(fit.intercept, expected["intercept"])


# --- vectors.json ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "rows"),
    [
        (wilson_interval, VECTORS["wilson_95"]),
        (clopper_pearson_interval, VECTORS["clopper_pearson_95"]),
        (beta_interval, VECTORS["beta_1_1_95"]),
    ],
)
def test_intervals(interval, rows):
    for successes, trials, low, high in rows:
        found = interval(float(successes), float(trials))
        check(found.low, low)
        check(found.high, high)


def test_wilson_half_width():
    for trials, half in VECTORS["wilson_half_width_at_half"].items():
        found = wilson_interval(int(trials) / 2, int(trials))
        check((found.high - found.low) / 2, half)


def test_barnard_and_newcombe():
    expected = VECTORS["barnard_pooled"]["28/50 vs 46/50"]
    found = barnard_test(28, 50, 46, 50, alternative="less")
    check(found.statistic, expected["statistic"])
    check(found.p_value, expected["one_sided_p"])
    low, high = difference_interval(28, 50, 46, 50)
    check(low, expected["newcombe_difference_ci"][0])
    check(high, expected["newcombe_difference_ci"][1])


SCIPY_ERRS = {(5, 8, 10): 0.2206328, (33, 20, 50): 0.0105825}
"""Where the vectors, which are scipy 1.17's, are wrong: two-sided Barnard in fractions, not floats.

The outcomes (a, b) = (17, 30), (20, 33), (30, 17) of 50 have exactly the statistic of (33, 20);
scipy loses some of them to rounding and prints 0.010460 instead of 0.010582. Of 5 against 8 of 10
it stops 5e-7 short of the maximum over the common rate.
"""


def check_barnard(a: int, b: int, trials: int, printed: Decimal) -> float:
    """Our p, which is the printed one, or where that is wrong the one in fractions."""
    p = barnard_test(a, trials, b, trials).p_value
    if (a, b, trials) in SCIPY_ERRS:
        from scipy.stats import barnard_exact

        check(barnard_exact([[a, b], [trials - a, trials - b]]).pvalue, printed)
        exact = barnard_in_fractions(a, b, trials)
        assert exact == pytest.approx(SCIPY_ERRS[a, b, trials], abs=5e-8)
        assert p == pytest.approx(exact, rel=1e-6)
        assert abs(exact - float(printed)) > 5e-7
    else:
        check(p, printed)
    return p


def test_barnard_of_ten():
    for counts, p in VECTORS["barnard_pooled"]["two_sided_n10"].items():
        a, b = map(int, counts.split("v"))
        check_barnard(a, b, 10, p)


def test_turner_grunwald():
    vector = VECTORS["e_value_turner_grunwald"]
    found = e_values(np.array(vector["pairs"], np.float64), method="turner-grunwald")
    for value, printed in zip(found, vector["E"], strict=True):
        check(value, printed)


SEQUENCES = {
    "FoldRedTowel": (
        "01110011110110100100010000110110010111110111010101",
        "11110111111111111111111111111011110111101111111111",
        20,
        Decimal("39.5176"),
    ),
    "CleanSpill": (
        "00101000010000001000000100110001000000101101000101",
        "11111111110111101111111111101111111011111000101100",
        7,
        Decimal("25.5335"),
    ),
}


@pytest.mark.parametrize("task", SEQUENCES)
def test_turner_grunwald_on_two_published_runs(task):
    """Real rollouts of two policies on two tasks (Snyder et al., arXiv 2503.10966)."""
    before, after, stops_at, capital = SEQUENCES[task]
    pairs = np.array([[int(a), int(b)] for a, b in zip(before, after, strict=True)])
    assert len(pairs) == 50
    if task == "FoldRedTowel":
        assert pairs.sum(axis=0).tolist() == [28, 46]
    found = e_values(pairs, method="turner-grunwald")
    first = int(np.argmax(found >= 20))
    assert first + 1 == stops_at
    check(found[first], capital)


def test_bradley_terry():
    vector = VECTORS["bradley_terry_davidson"]
    games = {tuple(pair.split("-")): tuple(floats(c)) for pair, c in vector["games"].items()}
    found = bradley_terry(games)
    assert found.names == ("A", "B", "C")
    for name in ("theta", "sd"):
        for value, printed in zip(getattr(found, name), vector[name], strict=True):
            check(value, printed)
    check(found.nu, vector["nu"])
    assert [round(score) for score in found.scores] == [1692, 1522, 1286]


def test_letters():
    vector = VECTORS["compact_letters"]
    n, successes = int(vector["n"]), {k: int(v) for k, v in vector["successes"].items()}
    p_values = {
        (a, b): barnard_test(successes[a], n, successes[b], n).p_value
        for a, b in itertools.combinations(successes, 2)
    }
    for (a, b), p in vector["p"].items():
        assert check_barnard(successes[a], successes[b], n, p) == p_values[a, b]
    assert compact_letters(p_values, correction="holm") == vector["holm"]
    assert compact_letters(p_values, correction="bonferroni") == vector["bonferroni"]


def outcomes(words: str) -> list[int]:
    """ "9 ones, 1 zero (...)" as 0 and 1."""
    runs = re.findall(r"(\d+) (one|zero)", words)
    return [int(kind == "one") for count, kind in runs for _ in range(int(count))]


def test_prediction_powered():
    vector = VECTORS["prediction_powered"]
    samples = outcomes(vector["Y"]), outcomes(vector["F"]), outcomes(vector["U"])
    assert [len(sample) for sample in samples] == [20, 20, 100]
    confidence = 1 - float(vector["alpha"])

    found = prediction_powered_mean(*samples, confidence)
    tuned = vector["ppi_plus_plus"]
    for value, printed in zip(
        (found.lam, found.estimate, found.low, found.high),
        (tuned["lambda"], tuned["estimate"], *tuned["ci"]),
        strict=True,
    ):
        check(value, printed)
    alone = found.real_only
    for value, printed in zip(
        (alone.rate, alone.low, alone.high), vector["real_only"], strict=True
    ):
        check(value, printed)

    believed = prediction_powered_mean(*samples, confidence, lam=1.0)
    for value, printed in zip(
        (believed.estimate, believed.low, believed.high), vector["lambda_1"], strict=True
    ):
        check(value, printed)

    control = prediction_powered_mean(*samples, confidence, method="control-variate")
    check(control.lam, vector["control_variate"]["beta"])
    check(control.estimate, vector["control_variate"]["estimate"])
    check(control.standard_error, vector["control_variate"]["se"])


def test_rogan_gladen():
    with_counts, from_table = VECTORS["rogan_gladen"]
    found = rogan_gladen(
        float(with_counts["observed"]),
        float(with_counts["sensitivity"]),
        float(with_counts["specificity"]),
        trials=float(with_counts["n"]),
        positives=float(with_counts["m1"]),
        negatives=float(with_counts["m0"]),
    )
    check(found.rate, with_counts["estimate"])
    check(found.low, with_counts["lee_interval"][0])
    check(found.high, with_counts["lee_interval"][1])
    judge = JudgeCalibration.from_counts(
        true_success=int(from_table["TP"]),
        false_success=int(from_table["FP"]),
        false_failure=int(from_table["FN"]),
        true_failure=int(from_table["TN"]),
    )
    observed = float(from_table["observed"])
    check(rogan_gladen(observed, judge.sensitivity, judge.specificity).rate, from_table["estimate"])


def test_rollouts_needed():
    vector = VECTORS["rollouts_needed_per_arm"]
    power, alpha = float(vector["power"]), float(vector["alpha"])
    pairs = {key: value for key, value in vector.items() if "v" in key}
    assert len(pairs) == 3
    for key, needed in pairs.items():
        p1, p2 = map(float, key.split("v"))
        assert rollouts_needed(p1, p2, power, alpha) == needed
