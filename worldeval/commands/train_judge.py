"""``worldeval train judge``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldeval.judging.training import JudgeTrainConfig, train_judge


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
    threads: int = 2
    """Cores that torch may use."""
    config: Annotated[JudgeTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=JudgeTrainConfig
    )

    def run(self) -> None:
        from tqdm import tqdm

        from worldeval.commands.opening import check_device, set_threads
        from worldeval.data.episodes import EpisodeStore
        from worldeval.data.fit import check_store
        from worldeval.errors import ConfigError
        from worldeval.judging.network import JudgeConfig
        from worldeval.rollout.provenance import write_manifest
        from worldeval.worlds.sawyer import ROBOT, TASKS

        if not self.store or not self.validation:
            raise ConfigError("train judge needs at least one --store and one --validation")
        set_threads(self.threads)
        check_device(self.config.device)
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
            seed=self.config.seed,
            allow_changes=("threads", "config.log_every", "config.save_every", "config.device"),
        )
        with tqdm(total=self.config.steps, desc="judge", unit="step", disable=None) as bar:

            def show(metrics: dict[str, Any]) -> None:
                bar.update(int(metrics.get("step", bar.n)) - bar.n)
                bar.set_postfix({k: f"{v:.3g}" for k, v in metrics.items() if k == "loss"})

            report = train_judge(
                network,
                self.out,
                training=self.config,
                stores=stores,
                validation=validation,
                instructions={name: task.instructions for name, task in TASKS.items()},
                opposed=exclusive(TASKS),
                progress=show,
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
