"""``worldeval train adapter``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.learning.config import CARRIED_OUT
from worldeval.policies.joint_adapter_training import AdapterTrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainAdapter:
    """Train the action adapter: joints and 15 velocity commands in, where the joints go out.

    A policy that answers joint velocities does not say where the arm will be: the arm follows its
    commands late and softly. The adapter learns how, from recorded episodes at 15 Hz (split train),
    and is measured on others (split val). It is small: a minute on a CPU.

    For example:
      worldeval train adapter --source ../shared/droid --out runs/adapter
      worldeval train adapter --source my-lab --start action_adapter.pth --out runs/adapter
      worldeval rollout --world imagination --adapter runs/adapter --out runs/mine
    """

    source: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Dataset in the layout of Ctrl-World (annotation/, videos/); repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    config: Annotated[AdapterTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=AdapterTrainConfig
    )

    def run(self) -> None:
        from worldeval.data import digests
        from worldeval.data.provenance import write_manifest
        from worldeval.errors import ConfigError
        from worldeval.learning.processes import first_of_many
        from worldeval.policies.joint_adapter_training import train_adapter

        if not self.source:
            raise ConfigError("train adapter needs at least one --source; give a dataset's folder")
        if first_of_many():
            write_manifest(
                self.out,
                command="train adapter",
                config=self,
                seed=self.config.loop.seed,
                content=digests.of_inputs(
                    *(source / "annotation" for source in self.source), self.config.start
                ),
                allow_changes=[f"config.loop.{name}" for name in CARRIED_OUT],
            )
        errors = train_adapter(self.source, self.out, config=self.config)
        if not first_of_many():
            return
        print(
            f"after 1 s, on held-out episodes: {errors['flange_error_mm']:.1f} mm, "
            f"{errors['flange_error_deg']:.2f} degrees"
        )
        print(self.out)
