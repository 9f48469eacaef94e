"""An assessment in plain sentences and as tables for a terminal.

In: an ``Assessment``. Out: sentences (which the page of the same assessment uses too), and lines of
at most about 100 columns without colour.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.judge_calibration.assessment import Assessment
from worldeval.judge_calibration.error_rates import ErrorRates, negatives, positives
from worldeval.judge_calibration.raters import Coefficient, RaterAgreement
from worldeval.judge_calibration.thresholds import Threshold
from worldeval.ranking.intervals import Estimate
from worldeval.terminal import printable

NAME_WIDTH = 32
THRESHOLDS = {
    "as judged": "as judged",
    "precise": "surest, may abstain",
    "steady": "steadiest, one cut",
}


def to_text(assessment: Assessment, *, unicode: bool = True) -> str:
    """Sentences, then rates per policy and task, reliability, thresholds and raters."""
    lines = [*summary(assessment), ""]
    lines += table(RATE_HEADS, rate_rows(assessment), unicode=unicode)
    if assessment.reliability is not None:
        lines += ["", reliability_sentence(assessment)]
    if assessment.thresholds:
        lines += ["", "What other cuts of the probability would give on these rollouts:"]
        lines += table(THRESHOLD_HEADS, threshold_rows(assessment.thresholds), unicode=unicode)
        lines.append("corrected rate ±: its standard error, over as many rollouts")
    if assessment.raters is not None:
        lines += ["", "Agreement between raters, beyond chance (1 perfect, 0 none):"]
        lines += table(RATER_HEADS, rater_rows(assessment.raters), unicode=unicode)
    lines += ["", *assessment.notes] if assessment.notes else []
    text = "\n".join(lines)
    return text if unicode else text.encode("ascii", "replace").decode()


def summary(assessment: Assessment) -> list[str]:
    """What a reader should know first."""
    pooled = assessment.rates()
    counts = pooled.counts
    said = [
        f"{assessment.judge} against {assessment.truth}: {counts.total} rollouts "
        f"({', '.join(world or 'world not named' for world in assessment.worlds)}) of "
        f"{_many(len(assessment.policies), 'policy', 'policies')} on "
        f"{_many(len(assessment.tasks), 'task', 'tasks')}.",
        f"It calls {spell(pooled.sensitivity)} of the true successes a success and "
        f"{spell(pooled.specificity)} of the true failures a failure; "
        f"{100 * counts.abstention:.0f} % it leaves undecided.",
    ]
    said += _weakest(assessment)
    said += _between(assessment)
    if pooled.sensitivity and pooled.specificity:
        skill = pooled.sensitivity.rate + pooled.specificity.rate - 1
        if skill <= 0:
            said.append(
                "That is no better than a coin: its rates cannot be corrected, retrain or replace "
                "it."
            )
        else:
            said.append(
                f"Correcting a rate for these errors widens its interval about {1 / skill:.1f} "
                "times."
            )
    return said


def _between(assessment: Assessment) -> list[str]:
    """How far the error rates of policies lie apart, beyond chance."""
    if len(assessment.policies) < 2:
        return [
            "Only one policy was calibrated, so how far the judge's errors differ between policies "
            "is unknown."
        ]
    spread = assessment.spread_between_policies()
    if spread is None:
        return []
    return [
        f"Between policies its errors differ: by about {100 * spread[0]:.0f} points on true "
        f"successes and {100 * spread[1]:.0f} on true failures (standard deviation beyond chance)."
    ]


def _weakest(assessment: Assessment) -> list[str]:
    """The task on which it is nearest to a coin."""
    known = [
        (rates.sensitivity.rate + rates.specificity.rate, task, rates)
        for task in assessment.tasks
        for rates in [assessment.rates(tasks=[task])]
        if rates.sensitivity is not None and rates.specificity is not None
    ]
    if len(known) < 2:
        return []
    _, task, rates = min(known, key=lambda row: row[:2])
    return [
        f"Its weakest task is {task}: {spell(rates.sensitivity)} and {spell(rates.specificity)}."
    ]


def reliability_sentence(assessment: Assessment) -> str:
    table = assessment.reliability
    assert table is not None
    return (
        f"Its probabilities are off by {100 * table.ece:.1f} points on average (expected "
        f"calibration error); Brier score {table.brier:.3f} (0 is best, 0.25 is a coin)."
    )


RATE_HEADS = (
    "", "true successes", "called so", "interval", "true failures", "called so", "interval",
    "undecided",
)  # fmt: skip


def rate_rows(assessment: Assessment) -> list[list[str]]:
    """One row for all, each world where there are several, each policy and each task."""
    rows = [_rate_row("all", assessment.rates())]
    if len(assessment.worlds) > 1:
        rows += [_rate_row(f"in {w}", assessment.rates(worlds=[w])) for w in assessment.worlds]
    rows += [[""] * len(RATE_HEADS)]
    rows += [_rate_row(name, assessment.rates(policy=name)) for name in assessment.policies]
    rows += [[""] * len(RATE_HEADS)]
    return rows + [_rate_row(task, assessment.rates(tasks=[task])) for task in assessment.tasks]


def _rate_row(name: str, rates: ErrorRates) -> list[str]:
    counts = rates.counts
    left = counts.undecided_positive + counts.undecided_negative
    return [
        name,
        str(positives(counts)),
        *_rate(rates.sensitivity),
        str(negatives(counts)),
        *_rate(rates.specificity),
        str(left) if left else "",
    ]


THRESHOLD_HEADS = (
    "", "failure below", "success from", "success right", "failure right", "undecided",
    "corrected rate ±",
)  # fmt: skip


def threshold_rows(thresholds: Sequence[Threshold]) -> list[list[str]]:
    return [
        [
            THRESHOLDS[t.name] + ("" if t.reached else " (not reached)"),
            "" if t.lower is None else f"{t.lower:.3f}",
            "" if t.upper is None else f"{t.upper:.3f}",
            percent(t.precision),
            percent(t.rejection),
            percent(t.abstention),
            "-" if t.standard_error is None else f"{100 * t.standard_error:.1f} points",
        ]
        for t in thresholds
    ]


RATER_HEADS = ("", "coefficient", "", "interval", "rollouts", "say the same")


def rater_rows(raters: RaterAgreement) -> list[list[str]]:
    rows = [["all raters", "Krippendorff's alpha", *_coefficient(raters.alpha), ""]]
    return rows + [
        [
            f"{pair.first}, {pair.second}",
            "Cohen's kappa",
            *_coefficient(pair.kappa),
            percent(pair.same),
        ]
        for pair in raters.pairs
    ]


def _coefficient(c: Coefficient) -> list[str]:
    bounds = "" if c.low is None or c.high is None else f"[{c.low:.2f}, {c.high:.2f}]"
    return ["-" if c.value is None else f"{c.value:.2f}", bounds, str(c.rollouts)]


def spell(estimate: Estimate | None) -> str:
    """``91 % [87, 94]``; a dash where nothing could show it."""
    if estimate is None:
        return "an unknown share"
    return " ".join(_rate(estimate))


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _rate(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["-", ""]
    return [percent(estimate.rate), f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, unicode: bool) -> list[str]:
    """Lines of a table: names to the left, all else to the right."""
    cells = [[_plain(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], ("─" if unicode else "-") * max(map(len, lines)), *lines[1:]]


def _plain(name: str) -> str:
    """Control characters out (a policy's name must not move the cursor), long names cut."""
    clean = printable(name)
    return clean if len(clean) <= 2 * NAME_WIDTH else clean[: 2 * NAME_WIDTH - 1] + "~"


def _many(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
