"""``worldeval train trust``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval import shipped
from worldeval.imagination.trust.inverse_dynamics_training import InverseDynamicsTrainConfig
from worldeval.learning.config import CARRIED_OUT


@dataclass(frozen=True, kw_only=True)
class TrainTrust:
    """Train the detector of rollouts in which imagination has left reality (is out of
    distribution): it reads motion back from frames.

    A small network learns to read the commanded motion from true frames, view by view. Its errors
    on the validation stores, and how true poses, latents, sharpness and changes are spread there,
    are kept as what is normal. `worldeval trust` measures imagined rollouts by them.

    For example:
      worldeval train trust --store recordings/training --validation recordings/validation \\
          --out runs/trust
    """

    store: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of recorded episodes; repeat it for several."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of other recorded episodes, to measure on; repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    autoencoder: Path = field(default_factory=lambda: shipped.folder() / shipped.AUTOENCODER)
    """Checkpoint of the autoencoder of the world model (of a Ctrl-World: its own checkpoint)."""
    frames_per_chunk: int | None = None
    """Over how many frames motion is read: those of a chunk of the world model. As the robot says,
    if not given."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[InverseDynamicsTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=InverseDynamicsTrainConfig
    )

    def run(self) -> None:
        from worldeval.data import origin
        from worldeval.data.fit import check_store
        from worldeval.data.provenance import write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.errors import ConfigError
        from worldeval.imagination.trust.inverse_dynamics import InverseDynamicsConfig
        from worldeval.imagination.trust.training import reading_errors, train_trust
        from worldeval.worlds.named import robot_of_store_if_known

        if not self.store or not self.validation:
            raise ConfigError("train trust needs at least one --store and one --validation")
        stores = [EpisodeStore.open(place) for place in self.store]
        robot = robot_of_store_if_known(stores[0], self.robot)
        if robot is not None:
            for store in stores:
                check_store(store, robot)
        layout = stores[0].layout
        usual = 4 if robot is None else robot.frames_per_chunk
        network = InverseDynamicsConfig(
            robot=layout.robot_type,
            views=layout.views,
            pose_names=layout.pose_names,
            image_size=layout.image_size,
            most_frames=usual if self.frames_per_chunk is None else self.frames_per_chunk,
        )
        write_manifest(
            self.out,
            command="train trust",
            config=self,
            seed=self.config.loop.seed,
            content=origin.told_inputs(*self.store, *self.validation, self.autoencoder),
            allow_changes=[f"config.loop.{name}" for name in CARRIED_OUT],
        )
        trust = train_trust(
            network,
            self.out,
            training=self.config,
            stores=stores,
            validation=[EpisodeStore.open(place) for place in self.validation],
            autoencoder=self.autoencoder,
            robot=robot,
        )
        print("mean error of the reading on true frames:")
        for reading, axes in reading_errors(trust).items():
            said = ", ".join(f"{axis} {error['pose']:.4f}" for axis, error in axes.items())
            print(f"  {reading:<10}{said}")
        print(self.out)
