"""When not to believe an imagined rollout: signals of a rollout and its chunks that imagination
left reality.

Enters: imagined episodes, a ``Trust`` checkpoint (inverse dynamics and what is normal on true
frames), and, where they were made, imaginations of the same actions with other seeds. Leaves: one
row per chunk and one row per rollout, a column per signal. Each is larger where there is less to
believe, and about 0 where all is as on true frames::

    motion           mean |read change - commanded change| / that on true frames - 1, from all views
    motion_<view>    the same from one view by itself
    place            as motion, for the pose itself;   place_<view>
    views            mean |one view's reading - another's| / that on true frames - 1
    pose_distance    log of the distance of (pose, change) to the training data / typical distance
    latent_<view>    log of the distance of the latent to the training data / typical distance
    blur             loss of sharpness against the start, in spreads of true frames
    jump             change between frames beyond that of true frames at this speed, in spreads
    seeds            RMS difference of pixels between seeds, in percent of white
    seeds_<view>     the same in one view

A rollout's signal is the mean over its chunks, ``<signal>_most`` the largest of a chunk. Rollouts
have besides ``judge_doubt`` = 1 - |2 p - 1| of the judge's probability p, and ``seeds_verdict`` =
mean |p - p'| over the probabilities p' of the other seeds. Which of them are worth anything is
measured by ``calibration.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from worldeval.data import checkpoint
from worldeval.data.fit import check_made_for, robot_of_checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.layout import StoreLayout
from worldeval.data.tables import CELL, KEY
from worldeval.errors import DataError, MismatchError
from worldeval.imagination.trust.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from worldeval.imagination.trust.observing import Observed, observe, view_pairs
from worldeval.imagination.trust.reference import Reference, neighbour_distance
from worldeval.learning.weights import filled
from worldeval.robots import RobotSpec, robot_as_json
from worldeval.settings import settings_from
from worldeval.terminal import bar_options
from worldeval.types import Episode, Outcome
from worldeval.world_model.latents import Encode, open_encoder

KIND = "trust"
NAMES = (*KEY, *CELL)
"""Columns that say which rollout a row is about."""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """The rollouts' actions imagined once more, in one store or several, and the verdicts on it."""

    stores: tuple[EpisodeStore, ...]
    verdicts: pd.DataFrame

    def episode(self, key: str) -> Episode:
        """The second imagination of rollout ``key``; DataError if there is none."""
        for store in self.stores:
            if key in store:
                return store.by_key(key)
        raise DataError(
            f"rollout {key!r} was not imagined again in {[str(s.root) for s in self.stores]}; run "
            "the same command again to complete them, or leave them out"
        )


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The measuring instrument; ``encode`` is that of the autoencoder named ``autoencoder``."""

    network: InverseDynamics
    reference: Reference
    autoencoder: str
    encode: Encode
    robot: RobotSpec | None = None
    """Whose frames it learned from, kept whole in its checkpoint; None where that is unknown."""

    @classmethod
    def load(cls, folder: str | Path, autoencoder: str | Path, *, device: str = "cpu") -> Trust:
        """From a checkpoint that ``save`` wrote, and that of the autoencoder it was made with.

        Raises CheckpointError for what is missing or damaged, MismatchError for another
        autoencoder: latents of two are not at a distance from each other.
        """
        config, tensors = checkpoint.load(folder, kind=KIND)
        encode, digest = open_encoder(autoencoder, device)
        with checkpoint.fitting(folder):
            shape = settings_from(InverseDynamicsConfig, config["network"], "network.")
            weights = _without("network.", tensors)
            network = filled(lambda: InverseDynamics(shape), weights, folder)
            reference = Reference.of(_without("reference.", tensors))
            made_with = str(config["autoencoder"])
        if digest != made_with:
            raise MismatchError(
                f"{folder} measures latents of autoencoder {made_with}, {autoencoder} is "
                f"{digest}; give the autoencoder that it was trained with, or train trust anew"
            )
        return cls(
            network=network.to(device).eval(),
            reference=reference,
            autoencoder=digest,
            encode=encode,
            robot=robot_of_checkpoint(folder),
        )

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> Path:
        """Write the checkpoint, weights as float16."""
        tensors = {
            f"network.{name}": value.detach().cpu().numpy().astype(np.float16)
            for name, value in self.network.state_dict().items()
        }
        # Poses are divided by these: they keep all their digits.
        for name in ("pose_centre", "pose_spread", "change_spread"):
            tensors[f"network.{name}"] = getattr(self.network, name).cpu().numpy()
        tensors |= {f"reference.{n}": array for n, array in self.reference.tensors().items()}
        config = {"network": asdict(self.network.config), "autoencoder": self.autoencoder}
        return checkpoint.save(
            folder,
            kind=KIND,
            config=config,
            tensors=tensors,
            card=card,
            robot=None if self.robot is None else robot_as_json(self.robot),
        )

    def measure(self, store: EpisodeStore) -> pd.DataFrame:
        """Signals of the frames of a store's rollouts: one row per chunk, with its key.

        Rollouts that ended with an error, or at their start, have no rows.
        """
        check_layout(self.network.config, store.layout, str(store.root))
        check_made_for("the trust checkpoint", self.robot, store)
        return _of_episodes(store, self.chunks)

    def spread(self, store: EpisodeStore, seeds: Sequence[Seed]) -> pd.DataFrame:
        """How far apart imaginations of the same actions with other seeds are, rows as above."""
        for some in (store, *(other for seed in seeds for other in seed.stores)):
            check_layout(self.network.config, some.layout, str(some.root))
        return _of_episodes(
            store, lambda e: self.chunks_apart(e, [seed.episode(e.key) for seed in seeds])
        )

    def chunks(self, episode: Episode) -> pd.DataFrame:
        """One row for each chunk of an episode of two frames or more: chunk and the signals."""
        frames = episode.frames[:, self._order(episode)]
        seen = observe(self.network, self.encode, frames, episode.poses)
        frame_signals = pd.DataFrame(self._per_frame(seen)).groupby(seen.chunk).mean()
        return _chunk_table({**dict(frame_signals), **self._distances(seen)})

    def chunks_apart(self, episode: Episode, others: Sequence[Episode]) -> pd.DataFrame:
        """The same for the spread over seeds; ``others`` are of the same actions.

        Raises DataError if they are not.
        """
        order, spreads = self._order(episode), []
        for other in others:
            same = other.frames.shape == episode.frames.shape
            if not same or not np.allclose(other.poses, episode.poses, atol=1e-4):
                raise DataError(
                    f"the other imagination {other.key!r} is not of the same actions as "
                    f"{episode.key!r} (shapes {other.frames.shape} and {episode.frames.shape}, or "
                    "other poses); make it again from these rollouts"
                )
            difference = other.frames[1:, order].astype(np.float32) - episode.frames[1:, order]
            spreads.append(np.sqrt(np.square(difference / 2.55).mean((2, 3, 4))))
        spread = np.mean(spreads, axis=0)  # (T, V)
        signals = {"seeds": spread.mean(1)}
        for v, view in enumerate(self.network.config.views):
            signals[f"seeds_{view}"] = spread[:, v]
        chunk = np.arange(len(spread)) // self.network.config.most_frames
        return _chunk_table(dict(pd.DataFrame(signals).groupby(chunk).mean()))

    def _order(self, episode: Episode) -> list[int]:
        return [episode.views.index(view) for view in self.network.config.views]

    def _per_frame(self, seen: Observed) -> dict[str, np.ndarray]:
        config, ref = self.network.config, self.reference
        speed = ref.speed(seen.target[:, 1])
        usual = np.moveaxis(ref.reading_error, -1, 0)[speed]
        wrong = (np.abs(seen.readings - seen.target[:, None]) / usual).mean(-1) - 1  # (T, R, 2)
        signals = {"motion": wrong[:, -1, 1], "place": wrong[:, -1, 0]}
        for v, view in enumerate(config.views):
            signals |= {f"motion_{view}": wrong[:, v, 1], f"place_{view}": wrong[:, v, 0]}
        first, second = view_pairs(len(config.views))
        if first:
            difference = np.abs(seen.readings[:, first] - seen.readings[:, second])
            difference = difference / np.moveaxis(ref.view_difference, -1, 0)[speed]
            signals["views"] = difference.mean((1, 2, 3)) - 1
        blur = (ref.sharpness[:, 0] - seen.log_sharpness) / ref.sharpness[:, 1]
        usual_change = ref.jump[:, ref.speed(seen.step)].swapaxes(0, 1)  # (T, V, 2)
        jump = (seen.log_change - usual_change[..., 0]) / usual_change[..., 1]
        return {**signals, "blur": blur.mean(1), "jump": jump.mean(1)}

    def _distances(self, seen: Observed) -> dict[str, np.ndarray]:
        """Signals of the chunks' last frames."""
        ref = self.reference
        ends = np.append(np.flatnonzero(np.diff(seen.chunk)), len(seen.chunk) - 1)
        place = seen.target[ends].reshape(len(ends), -1)
        ratio = neighbour_distance(place, ref.poses) / ref.pose_distance
        signals = {"pose_distance": np.log(ratio + 1e-3)}
        points = ref.whiten(seen.pooled)
        for v, view in enumerate(self.network.config.views):
            ratio = neighbour_distance(points[:, v], ref.latents[v]) / ref.latent_distance[v]
            signals[f"latent_{view}"] = np.log(ratio + 1e-3)
        return signals


