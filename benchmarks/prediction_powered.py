"""Few true trials and many imagined ones: how narrow, and does it cover?

    .venv/bin/python benchmarks/prediction_powered.py runs/demo \
        --truth checkpoints/suite/truth.parquet

Takes a folder of judged imagined rollouts whose truth is known in full, keeps the truth of a share
of the start states (drawn anew each time, the same for all policies), and asks whether the joined
interval of each policy holds its true rate over all start states, and how much narrower it is than
Wilson's of these true trials alone. Prints markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from worldeval.evaluation.folder import read_truth, read_verdicts
from worldeval.ranking.prediction_powered_rates import prediction_powered_rates
from worldeval.ranking.verdict_table import Cell, pair_outcomes, read_outcomes
from worldeval.types import Outcome

Drawn = tuple[float, float, float, float, float]
"""joined covers, trials alone cover, joined width, width of trials alone, squared error"""


def resample(
    said: dict[Cell, Outcome],
    true: dict[Cell, Outcome],
    sure: dict[Cell, float],
    share: float,
    per_task: bool,
    rng: np.random.Generator,
) -> dict[str, Drawn]:
    starts = sorted({(cell[1], cell[2]) for cell in said})
    tasks = sorted({task for task, _ in starts})
    if per_task:
        chosen = set()
        for task in tasks:
            own = [start for kind, start in starts if kind == task]
            count = max(1, round(share * len(own)))
            chosen |= set(rng.choice(own, count, replace=False).tolist())
    else:
        names = [start for _, start in starts]
        count = round(share * len(names))
        chosen = set(rng.choice(names, count, replace=False).tolist())
    tried = {cell: outcome for cell, outcome in true.items() if cell[2] in chosen}
    drawn = {}
    for name, rate in prediction_powered_rates(said, tried, probabilities=sure).items():
        won = [o is Outcome.SUCCESS for cell, o in true.items() if cell[0] == name]
        truth, alone = float(np.mean(won)), rate.real_only
        drawn[name] = (
            rate.low <= truth <= rate.high,
            alone.low <= truth <= alone.high,
            rate.high - rate.low,
            alone.high - alone.low,
            rate.estimate - truth,
        )
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = read_verdicts(options.folder)
    said = read_outcomes(table, "imagined")
    true = pair_outcomes(said, read_outcomes(read_truth(options.truth), "true"))
    cells = zip(table["policy"], table["task"], table["start_id"], strict=True)
    sure = {
        cell: float(p)
        for cell, p in zip(cells, table["probability"], strict=True)
        if np.isfinite(p)
    }
    print("| start states chosen | covers | trials alone cover | narrower | worst policy covers |")
    print("|---|---|---|---|---|")
    for per_task in (False, True):
        rng = np.random.default_rng(options.seed)
        drawn = [
            resample(said, true, sure, options.share, per_task, rng) for _ in range(options.draws)
        ]
        values = np.array([[one[name] for name in sorted(one)] for one in drawn], float)
        joined, alone, width, before, _ = values.mean(axis=(0, 1))
        print(
            f"| {'the same number of every task' if per_task else 'at random'} | {joined:.3f} "
            f"| {alone:.3f} | {100 * (1 - width / before):.1f} % "
            f"| {values[..., 0].mean(axis=0).min():.3f} |"
        )


if __name__ == "__main__":
    main()
