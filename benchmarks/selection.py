"""What choosing a checkpoint by imagination costs: regret of the best of N, with intervals.

    worldeval train policy --store recordings/training --out runs/selection/policy \\
        --keep runs/selection/steps --loop.steps 1000 --loop.validate-every 20
    worldeval rollout --world metaworld --policy runs/selection/steps/step-00020 ... --out TRUE
    worldeval rollout --policy runs/selection/steps/step-00020 ... --out IMAGINED
    worldeval judge IMAGINED
    python benchmarks/selection.py --true TRUE --imagined IMAGINED

Regret is the true rate of the best of N checkpoints minus that of the one chosen, averaged over
which N of all are at hand. "by true trials" chooses by half of the true start states and is paid by
the other half: what as many true rollouts would cost. Both are measured on that other half, so that
neither profits from its own luck, and averaged over random halves. Prints markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from worldeval.evaluation.folder import read_truth, read_verdicts
from worldeval.ranking.selection_regret import selection_regret

CHOICES = (2, 5, 10, 25, 50)
HALVES = 40


def outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """Policies by start states: 1 success, 0 failure, NaN undecided."""
    table = table[table["outcome"].isin(["success", "failure"])]
    return table.assign(score=(table["outcome"] == "success") * 1.0).pivot_table(
        index="policy", columns=["task", "start_id"], values="score"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--true", type=Path, required=True)
    parser.add_argument("--imagined", type=Path, required=True)
    given = parser.parse_args()
    true, imagined = outcomes(read_truth(given.true)), outcomes(read_verdicts(given.imagined))
    whole = imagined.index[imagined.notna().all(axis=1)]  # rolled out from every start state
    names = sorted(set(true.index) & set(whole))
    true, imagined = true.loc[names], imagined.loc[names]
    predicted, real = imagined.mean(axis=1).to_numpy(), true.mean(axis=1).to_numpy()
    order = pd.DataFrame({"imagined": predicted, "true": real})
    print(
        f"{len(names)} checkpoints, {true.shape[1]} true and {imagined.shape[1]} imagined rollouts "
        f"each; true rates {100 * real.min():.0f} to {100 * real.max():.0f} %; Pearson "
        f"{order.corr().iloc[0, 1]:.3f}, Spearman {order.corr('spearman').iloc[0, 1]:.3f}\n"
    )
    rng, columns = np.random.default_rng(0), true.shape[1]
    halves = [rng.permutation(columns) for _ in range(HALVES)]
    print("| best of | regret, by imagination | by half of the true trials | blindly |")
    print("|---|---|---|---|")
    for choices in (n for n in CHOICES if n <= len(names)):
        rows = []
        for half in halves:
            seen = true.iloc[:, half[: columns // 2]].mean(axis=1).to_numpy()
            paid = true.iloc[:, half[columns // 2 :]].mean(axis=1).to_numpy()
            dreamt, tried = (
                selection_regret(paid, scores, choices, draws=100) for scores in (predicted, seen)
            )
            interval = (dreamt.regret, dreamt.low, dreamt.high)
            rows.append((*interval, tried.regret, dreamt.random_regret))
        regret, low, high, by_trials, blind = 100 * np.mean(rows, axis=0)
        print(
            f"| {choices} | {regret:.1f} [{low:.1f}, {high:.1f}] | {by_trials:.1f} | {blind:.1f} |"
        )


if __name__ == "__main__":
    main()
