"""From a folder of imagined rollouts to the tables that rules look at.

Enters: an ``Evaluation`` whose rollouts are judged, and the columns that the rules need. Leaves:
``Tables``. What takes time (progress of every frame, artefacts) is kept beside the rollouts, with
the digest of what it was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data import digests
from worldeval.data.fit import kept_robot
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import CELL, read_parquet
from worldeval.errors import ConfigError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.folder import read_trust
from worldeval.judging.human import HumanJudge
from worldeval.judging.tables import write_table
from worldeval.synthesis.frames import artefact_shares, changes, sharpness
from worldeval.synthesis.tables import (
    ADVANTAGE,
    ARTEFACTS,
    DISTRUST,
    KEY,
    LABEL,
    OUTCOME,
    PROBABILITY,
    PROGRESS,
    TRUSTED,
    VALUE,
    Tables,
    in_shares,
    with_advantage,
)

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.judging.progress import ProgressJudge

ATTRIBUTE = "measured_on"


def check_given(
    needs: Collection[str], *, progress: ProgressJudge | None, labels: Path | None
) -> None:
    """Raise ConfigError for a column of ``needs`` that nothing was given to measure by, DataError
    for labels that cannot be read."""
    if PROGRESS in needs and progress is None:
        raise ConfigError(
            "the rules need progress, but no judge of it was given; give one with --progress, such "
            "as checkpoints/progress"
        )
    if LABEL in needs:
        if labels is None:
            raise ConfigError(
                "the rule labels selects by hand, but no labels were given; give a table with "
                "--labels"
            )
        HumanJudge.read(labels)


def measure(
    run: Evaluation,
    needs: Collection[str],
    *,
    progress: ProgressJudge | None = None,
    labels: Path | None = None,
) -> Tables:
    """Tables of all rollouts of a folder with the columns ``needs``.

    Raises what ``check_given`` does, and ConfigError if trust is needed and not known.
    """
    import pandas as pd

    check_given(needs, progress=progress, labels=labels)
    (root,) = run.stores
    store = EpisodeStore.open(root)
    rollouts = store.metadata().drop(columns=[OUTCOME], errors="ignore")
    for name, default in (("group", ""), ("noise", 0.0)):
        if name not in rollouts.columns:  # rollouts of `worldeval rollout`
            rollouts[name] = rollouts["start_id"] if name == "group" else default
    if run.judged:
        verdicts = run.verdicts[[KEY, OUTCOME, PROBABILITY, "judge"]]
        rollouts = rollouts.merge(verdicts, on=KEY, how="left")
    if {VALUE, ADVANTAGE} & set(needs):
        rollouts = with_advantage(rollouts)
    if {TRUSTED, DISTRUST} & set(needs):
        trust = read_trust(run.folder)
        if trust is None:
            raise ConfigError(
                f"which rollouts of {run.folder} to trust is not known: there is no calibration of "
                "trust for this world model and this judge; make one (`worldeval train trust`, "
                "`worldeval trust`), or select without the rule trust"
            )
        rollouts = rollouts.merge(trust[[KEY, TRUSTED, DISTRUST]], on=KEY, how="left")
    if PROGRESS in needs and progress is not None:
        rollouts = rollouts.merge(_progress(store, progress), on=KEY)
    if ARTEFACTS in needs:
        rollouts = rollouts.merge(_artefacts(store), on=KEY)
    if LABEL in needs and labels is not None:
        rollouts[LABEL] = _labels(store, labels)
    assert isinstance(rollouts, pd.DataFrame)
    return Tables(rollouts=rollouts, paths=paths_of(store))


def paths_of(store: EpisodeStore, episodes: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Key -> poses (T+1, P) in shares of the robot's range; of the store's own where it keeps no
    robot."""
    keys = store.metadata()[KEY].tolist()
    chosen = range(len(store)) if episodes is None else episodes
    poses = {keys[i]: store.trajectory(i).poses for i in chosen}
    robot = kept_robot(store)
    if robot is not None:
        low, high = np.asarray(robot.pose_low, float), np.asarray(robot.pose_high, float)
    elif poses:
        stacked = np.concatenate(list(poses.values())).astype(float)
        low, high = stacked.min(0), stacked.max(0)
        high = np.where(high > low, high, low + 1)
    return {key: in_shares(path, low, high) for key, path in poses.items()}


def _progress(store: EpisodeStore, judge: ProgressJudge) -> pd.DataFrame:
    """Highest progress of each rollout."""
    import pandas as pd

    def found() -> pd.DataFrame:
        rows = [(e.key, float(judge.progress(e).max())) for e in store]
        return pd.DataFrame(rows, columns=[KEY, PROGRESS])

    return _kept(store, f"progress-{judge.name.rpartition('@')[2]}", found)


def _artefacts(store: EpisodeStore) -> pd.DataFrame:
    import pandas as pd

    def found() -> pd.DataFrame:
        moved, sharp = {}, {}
        for episode in store:
            moved[episode.key] = changes(episode.frames)
            sharp[episode.key] = sharpness(episode.frames)
        return pd.DataFrame(artefact_shares(moved, sharp).items(), columns=[KEY, ARTEFACTS])

    return _kept(store, "artefacts", found)


def _kept(store: EpisodeStore, name: str, measured: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """``measured()``, from the disk where the same rollouts were measured already."""
    path, made = store.root / f"{name}.parquet", digests.of_store(store)
    if path.is_file():
        table = read_parquet(path)
        if table.attrs.get(ATTRIBUTE) == made:
            return table
    table = measured()
    table.attrs[ATTRIBUTE] = made
    write_table(table, path)
    return table


def _labels(store: EpisodeStore, path: Path) -> list[str]:
    people = HumanJudge.read(path)
    table = store.metadata()
    names = [KEY, *CELL]
    for told in people.check(table[names].to_dict("records"), str(store.root)):
        print(told)
    return [verdict.outcome.value for verdict in people.judge(list(store))]
