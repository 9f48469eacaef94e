"""Do the intervals cover, and do the tests keep their word? Simulated, and written as tables.

    python benchmarks/coverage.py [--draws N] [--seed S] [--out benchmarks/coverage.md]

Every setting draws experiments from known rates, calls the public function of ``worldeval.ranking``
on each, and counts how often the 95 % interval holds the true value (``simulated_intervals.py``),
or how often a test speaks though there is nothing to see (``simulated_tests.py``). Settings are
sizes that laboratories use: 10 to 200 trials per policy, 20 to 100 true trials beside 200 to 2000
imagined ones. About one minute on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from simulated_intervals import (
    judged,
    newcombe,
    powered_difference,
    powered_mean,
    stopped_difference,
    wilson,
)
from simulated_tests import (
    ALPHA,
    UNSURE,
    Row,
    Saving,
    best_alarms,
    order_alarms,
    paired_alarms,
    savings,
    sequential_alarms,
)

TOLERANCE = 0.015
"""Asked of the mean coverage over the settings of a kind."""

INTERVALS: dict[str, tuple[Callable[[np.random.Generator, int], list[Row]], float]] = {
    "Wilson": (wilson, 1.0),
    "Difference (Newcombe)": (newcombe, 1.0),
    "Prediction-powered mean, Wilson": (partial(powered_mean, method="wilson"), 0.5),
    "Prediction-powered mean, as published": (partial(powered_mean, method="normal"), 0.5),
    "Prediction-powered difference, Wilson": (partial(powered_difference, method="wilson"), 0.5),
    "Prediction-powered difference, as published": (
        partial(powered_difference, method="normal"),
        0.5,
    ),
    "Judge-corrected (Rogan-Gladen, Lee)": (judged, 0.5),
    "Difference of a pair that was stopped (confidence sequence)": (stopped_difference, 0.1),
}
"""Kind -> (its settings, share of the draws: an interval of thousands of different results is
computed for each of them)."""

FOREIGN = "Turner and Grünwald's bet, which is for independent pairs only"
ALARMS: dict[str, tuple[Callable[[np.random.Generator, int], list[Row]], float]] = {
    "Paired test, fixed n": (paired_alarms, 1.0),
    "Sequential comparison, looked at after every pair": (sequential_alarms, 0.5),
    "Order of several policies, any wrong decision": (order_alarms, 0.5),
    "Search for the best policy, dropped": (best_alarms, 0.5),
    FOREIGN: (partial(sequential_alarms, method="turner-grunwald"), 0.5),
}
"""False alarms at alpha 0.05; all but the last must stay below it."""


def run_all(draws: int, seed: int) -> dict[str, list[Row]]:
    """Every kind of interval and test, each with a generator of its own."""
    kinds = {**INTERVALS, **ALARMS}
    seeds = np.random.SeedSequence(seed).spawn(len(kinds))
    return {
        kind: simulate(np.random.default_rng(child), max(1, round(draws * share)))
        for (kind, (simulate, share)), child in zip(kinds.items(), seeds, strict=True)
    }


def page(results: dict[str, list[Row]], saved: Sequence[Saving], draws: int, head: str) -> str:
    """The tables as markdown."""
    lines = ["# Do the intervals cover?", "", head, "", "## Coverage of 95 % intervals", ""]
    lines += [
        f"Asked: a mean over the settings of 95 % +- {TOLERANCE:.1%}. The worst setting is named: "
        "with few trials, and rates near 0 or 1, an interval can only take few values and its "
        "coverage jumps from setting to setting; no interval of this kind holds 95 % in each.",
        "",
        "| interval | settings | mean | lowest | highest | as asked |",
        "|---|---|---|---|---|---|",
    ]
    for kind in INTERVALS:
        rows = results[kind]
        mean = float(np.mean([row.share for row in rows]))
        lowest, highest = min(rows, key=_share), max(rows, key=_share)
        good = abs(mean - 0.95) <= TOLERANCE
        verdict = "yes" if good else "on the safe side" if mean > 0.95 else "**no**"
        lines.append(
            f"| {kind} | {len(rows)} | {mean:.1%} | {lowest.share:.1%} ({lowest.setting}) | "
            f"{highest.share:.1%} | {verdict} |"
        )
    lines += ["", "## False alarms at alpha 0.05", ""]
    lines += [
        "| test | settings | mean | highest | below alpha (within three standard errors) |",
        "|---|---|---|---|---|",
    ]
    for kind in ALARMS:
        rows = results[kind]
        mean, highest = float(np.mean([row.share for row in rows])), max(rows, key=_share)
        chance = 3 * np.sqrt(ALPHA * (1 - ALPHA) / (draws * ALARMS[kind][1]))
        verdict = "yes" if highest.share <= ALPHA + chance else "**no**"
        lines.append(
            f"| {kind} | {len(rows)} | {mean:.1%} | {highest.share:.1%} ({highest.setting}) | "
            f"{verdict} |"
        )
    lines += ["", *(f"- {text}" for text in REMARKS)]
    lines += ["", "## Rollouts saved by looking after each", "", saved_text(saved), ""]
    lines += [
        "| rates | start states | formula, independent | fixed n, known difference | sequential, "
        f"same power (mean, at most) | saved | sequential up to {UNSURE} (mean, decided) | saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in saved:
        a, b = row.rates
        lines.append(
            f"| {a} v {b} | {row.dependence} | {row.formula} | {row.fixed} | {row.mean:.0f}, "
            f"{row.cap} | {1 - row.mean / row.fixed:.0%} | {row.open_mean:.0f}, "
            f"{row.open_power:.0%} | {1 - row.open_mean / UNSURE:.0%} |"
        )
    lines += ["", "## Every setting", ""]
    for kind, rows in results.items():
        lines += [f"<details><summary>{kind}</summary>", "", "| setting | share |", "|---|---|"]
        lines += [f"| {row.setting} | {row.share:.1%} |" for row in rows]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


REMARKS = (
    "*Wilson* and *Newcombe* fall lowest where a rate is near 0 or 1 and trials are few: with 10 "
    "trials at a rate of 0.05 the only results are 0, 1, 2 or 3 successes, and whether each "
    "interval holds 0.05 is a matter of the grid.",
    "*Prediction-powered, as published* is a normal approximation with a fitted weight: below "
    "about 60 true trials it is too narrow, and at 20 of them far too narrow. That is the method, "
    'not its code (the published numbers are reproduced). `method="wilson"`, with the same '
    "estimate, is what to use; its lowest settings, too, are those of the fewest trials.",
    "*Difference of a pair that was stopped* holds at all times at once, and so more than 95 % at "
    "the one at which it is read.",
    "*Turner and Grünwald's bet* multiplies likelihoods of independent outcomes. Rollouts from the "
    "same start states are not independent; where one policy tends to fail where the other "
    "succeeds, it cries wolf. It is here to show why `worldeval` bets on differences instead.",
)
SAVED = (
    "80 % power, alpha 0.05, two-sided, start states a policy. The fixed n is that of the exact "
    "paired test for **this very difference**, which nobody knows beforehand: against it, to look "
    "after each start state saves {known}. Who does not know it plans for a small one "
    "({unsure} start states, .5 v .6): against that it saves {unknown}. *positive*: half of the "
    "start states share their luck, as rollouts from the same scenes do."
)


def saved_text(saved: Sequence[Saving]) -> str:
    known = [1 - row.mean / row.fixed for row in saved]
    unknown = [1 - row.open_mean / UNSURE for row in saved]
    return SAVED.format(
        known=f"{min(known):.0%} to {max(known):.0%}",
        unknown=f"{min(unknown):.0%} to {max(unknown):.0%}",
        unsure=UNSURE,
    )


def _share(row: Row) -> float:
    return row.share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    began = time.perf_counter()
    results = run_all(options.draws, options.seed)
    rng = np.random.default_rng(np.random.SeedSequence((options.seed, 1)))
    saved = savings(rng, max(100, options.draws // 4))
    head = (
        f"`python benchmarks/coverage.py --draws {options.draws} --seed {options.seed}`: "
        f"{options.draws} simulated experiments a setting (fewer of the slow kinds, never under "
        f"{options.draws // 10}; a share of 95 % then has a standard error of "
        f"{np.sqrt(0.95 * 0.05 / options.draws):.1%} to "
        f"{np.sqrt(0.95 * 0.05 / (options.draws / 10)):.1%})."
    )
    options.out.write_text(page(results, saved, options.draws, head), encoding="utf-8")
    print(f"{options.out}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
