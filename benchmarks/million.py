"""A million rollouts planned by the head of a run: what memory and time does the scheduler take?

    python benchmarks/million.py                     writes benchmarks/million.json

The ``Schedule`` that runs with workers use is fed by the very units that a run has, and worked off
by eight imagined workers: of a hundred units one worker dies, and of a thousand one is doubtful.
Every rollout must be done once, or be given up after five lost workers. No rollout is made. Memory
is the largest resident size of a process of its own per count, above that of an empty plan.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from worldeval.errors import WorldError
from worldeval.evaluation.execution.execute import units
from worldeval.evaluation.execution.schedule import Schedule, Unit

COUNTS = (0, 10_000, 100_000, 1_000_000)
POLICIES, WORKERS, BATCH = 10, 8, 8


def planned(rollouts: int) -> dict[str, object]:
    """Work all of them off; what it took."""
    chance = random.Random(0)
    starts = rollouts // POLICIES
    began_s = time.process_time()
    schedule = Schedule(
        units([(f"p{p}", lambda: map(str, range(starts))) for p in range(POLICIES)], BATCH)
    )
    busy: deque[Unit] = deque()
    done = lost = doubted = 0
    while True:
        while len(busy) < WORKERS and (unit := schedule.next()) is not None:
            busy.append(unit)
        if not busy:
            if schedule.settle():
                break
            continue
        unit = busy.popleft()
        luck = chance.random()
        if luck < 0.01:
            lost += 1
            schedule.lost(unit, unit.starts, "killed")
        elif luck < 0.011 and unit.proven:
            doubted += 1
            schedule.doubtful(unit, WorldError("all of its rollouts ended in errors"))
        else:
            done += len(unit.starts)
            schedule.done(unit)
    assert done + len(schedule.given_up) == starts * POLICIES and not schedule.failed
    return {
        "rollouts": rollouts,
        "done": done,
        "given up": len(schedule.given_up),
        "workers lost": lost,
        "units doubted": doubted,
        "seconds of CPU": round(time.process_time() - began_s, 2),
        "largest MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(planned(int(sys.argv[1]))))
        return
    found = []
    for count in COUNTS:
        words = [sys.executable, __file__, str(count)]
        found.append(json.loads(subprocess.run(words, check=True, capture_output=True).stdout))
        print(found[-1], flush=True)
    Path(__file__).with_name("million.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
