"""How often judges are right on true and on imagined rollouts, and what correcting for it is worth.

    .venv/bin/python benchmarks/judges.py --judge checkpoints/judge --judge checkpoints/progress \\
        --true RUNS/cal-true --imagined RUNS/cal --ranked RUNS/full --against truth.parquet \\
        --keep RUNS/judged

true, imagined: the same policies and start states carried out in the true world and imagined; they
calibrate. ranked: imagined rollouts from other start states, whose rates are corrected; against:
what truly happened there. Verdicts are kept in --keep, so that no judge is asked twice.

Prints markdown: sensitivity and specificity per judge, task and policy, and the mean absolute error
of raw rates and of rates corrected by Rogan & Gladen with error rates that are

- pooled: over all calibrated rollouts;
- own: of the policy alone (none where the judge then is no better than a coin);
- shrunken: what ``worldeval rank --calibration`` does for a calibrated policy;
- of others: pooled over the other policies, as if this one had not been calibrated;
- by task: of the other policies, task by task, what ``worldeval rank --calibration`` does for a
  policy that was not calibrated (``ranking.PeerErrors``).

Two rates stand beside them as controls, means of two others: half way (raw, of others) shows what a
smaller step alone is worth, both (shrunken, by task) what putting the two kinds together is.

Other choices of start states are choices among the same policies: that a method is nearer in all of
them says little of other policies. The gain is given with its standard error over policies.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from worldeval.data import tables
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import read_parquet
from worldeval.evaluation.folder import read_truth
from worldeval.evaluation.opening import stores_in
from worldeval.judge_calibration import Assessment
from worldeval.judge_calibration.assessing import assess
from worldeval.judging.loading import load_judge
from worldeval.judging.tables import judge_store, kept_path
from worldeval.ranking import Estimate, JudgeCalibration, PeerErrors, mmrv
from worldeval.ranking.outcome_counts import OutcomeCounts
from worldeval.reports.judge.text import spell
from worldeval.types import Judge

CELL = list(tables.CELL)
METHODS = ("raw", "pooled", "own", "shrunken", "of others", "by task", "half way", "both")
INTERVALS = ("shrunken", "by task")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", action="append", required=True, help="as for `worldeval judge`")
    for name in ("true", "imagined", "ranked", "against", "keep"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=40, help="other choices of start states")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    truth, against = read_truth(options.true), read_truth(options.against)
    found: dict[str, dict[str, Assessment]] = {}
    worth = []
    for uri in options.judge:
        judge = load_judge(uri)
        said = {
            name: verdicts(judge, getattr(options, name), options.keep)
            for name in ("true", "imagined", "ranked")
        }
        found[judge.name] = {
            "true": assess(said["true"], truth),
            "imagined": assess(said["imagined"], truth),
        }
        worth.append((judge.name, *value(said, truth, against, options.splits)))
    print_errors(found)
    for name, table, others in worth:
        print_value(name, table, others)


def verdicts(judge: Judge, folder: Path, keep: Path) -> pd.DataFrame:
    """The judge's table on all rollouts of a folder, from ``keep`` where it is there."""
    tables = []
    for place in stores_in(folder):
        # Stores of different runs have the same names.
        digest = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:8]
        path = kept_path(judge.name, keep / f"{place.name}-{digest}")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            judge_store(judge, EpisodeStore.open(place), path)
        tables.append(read_parquet(path))
    return pd.concat(tables, ignore_index=True)


