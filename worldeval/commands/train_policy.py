"""``worldeval train policy``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldeval.learning.config import CARRIED_OUT
from worldeval.policies.cloning.candidates import candidate_configs
from worldeval.policies.cloning.config import BCTrainConfig

if TYPE_CHECKING:
    from worldeval.policies.cloning.data import Corruption


@dataclass(frozen=True, kw_only=True)
class TrainPolicy:
    """Clone behaviour: views, pose and instruction in, a chunk of actions out.

    With --start-from, a policy goes on learning (fine-tuning), from one store or from several at
    given shares; from solved episodes alone (filtered cloning: --only-successful), or from all by
    how good they were (advantage-weighted cloning: --advantage). With --candidate, trains shipped
    recipes instead (each into a folder of its name in --out): the same network with few
    demonstrations, sloppy ones, a missing camera, deaf to the instruction ...

    Several processes share each batch, with the same result: docs/accelerate.yaml.

    For example:
      worldeval train policy --store recordings/training --out runs/policy --demonstrations 20
      worldeval train policy --store recordings/training --out runs/policies --candidate all
      worldeval train policy --start-from checkpoints/policies/short --data recordings/training \\
          --data runs/synthesised --mix 0.5 --only-successful --loop.steps 400 \\
          --loop.learning-rate 3e-4 --out runs/tuned
    """

    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    candidate: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A shipped recipe, or all; repeat it for several."""
    seen_through: Path | None = None
    """Autoencoder checkpoint: a share of the frames is shown as it decodes them, which is what the
    policy will see in imagination."""
    keep: Path | None = None
    """Folder for a checkpoint at every validation (--loop.validate-every steps), to choose
    among them; none is kept, if not given."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""
    config: Annotated[BCTrainConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        from worldeval.data import origin
        from worldeval.data.fit import check_made_for, robot_of_checkpoint
        from worldeval.data.provenance import write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.errors import ConfigError
        from worldeval.learning.processes import first_of_many
        from worldeval.policies.cloning.training import train_policies, train_policy
        from worldeval.worlds.named import robot_of_store

        recipes = candidate_configs("")
        unknown = sorted(set(self.candidate) - {*recipes, "all"})
        if unknown:
            raise ConfigError(
                f"candidate {unknown[0]!r} is unknown, expected all or one of {', '.join(recipes)}"
            )
        if self.candidate and self.keep is not None:
            raise ConfigError("--keep is for one policy; leave it or --candidate away")
        if self.candidate and (self.config.start_from or self.config.data):
            raise ConfigError(
                "--candidate is given with --start-from or --data, which its recipes do not have; "
                "leave it out, or train the recipes from one --store"
            )
        stores = self.config.stores
        robot = robot_of_store(EpisodeStore.open(stores[0]), self.robot)
        if self.seen_through is not None:
            kept = robot_of_checkpoint(self.seen_through)
            check_made_for(f"autoencoder {self.seen_through}", kept, robot, rates=False)
        if first_of_many():
            write_manifest(
                self.out,
                command="train policy",
                config=self.config,
                seed=self.config.loop.seed,
                extra={"options": self},
                content=origin.told_inputs(
                    *stores, self.seen_through, self.config.start_from, *self.config.verdicts
                ),
                allow_changes=[f"loop.{name}" for name in CARRIED_OUT],
            )
        corruption = seen_through(self.seen_through) if self.seen_through else None
        if not self.candidate:
            made = train_policy(self.config, self.out, robot, corruption=corruption, keep=self.keep)
            if first_of_many():
                print(made)
            return
        wanted = list(recipes) if "all" in self.candidate else list(self.candidate)
        carried_out = {name: getattr(self.config.loop, name) for name in CARRIED_OUT}
        configs = {
            name: replace(
                recipes[name], store=stores[0], loop=replace(recipes[name].loop, **carried_out)
            )
            for name in wanted
        }
        for folder in train_policies(configs, self.out, robot, corruption=corruption).values():
            if first_of_many():
                print(folder)


def seen_through(folder: Path) -> Corruption:
    """Frames (N, H, W, 3) as the autoencoder in ``folder`` gives them back."""
    import numpy as np
    import torch

    from worldeval.data.video import to_frames, to_model
    from worldeval.learning.loop import has_bfloat16_units
    from worldeval.world_model.autoencoder import Autoencoder

    model = Autoencoder.load(folder)

    def decoded(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", enabled=has_bfloat16_units("cpu")):
            return to_frames(
                model.decode(model.encode(torch.from_numpy(to_model(frames)))).float().numpy()
            )

    return decoded
