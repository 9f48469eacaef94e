"""``worldeval train ctrl-world``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.learning.config import CARRIED_OUT
from worldeval.world_model.ctrl_world.training import CtrlWorldTrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainCtrlWorld:
    """Fine-tune Ctrl-World at full size on prepared episodes.

    It starts from an imported release (`worldeval import ctrl-world`), from Stable Video Diffusion
    alone (`worldeval import svd`), or from an earlier training. The same command again goes on
    after an interruption. Several GPUs share each batch, with the same result as one.

    For example:
      worldeval train ctrl-world --start-from runs/imported --store data/droid-train \\
          --validation data/droid-val --out runs/tuned
      worldeval train ctrl-world --start-from runs/imported --store data/droid-train \\
          --out runs/tuned --loop.mixed-precision bf16 --loop.gradient-checkpointing \\
          --loop.accumulate 16 --loop.ema-device cpu --loop.trackers trackio
    On eight GPUs, begin it with `torchrun --nproc-per-node 8 -m worldeval.cli` instead of
    `worldeval`, with --loop.accumulate 2.
    """

    out: Path
    """Folder of the checkpoint, its metrics, sample videos and state."""
    config: Annotated[CtrlWorldTrainConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        from worldeval.data import origin
        from worldeval.data.provenance import write_manifest
        from worldeval.learning.processes import first_of_many
        from worldeval.world_model.ctrl_world.training import train_ctrl_world

        if first_of_many():
            write_manifest(
                self.out,
                command="train ctrl-world",
                config=self,
                seed=self.config.loop.seed,
                content=origin.told_inputs(
                    self.config.start_from, *self.config.store, *self.config.validation
                ),
                allow_changes=[f"config.loop.{name}" for name in CARRIED_OUT],
            )
        folder = train_ctrl_world(self.config, self.out)
        if first_of_many():
            print(folder)