def value(
    said: Mapping[str, pd.DataFrame], truth: pd.DataFrame, against: pd.DataFrame, splits: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rates of the ranked policies by each method, and those of other choices of start states.

    The second: one row per policy and split of all start states into as many for calibration as
    there were and the others, which are ranked.
    """
    sides = [joined(said["imagined"], truth), joined(said["ranked"], against)]
    every = pd.concat(sides, ignore_index=True)
    starts = {task: rows["start_id"].unique() for task, rows in every.groupby("task")}
    of_calibration = sides[0].groupby("task")["start_id"].nunique()
    rng = np.random.default_rng(0)
    others = []
    for split in range(splits):
        chosen = {
            start
            for task, names in starts.items()
            for start in rng.choice(names, of_calibration[task], replace=False)
        }
        inside = every["start_id"].isin(chosen)
        others.append(corrected(every[inside], every[~inside]).assign(split=split))
    return corrected(*sides), pd.concat(others) if others else pd.DataFrame()


def joined(said: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """Verdicts beside the truth; every rollout must have one."""
    table = said.merge(true[[*CELL, "outcome"]], on=CELL, suffixes=("", "_true"), how="left")
    assert table["outcome_true"].isin(tables.DECIDED).all()
    return table


def corrected(calibration: pd.DataFrame, ranked: pd.DataFrame) -> pd.DataFrame:
    """One row per policy: the true rate and the rate by each method."""
    whole = assessed(calibration)
    pooled = of_counts(whole)
    errors = whole.errors_for(whole.policies)
    rows = []
    for policy, rollouts in ranked.groupby("policy"):
        name = str(policy)
        decided = rollouts[rollouts["outcome"].isin(tables.DECIDED)]
        raw, n = (decided["outcome"] == "success").mean(), len(decided)
        own = errors.get(name)
        assert not isinstance(own, PeerErrors)
        shrunken = fix(raw, n, own)
        others = assessed(calibration[calibration["policy"] != policy])
        peers = others.errors_for([name])[name]
        assert isinstance(peers, PeerErrors)
        by_task = peers.correct(tallies(decided))
        row = {
            "policy": name,
            "true": (rollouts["outcome_true"] == "success").mean(),
            "raw": raw,
            "pooled": rate(fix(raw, n, pooled)),
            "own": rate(fix(raw, n, of_counts(whole, policy=name))),
            "shrunken": rate(shrunken),
            "of others": rate(fix(raw, n, of_counts(others))),
            "by task": by_task.rate,
        }
        row["half way"] = (row["raw"] + row["of others"]) / 2
        row["both"] = (row["shrunken"] + row["by task"]) / 2
        for method, estimate in zip(INTERVALS, (shrunken, by_task), strict=True):
            row[f"{method} low"] = estimate.low if estimate else np.nan
            row[f"{method} high"] = estimate.high if estimate else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def assessed(table: pd.DataFrame) -> Assessment:
    truth = table[CELL].assign(outcome=table["outcome_true"])
    # Thresholds are not needed here, and cost most of the time.
    return assess(table.drop(columns=["outcome_true", "probability"]), truth)


def of_counts(found: Assessment, policy: str | None = None) -> JudgeCalibration | None:
    counts = found.counts(policy=policy)
    positives = counts.true_positive + counts.false_negative
    negatives = counts.true_negative + counts.false_positive
    if not positives or not negatives or counts.sensitivity + counts.specificity <= 1:
        return None
    return JudgeCalibration(
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        positives=positives,
        negatives=negatives,
    )


def tallies(decided: pd.DataFrame) -> dict[str, OutcomeCounts]:
    return {
        str(task): OutcomeCounts(
            successes=int((rows["outcome"] == "success").sum()),
            failures=int((rows["outcome"] == "failure").sum()),
        )
        for task, rows in decided.groupby("task")
    }


def fix(raw: float, trials: int, judge: JudgeCalibration | None) -> Estimate | None:
    return None if judge is None else judge.correct(raw * trials, trials)


def rate(estimate: Estimate | None) -> float:
    return np.nan if estimate is None else estimate.rate


def error(table: pd.DataFrame, method: str) -> float:
    """Mean absolute error over the policies that the method has a rate for."""
    return float((table[method] - table["true"]).abs().mean())


def print_errors(found: Mapping[str, Mapping[str, Assessment]]) -> None:
    print("## Judges\n\nTrue successes called a success, true failures called a failure (95 %).\n")
    print("| judge | rollouts | | true successes | true failures | undecided | Brier | ECE |")
    print("|---|---|---|---|---|---|---|---|")
    for judge, sides in found.items():
        for side, one in sides.items():
            rates, table = one.rates(), one.reliability
            sure = f"{table.brier:.3f} | {table.ece:.3f}" if table else "| "
            print(
                f"| {judge} | {side} | {rates.counts.total} | {spell(rates.sensitivity)} | "
                f"{spell(rates.specificity)} | {100 * rates.counts.abstention:.1f} % | {sure} |"
            )
    first = next(iter(found.values()))["true"]
    for kind, names in (("task", first.tasks), ("policy", first.policies)):
        columns = [(judge, side) for judge, sides in found.items() for side in sides]
        print(f"\n| {kind} | " + " | ".join(f"{j.split('@')[0]}, {s}" for j, s in columns) + " |")
        print("|---" * (len(columns) + 1) + "|")
        for name in names:
            cells = []
            for judge, side in columns:
                chosen = {"tasks": [name]} if kind == "task" else {"policy": name}
                c = found[judge][side].counts(**chosen)
                cells.append(
                    f"{c.true_positive}/{c.true_positive + c.false_negative} "
                    f"{c.true_negative}/{c.true_negative + c.false_positive}"
                )
            print(f"| {name} | " + " | ".join(cells) + " |")


def print_value(judge: str, table: pd.DataFrame, others: pd.DataFrame) -> None:
    print(f"\n## Rates corrected for the errors of {judge}\n")
    heads = [*METHODS, *(f"95 % of {method}" for method in INTERVALS)]
    print("| policy | true | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 2) + "|")
    for row in table.to_dict("records"):
        cells = ["–" if np.isnan(row[m]) else f"{100 * row[m]:.0f}" for m in METHODS]
        cells += [f"{100 * row[f'{m} low']:.0f}–{100 * row[f'{m} high']:.0f}" for m in INTERVALS]
        print(f"| {row['policy']} | {100 * row['true']:.0f} | " + " | ".join(cells) + " |")
    print("\n| rate | mean absolute error | bias | Pearson | MMRV | policies |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        known = table[table[method].notna()]
        real, predicted = known["true"].to_numpy(), known[method].to_numpy()
        print(
            f"| {method} | {error(table, method):.4f} | {(predicted - real).mean():+.4f} | "
            f"{np.corrcoef(real, predicted)[0, 1]:.3f} | {mmrv(real, predicted):.3f} | "
            f"{len(known)} |"
        )
    print("\n" + said_of_coverage(table))
    if len(others):
        print_splits(others)


def print_splits(others: pd.DataFrame) -> None:
    splits = others.groupby("split")
    print(f"\nOver {splits.ngroups} other choices of the start states for calibration:\n")
    print("| rate | mean absolute error | nearer than raw | gain on raw ± s.e. over policies |")
    print("|---|---|---|---|")
    raw = (others["raw"] - others["true"]).abs()
    for method in METHODS:
        off = (others[method] - others["true"]).abs()
        mean, of_raw = off.groupby(others["split"]).mean(), raw.groupby(others["split"]).mean()
        gain = (raw - off).groupby(others["policy"]).mean().dropna()
        said = f"{100 * (mean < of_raw).mean():.0f} % | {gain.mean():+.3f} ± {gain.sem():.3f}"
        print(f"| {method} | {mean.mean():.4f} | {' | ' if method == 'raw' else said} |")
    print("\n" + said_of_coverage(others))


def said_of_coverage(table: pd.DataFrame) -> str:
    said = []
    for method in INTERVALS:
        low, high = table[f"{method} low"], table[f"{method} high"]
        inside = ((low <= table["true"]) & (table["true"] <= high)).sum()
        said.append(f"{inside} of {low.notna().sum()} ({method}, {(high - low).mean():.2f} wide)")
    return f"True rates within the interval: {', '.join(said)}."


if __name__ == "__main__":
    main()
