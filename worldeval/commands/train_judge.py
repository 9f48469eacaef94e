"""``worldeval train judge``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldeval.judging.training import JudgeTrainConfig, train_judge
from worldeval.learning.config import CARRIED_OUT


@dataclass(frozen=True, kw_only=True)
class TrainJudge:
    """Train the judge: a rollout's frames and instruction in, success or failure out.

    It is calibrated on the validation stores, where it also learns when to abstain. Give it
    imagined episodes with known outcome too: those are what it will see.

    For example:
      worldeval train judge --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/judge
    """

    store: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of episodes with known outcome; repeat it for several."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of other episodes, to calibrate on; repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    config: Annotated[JudgeTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=JudgeTrainConfig
    )

    def run(self) -> None:
        from worldeval.data.episodes import EpisodeStore
        from worldeval.data.fit import check_store
        from worldeval.errors import ConfigError
        from worldeval.judging.network import JudgeConfig
        from worldeval.rollout.provenance import write_manifest
        from worldeval.worlds.sawyer import ROBOT, TASKS

        if not self.store or not self.validation:
            raise ConfigError("train judge needs at least one --store and one --validation")
        stores = [EpisodeStore.open(place) for place in self.store]
        validation = [EpisodeStore.open(place) for place in self.validation]
        for store in (*stores, *validation):
            check_store(store, ROBOT)
        layout = stores[0].layout
        network = JudgeConfig(
            views=layout.views, image_size=layout.image_size, pose_dim=layout.pose_dim
        )
        write_manifest(
            self.out,
            command="train judge",
            config=self,
            seed=self.config.loop.seed,
            allow_changes=[f"config.loop.{name}" for name in CARRIED_OUT],
        )
        report = train_judge(
            network,
            self.out,
            training=self.config,
            stores=stores,
            validation=validation,
            instructions={name: task.instructions for name, task in TASKS.items()},
            opposed=exclusive(TASKS),
        )
        print(report.checkpoint)


def exclusive(tasks: Any) -> dict[str, str]:
    """Task -> the task that cannot be solved at the same time: what opens and what closes."""
    swap = {"open": "close", "close": "open"}
    found = {}
    for name in tasks:
        *thing, verb = name.split("-")
        other = "-".join([*thing, swap.get(verb, "")])
        if other in tasks:
            found[name] = other
    return found
