"""``worldeval export lerobot`` and ``worldeval export rerun``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class ExportLeRobot:
    """Write a store of episodes as a LeRobot dataset, to train any policy on.

    Any store of the project: recorded, imagined or synthesised. One row for each control step with
    one action, in the robot's own names; DROID's Panda is spelled as DROID 1.0.1. openpi and GR00T
    read version 2.1, LeRobot from 0.4 on version 3.0. `worldeval prepare` reads both back.

    For example:
      worldeval export lerobot recordings/training --out datasets/training
      worldeval export lerobot recordings/training --version 2.1 --modality gr00t --out gr00t
    """

    store: Annotated[Path, tyro.conf.Positional]
    """Folder of the store."""
    out: Path
    """Folder of the dataset; it must not be there yet."""
    version: Literal["3.0", "2.1"] = "3.0"
    """Of the format."""
    keys: str | None = None
    """How columns are spelled: plain, droid_1_0_1, droid_100, droid_openpi ...; by the robot, if
    not given."""
    modality: Literal["gr00t"] | None = None
    """Write meta/modality.json and the column of instructions that GR00T asks for (version 2.1)."""
    only_successful: bool = False
    """Leave out episodes that are not known to be solved."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the store says, if
    not given."""

    def run(self) -> None:
        from worldeval.synthesis.export import export_lerobot

        done = export_lerobot(
            self.store,
            self.out,
            version=self.version,
            keys=self.keys,
            modality=self.modality,
            only_successful=self.only_successful,
            robot=self.robot,
            progress=True,
        )
        print(f"{done.folder}: {done.episodes} episodes, {done.rows} rows")
        for note in done.notes:
            print(f"  {note}")


@dataclass(frozen=True, kw_only=True)
class ExportRerun:
    """Write one rollout as a recording for the viewer of Rerun.

    Views, poses, actions, gripper, the judge's probability, progress and trust on one timeline.
    Needs rerun-sdk (`pip install 'worldeval[rerun]'`); `rerun FILE` shows what was written.

    For example:
      worldeval export rerun runs/demo --rollout full/reach/evaluation/0000 --out reach.rrd
      worldeval export rerun runs/demo --rollout full/reach/evaluation/0000 --out reach.rrd \\
        --judge checkpoints/judge --progress checkpoints/progress
    """

    rollouts: Annotated[Path, tyro.conf.Positional]
    """Folder of an evaluation, or of a store of rollouts or recordings."""
    rollout: str
    """Key of the rollout: POLICY/START, as verdicts and reports name it."""
    out: Path
    """The .rrd file; it must not be there yet."""
    judge: Path | None = None
    """Checkpoint of a judge that tells its probability of success for every frame; if not given,
    the verdict beside the rollout is written, where there is one."""
    progress: Path | None = None
    """Checkpoint of a judge of progress; no progress is written, if not given."""

    def run(self) -> None:
        from worldeval.data.writers.rerun import check_installed, export
        from worldeval.evaluation.curves import find_rollout, learned, rollout_curves
        from worldeval.judging.loading import load_judge

        check_installed()
        store = find_rollout(self.rollouts, self.rollout)
        judge = progress = None
        if self.judge is not None:
            judge = learned(load_judge(self.judge), "--judge")
        if self.progress is not None:
            from worldeval.judging.progress import ProgressJudge

            progress = ProgressJudge.load(self.progress)
        episode = store.by_key(self.rollout)
        known = rollout_curves(store, episode, judge=judge, progress=progress)
        export(
            episode,
            store.layout,
            self.out,
            curves=known.curves,
            events=[(event.frame, event.text) for event in known.events],
            about=known.about,
        )
        print(f"{self.out}: {episode.length} frames of {len(episode.views)} views")
        for note in known.notes:
            print(f"  {note}")
