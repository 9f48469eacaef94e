"""``worldeval train judge``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from worldeval.judging.training import CalibratedTraining, JudgeTrainConfig, train_judge
from worldeval.learning.config import CARRIED_OUT

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.judging.validation import JudgeReport


@dataclass(frozen=True, kw_only=True)
class JudgeTraining:
    """What the verbs that train judges have in common."""

    store: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of episodes with known outcome; repeat it for several."""
    validation: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """Store of other episodes, to calibrate on; repeat it for several."""
    out: Path
    """Folder of the checkpoint, its metrics and its state."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""

    def train(
        self, train: Callable[..., JudgeReport], command: str, training: CalibratedTraining
    ) -> None:
        """Open the stores of one robot and train a judge on them.

        train: ``train_judge`` or another of its form. command: for the manifest and errors.
        """
        from worldeval.data import origin
        from worldeval.data.fit import check_store
        from worldeval.data.provenance import write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.errors import ConfigError
        from worldeval.judging.network import JudgeConfig
        from worldeval.worlds.named import robot_of_store

        if not self.store or not self.validation:
            raise ConfigError(f"{command} needs at least one --store and one --validation")
        opened = [EpisodeStore.open(place) for place in self.store]
        held_out = [EpisodeStore.open(place) for place in self.validation]
        spec = robot_of_store(opened[0], self.robot)
        for store in (*opened, *held_out):
            check_store(store, spec)
        layout = opened[0].layout
        network = JudgeConfig(
            views=layout.views, image_size=layout.image_size, pose_dim=layout.pose_dim
        )
        write_manifest(
            self.out,
            command=command,
            config=self,
            seed=training.loop.seed,
            content=origin.told_inputs(*self.store, *self.validation),
            allow_changes=[f"config.loop.{name}" for name in CARRIED_OUT],
        )
        instructions = instructions_of(opened, spec.name)
        report = train(
            network,
            self.out,
            training=training,
            stores=opened,
            validation=held_out,
            instructions=instructions,
            opposed=exclusive(instructions),
            robot=spec,
        )
        print(report.checkpoint)


@dataclass(frozen=True, kw_only=True)
class TrainJudge(JudgeTraining):
    """Train the judge: a rollout's frames and instruction in, success or failure out.

    It is calibrated on the validation stores, where it also learns when to abstain. Give it
    imagined episodes with known outcome too: those are what it will see.

    For example:
      worldeval train judge --store recordings/training --store runs/replays/labelled \\
          --validation recordings/validation --out runs/judge
    """

    config: Annotated[JudgeTrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=JudgeTrainConfig
    )

    def run(self) -> None:
        self.train(train_judge, "train judge", self.config)


def instructions_of(stores: Sequence[EpisodeStore], robot: str) -> dict[str, tuple[str, ...]]:
    """Task -> its instructions: all phrasings in Meta-World, else those of the stores."""
    from worldeval.worlds.sawyer import ROBOT, TASKS

    if robot == ROBOT.name:
        return {name: task.instructions for name, task in TASKS.items()}
    found: dict[str, dict[str, None]] = {}
    for store in stores:
        table = store.metadata()
        for task, words in zip(table["task"], table["instruction"], strict=True):
            found.setdefault(task, {})[words] = None
    return {task: tuple(words) for task, words in found.items()}


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
