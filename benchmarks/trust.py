"""What the signals of trust are worth on the embedded world, as markdown.

Weights and threshold are chosen on the rollouts of one set of start states and used on another::

    python benchmarks/trust.py --calibrate-on RUNS --their-truth TRUTH [--their-acted RUNS] \\
        --test-on RUNS --truth TRUTH [--acted RUNS] [--again RUNS] --checkpoint TRUST --out OUT

RUNS are folders of imagined, judged rollouts; --acted the tested ones' actions carried out in the
true world (--their-acted those of the others), --again the tested ones' actions imagined with
another seed. The last table asks what groups of
signals are worth by themselves, each policy by weights and a choice of signals made without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from worldeval.commands.trust import Trust
from worldeval.data.checkpoint import digest
from worldeval.evaluation.folder import read_truth
from worldeval.evaluation.opening import stores_in
from worldeval.imagination.trust.calibration import (
    Evidence,
    rate_errors,
    signals_in,
    threshold_for,
)
from worldeval.imagination.trust.combining import (
    VERDICTS,
    fit_combination,
    held_out_distrust,
)
from worldeval.imagination.trust.measuring import counting
from worldeval.metrics.roc import auroc
from worldeval.reports.trust import rates_table

GROUPS = {
    "the judge's doubt": ("judge_doubt",),
    "inverse dynamics": ("motion", "place", "views"),
    "distance from the training data": ("pose_distance", "latent"),
    "sharpness and jumps": ("blur", "jump"),
    "spread over seeds": ("seeds",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("calibrate-on", "their-truth", "test-on", "truth", "checkpoint", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("their-acted", "acted", "again"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    settings = {"checkpoint": given.checkpoint, "threads": given.threads}
    print("## Where the weights were fitted\n")
    Trust(folder=given.calibrate_on, truth=given.their_truth, out=given.out, **settings).run()
    print("\n## On other start states\n")
    tested = Trust(
        folder=given.test_on,
        again=(given.again,) if given.again else (),
        calibration=given.out,
        truth=given.truth,
        acted=given.acted,
        **settings,
    )
    tested.run()
    fitted = evidence_of(Trust(folder=given.calibrate_on, **settings), given.their_truth)
    print("\n## Policies and start states that the weights have not seen\n")
    plain = Trust(folder=given.test_on, **settings)
    print(crossed(fitted, evidence_of(plain, given.truth)))
    print("\n## Groups of signals by themselves\n")
    print(groups_table(evidence_of(tested, given.truth)))


def evidence_of(verb: Trust, truth: Path) -> Evidence:
    """The signals of a folder, which are on the disk by now, and what truly happened."""
    stores = stores_in(verb.folder)
    measuring = verb._measuring(stores, digest(verb.checkpoint))
    found = [measuring.store(place) for place in stores]
    return measuring.evidence(
        stores, [table for table, _ in found], [chunks for _, chunks in found], read_truth(truth)
    )


def choice_among(signals: list[str]) -> Callable[[pd.DataFrame, np.ndarray], dict[str, list[str]]]:
    return lambda table, wrong: {v: counting(table, wrong, signals, v) for v in VERDICTS}


def crossed(fitted: Evidence, tested: Evidence) -> str:
    """Each policy of ``tested`` by weights fitted to the other policies of ``fitted``."""
    wrong = fitted.wrong()
    known = np.isfinite(wrong)
    table, labels = fitted.table[known].reset_index(drop=True), wrong[known] == 1
    choose = choice_among(signals_in(table))
    policies = table["policy"].to_numpy()
    threshold = threshold_for(held_out_distrust(table, labels, choose, policies))
    distrust = np.full(len(tested.table), np.nan)
    for policy in np.unique(policies):
        others = policies != policy
        signals = choose(table[others], labels[others])
        here = (tested.table["policy"] == policy).to_numpy()
        combination = fit_combination(table[others], labels[others], signals)
        distrust[here] = combination.distrust(tested.table[here])
    known = np.isfinite(distrust)
    worth = auroc(distrust[known], tested.wrong()[known] == 1)
    rates = rate_errors(tested.table.assign(trusted=~(distrust > threshold)), tested.truth)
    return f"AUROC of wrong verdicts {worth:.3f}\n\n{rates_table(rates)}"


def groups_table(evidence: Evidence) -> str:
    """One row per group of signals: held-out AUROC, rates without the least trusted fifth."""
    rows = [
        "| signals | AUROC of wrong verdicts | mean absolute error of the rates | removed |",
        "|---|---|---|---|",
    ]
    wrong = evidence.wrong()
    known = np.isfinite(wrong)
    table, labels = evidence.table[known].reset_index(drop=True), wrong[known] == 1
    everything = signals_in(table)
    chosen = {
        name: [signal for signal in everything if signal.startswith(starts)]
        for name, starts in GROUPS.items()
    }
    cheap = [signal for signal in everything if not signal.startswith("seeds")]
    groups = {**chosen, "all but seeds": cheap, "all": everything}
    for name, signals in groups.items():
        if not signals:
            continue
        choose = choice_among(signals)
        distrust = held_out_distrust(table, labels, choose, table["policy"].to_numpy())
        trusted = ~(distrust > threshold_for(distrust))
        rates = rate_errors(table.assign(trusted=trusted), evidence.truth)
        rows.append(
            f"| {name} | {auroc(distrust, labels):.3f} | {rates.all_rollouts:.2f} to "
            f"{rates.kept:.2f} points | {rates.removed} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
