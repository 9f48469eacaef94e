"""What do two local workers buy? The same rollouts by one process, by one worker and by two.

    .venv/bin/python benchmarks/workers.py [--rollouts-per-task 8] [--batch 16]

Each runs `worldeval rollout` of one shipped policy in imagination with one thread a process. Prints
a Markdown table: seconds by the clock, seconds of computing, both per rollout, and how many times
as fast as one process. The clock counts on a quiet machine with two free cores; there, two workers
are to be at least 1.7 times as fast. On a busy machine computing per rollout tells what is lost to
starting, sharing out and gathering. --begin leaves that of loading torch and the models out: it
rolls out one start state a task first, and takes its seconds off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def rolled(out: Path, per_task: int, options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Seconds by the clock and of computing of one command, and its rollouts."""
    command = [sys.executable, "-m", "worldeval", "rollout", "--out", out, "--threads", 1]
    command += ["--policy", options.policy, "--batch", options.batch, "--per-task", per_task]
    command += ["--chunks", options.chunks]
    command += ["--workers", workers] if workers > 1 else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = json.loads((out / "run.json").read_text())["spent"]
    return {
        "wall_s": time.perf_counter() - began,
        "computing_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "rollouts": sum(one["rollouts"] for one in spent),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="checkpoints/policies/full")
    parser.add_argument("--rollouts-per-task", type=int, default=8)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--begin", action="store_true", help="leave loading out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| processes | s | s of computing | s of computing per rollout | times as fast |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            row = rolled(Path(folder, str(workers)), options.rollouts_per_task, options, workers)
            if options.begin:
                few = rolled(Path(folder, f"few-{workers}"), 1, options, workers)
                row = {name: row[name] - few[name] for name in row}
            each = row["computing_s"] / row["rollouts"]
            rows.append({"workers": workers, **row, "computing_s_per_rollout": each})
            times = rows[0]["wall_s"] / row["wall_s"]
            print(
                f"| {workers} | {row['wall_s']:.1f} | {row['computing_s']:.1f} | {each:.2f} | "
                f"{times:.2f} |",
                flush=True,
            )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
