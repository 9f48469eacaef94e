"""``worldeval train autoencoder`` and ``worldeval train world-model``.

A training that is interrupted goes on from its last state when the same command is given again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.data import origin
from worldeval.data.provenance import write_manifest
from worldeval.learning.config import CARRIED_OUT
from worldeval.learning.processes import first_of_many
from worldeval.world_model.autoencoder_training import AutoencoderTrainConfig, train_autoencoder
from worldeval.world_model.training import (
    WorldModelTrainConfig,
    train_world_model,
)

FREE = [f"config.loop.{name}" for name in CARRIED_OUT]


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder:
    """Train the autoencoder: single frames to small latents and back.

    For example:
      worldeval train autoencoder --store recordings/training --out runs/autoencoder
      worldeval train autoencoder --store recordings/training --loop.steps 200 --out runs/try
    """

    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[AutoencoderTrainConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.worlds.named import robot_of_store_if_known

        robot = robot_of_store_if_known(EpisodeStore.open(self.config.store), self.robot)
        write_manifest(
            self.out,
            command="train autoencoder",
            config=self,
            seed=self.config.loop.seed,
            content=origin.told_inputs(self.config.store),
            allow_changes=FREE,
        )
        print(train_autoencoder(self.config, self.out, robot))


@dataclass(frozen=True, kw_only=True)
class TrainWorldModel:
    """Train the world model on the latents of recorded episodes.

    The latents are computed once and kept in the output folder; sample videos and metrics appear
    there while it trains. Several processes share each batch, with the same result:
    docs/accelerate.yaml.

    For example:
      worldeval train world-model --store recordings/training --autoencoder runs/autoencoder \\
          --validation recordings/validation --out runs/world-model
      worldeval train world-model --store recordings/training --autoencoder runs/autoencoder \\
          --out runs/world-model --loop.mixed-precision bf16 --loop.batch 64
    """

    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    start_from: Path | None = None
    """Checkpoint to go on from with these settings (fine-tuning)."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[WorldModelTrainConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.worlds.named import robot_of_store

        config = self.config
        inputs = (
            *(config.store, *config.also, config.validation, *config.imagined),
            *(config.autoencoder, self.start_from),
        )
        robot = robot_of_store(EpisodeStore.open(self.config.store), self.robot)
        if first_of_many():
            write_manifest(
                self.out,
                command="train world-model",
                config=self,
                seed=self.config.loop.seed,
                content=origin.told_inputs(*inputs),
                allow_changes=FREE,
            )
        start = None if self.start_from is None else str(self.start_from)
        made = train_world_model(self.config, self.out, robot, start)
        if first_of_many():
            print(made)
