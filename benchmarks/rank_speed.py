"""How long does `worldeval rank` take, from the command to the report?

    .venv/bin/python benchmarks/rank_speed.py --policies 20 --tasks 10 --rollouts 50

Writes verdicts of policies of many strengths on tasks of many difficulties, what truly happened,
a few true trials, trust, and task weights; then runs the whole command with nothing but rollouts,
with all of it, and with policies that were not imagined from the same start states. Prints a
Markdown table of seconds, seconds of computing (less than the former on a busy machine) and peak
memory (GiB) of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd


def write_inputs(place: Path, policies: int, tasks: int, rollouts: int, seed: int) -> None:
    """A folder of judged stores (their tables alone), and what can be known beside it."""
    rng = np.random.default_rng(seed)
    ability, ease = rng.normal(0, 1.2, policies), rng.normal(0, 1, tasks)
    rows = pd.DataFrame(
        {
            "policy": np.repeat([f"policy-{i:02d}" for i in range(policies)], tasks * rollouts),
            "task": np.tile(np.repeat([f"task-{j:02d}" for j in range(tasks)], rollouts), policies),
        }
    )
    start = np.tile(np.arange(rollouts), policies * tasks)
    rows["start_id"] = rows["task"] + "/" + pd.Series(start).map("{:04d}".format)
    rows["key"] = rows["policy"] + "/" + rows["start_id"]
    odds = np.repeat(ability, tasks * rollouts) + np.tile(np.repeat(ease, rollouts), policies)
    truly = rng.random(len(rows)) < 1 / (1 + np.exp(-odds))
    seen = np.where(rng.random(len(rows)) < 0.8, truly, ~truly)
    outcome = np.where(seen, "success", "failure").astype(object)
    outcome[rng.random(len(rows)) < 0.03] = "undecided"
    verdicts = rows.assign(world="imagination", judge="judge", outcome=outcome, probability=0.5)
    trust = rows.assign(distrust=0.0, trusted=rng.random(len(rows)) < 0.95)
    for name, part in verdicts.groupby("policy"):
        store = place / "rollouts" / name
        (store / "meta").mkdir(parents=True)
        (store / "meta" / "info.json").write_text("{}")
        part.to_parquet(store / "verdicts.parquet", index=False)
        trust.loc[part.index].to_parquet(store / "trust.parquet", index=False)
    true = rows.assign(world="metaworld", judge="world", outcome=np.where(truly, *OUTCOMES))
    true.to_parquet(place / "truth.parquet", index=False)
    true[start == 0].to_csv(place / "few.csv", index=False)
    weights = {f"task-{j:02d}": 1.0 + j for j in range(tasks)}
    (place / "weights.json").write_text(json.dumps(weights))
    # Every policy lacks another start state: no two can be paired.
    lacking = start != pd.factorize(rows["policy"])[0] % rollouts
    verdicts[lacking].to_parquet(place / "uneven.parquet", index=False)


OUTCOMES = ("success", "failure")


def measure(words: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of computing, and peak GiB of one command line."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "worldeval", *words], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"worldeval {' '.join(words)} failed")
    computing = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - began, computing, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_inputs(place, options.policies, options.tasks, options.rollouts, options.seed)
        everything = [f"--against={place / 'truth.parquet'}", f"--real={place / 'few.csv'}"]
        everything += [f"--weights={place / 'weights.json'}", "--paired"]
        size = f"{options.policies} x {options.tasks} x {options.rollouts}"
        print(f"| {size} | s | computing, s | GiB |")
        print("|---|---|---|---|")
        for name, source, more in (
            ("rollouts alone", place, []),
            ("truth, trials, trust, weights", place, everything),
            ("different start states", place / "uneven.parquet", []),
        ):
            words = ["rank", str(source), "--out", str(place / "ranked"), *more]
            seconds, computing, memory = measure(words)
            print(f"| {name} | {seconds:.1f} | {computing:.1f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