def check_layout(config: InverseDynamicsConfig, layout: StoreLayout, where: str) -> None:
    """Raise MismatchError naming the first thing in which a store differs from ``config``."""
    missing = [view for view in config.views if view not in layout.views]
    for what, found, wanted in (
        ("robot", layout.robot_type, config.robot),
        ("views", layout.views if missing else config.views, config.views),
        ("image size", tuple(layout.image_size), tuple(config.image_size)),
        ("pose names", tuple(layout.pose_names), tuple(config.pose_names)),
    ):
        if found != wanted:
            raise MismatchError(
                f"{where} has {what} {found!r}, the trust checkpoint is for {wanted!r}; use one "
                "of this robot (`worldeval train trust` makes it)"
            )


def rollouts_of(store: EpisodeStore, chunks: pd.DataFrame) -> pd.DataFrame:
    """One row for each rollout of the store: its names, and its signals from those of its chunks
    (mean, and the largest as <signal>_most); NaN for rollouts without chunks."""
    rollouts = store.metadata()
    lacking = [name for name in NAMES if name not in rollouts.columns]
    if len(rollouts) and lacking:
        raise DataError(
            f"{store.root} has no columns {lacking}, expected a store of rollouts; give one that "
            "`worldeval rollout` wrote"
        )
    signals = chunks.drop(columns="chunk").groupby("key")
    means, most = signals.mean(), signals.max().add_suffix("_most")
    names = rollouts.reindex(columns=list(NAMES)).astype(str)
    return names.join(means, on="key").join(most, on="key")


