"""``worldeval bench step``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BenchStep:
    """Measure one interaction of Ctrl-World: as published, ours at equal output, better schedules.

    Random weights of the real shapes, nothing is downloaded. The variants alternate in one
    process; each is compared with the published 50 steps in float32. Beside it stands what they
    cost at full size by PyTorch's counters, which needs no GPU.

    For example:
      worldeval bench step --count                          FLOPs, operations and bytes, seconds
      worldeval bench step --out runs/bench                 miniature on the CPU, a few minutes
      worldeval bench step --size full --compile --minutes 9 --out OUT/bench
                                                            on a GPU; run it again to go on
    """

    out: Path = Path("runs/bench-step")
    """Folder for bench.json and bench.md; what is measured there is not measured again."""
    size: Literal["full", "mini"] | None = None
    """full: the real shapes; mini: a miniature. If not given: full on a GPU, else mini."""
    batches: tuple[int, ...] | None = None
    """Rollouts at once. If not given: 1 4 16 on a GPU, else 1."""
    repeats: int = 3
    """Measurements of each variant; the table shows their median."""
    steps: int = 50
    """Of the published schedule; the others are shortened in proportion."""
    count: bool = False
    """Only count, measure nothing."""
    compile: bool = False
    """Also torch.compile our execution (minutes the first time)."""
    device: str | None = None
    """If not given: cuda if there is one, else cpu."""
    minutes: float | None = None
    """Stop after so long; the same command goes on."""
    seed: int = 0
    """Seed of the random weights and inputs."""
    threads: int = 1
    """Cores that torch may use."""

    def run(self) -> None:
        import torch

        from worldeval.bench.measuring import REPORT, costs, measure
        from worldeval.bench.step import BenchConfig
        from worldeval.bench.tables import (
            counted_table,
            measured_table,
            summarise,
        )
        from worldeval.data.provenance import jsonable, write_atomically
        from worldeval.errors import ConfigError
        from worldeval.evaluation.opening import set_threads
        from worldeval.learning.devices import check_device

        set_threads(self.threads)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_device(device)
        on_cuda = device.startswith("cuda")
        config = BenchConfig(
            size=self.size or ("full" if on_cuda else "mini"),
            steps=self.steps,
            batches=self.batches or ((1, 4, 16) if on_cuda else (1,)),
            repeats=self.repeats,
            seed=self.seed,
            device=device,
            compile=self.compile,
        )
        if config.size == "full" and not on_cuda and not self.count:
            raise ConfigError("--size full on a CPU would take days; use --size mini, or --count")
        counted = costs(config)
        text = counted_table(counted)
        print(text, flush=True)
        report = {"cost_at_full_size": counted}
        if not self.count:
            measured = measure(config, self.out, self.minutes, print)
            summarise(measured)
            report = measured | report
            text = f"{measured_table(measured)}\n{text}"
            print(measured_table(measured))
        write_atomically(self.out / "bench.md", text)
        name = "counts.json" if self.count else REPORT
        write_atomically(self.out / name, json.dumps(jsonable(report), indent=1))
        print(self.out / name)