def of_verdicts(
    table: pd.DataFrame, verdicts: pd.DataFrame, others: Sequence[pd.DataFrame] = ()
) -> pd.DataFrame:
    """Rollouts with the judge and outcome of their ``verdicts`` and the signals that come from
    them: judge_doubt, and seeds_verdict where there are verdicts on other seeds.

    Raises DataError if a rollout has no verdict.
    """
    verdict = _of_keys(table, verdicts, ("judge", "outcome", "probability"))
    probability = verdict["probability"].astype(float)
    table = table.assign(
        judge=verdict["judge"],
        outcome=verdict["outcome"],
        judge_doubt=1 - (2 * probability - 1).abs(),
    )
    if others:
        changes = [
            (probability - _of_keys(table, other, ("probability",), known=False)["probability"])
            for other in others
        ]
        table = table.assign(seeds_verdict=pd.concat(changes, axis=1).abs().mean(axis=1))
    return table


def _of_keys(
    table: pd.DataFrame, verdicts: pd.DataFrame, columns: Sequence[str], known: bool = True
) -> pd.DataFrame:
    """Columns of a verdict table in the order of the rollouts in ``table``."""
    lacking = [name for name in ("key", *columns) if name not in verdicts.columns]
    if lacking:
        raise DataError(
            f"the verdict table lacks {lacking}, it has {list(verdicts.columns)}; judge the "
            "rollouts again (`worldeval judge`)"
        )
    by_key = verdicts.drop_duplicates("key").set_index("key")[list(columns)]
    absent = sorted(set(table["key"]) - set(by_key.index))
    if known and absent:
        raise DataError(
            f"{len(absent)} rollouts have no verdict, such as {absent[0]!r}; judge the folder "
            "again (`worldeval judge`)"
        )
    return by_key.reindex(table["key"]).set_index(table.index)


def _of_episodes(store: EpisodeStore, of: Callable[[Episode], pd.DataFrame]) -> pd.DataFrame:
    tables = []
    told = tqdm(
        store.metadata().iterrows(),
        total=len(store),
        unit="rollout",
        desc=f"signals of {store.root.name}",
        dynamic_ncols=True,
        **bar_options(),
    )
    for index, row in told:
        if row["length"] > 1 and row.get("outcome") != Outcome.ERROR.value:
            episode = store.episode(int(index))
            tables.append(of(episode).assign(key=episode.key))
    if not tables:
        return pd.DataFrame({"key": [], "chunk": []})
    table = pd.concat(tables, ignore_index=True)
    return table[["key", *table.columns.drop("key")]]


def _chunk_table(signals: Mapping[Any, Any]) -> pd.DataFrame:
    columns = {str(name): np.asarray(values) for name, values in signals.items()}
    return pd.DataFrame({"chunk": np.arange(len(next(iter(columns.values())))), **columns})


def _without(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
