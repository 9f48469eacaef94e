"""Demonstrations in memory, and the batches drawn from them.

Enters: an EpisodeStore. Leaves: batches of (frames, poses, words, target chunks), each a function
of (seed, step) alone. So training resumes exactly from a step number, and all candidates that are
trained in one process share one copy of the frames (uint8, 37 KB for three 64 px views).

The target of frame t is the K control steps that follow it, for any t, not chunk borders alone.
Beyond the end of an episode the target stands still, with weight ``hold_weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.fit import check_store
from worldeval.errors import DataError
from worldeval.policies.cloning.choosing import choose, judged, read_verdicts
from worldeval.policies.cloning.config import Selection
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore

Corruption = Callable[[np.ndarray], np.ndarray]
"""uint8 frames (N, H, W, 3) of one view -> the same, as a world model would blur them."""

CORRUPTION_BATCH = 64
IDLE = 1e-3
"""Motion below this, in action units, is standing still."""


@dataclass(frozen=True)
class Batch:
    frames: np.ndarray
    """(B, V, H, W, 3) uint8"""
    poses: np.ndarray
    """(B, P) float32"""
    texts: np.ndarray
    """(B,) int64 into ``Demonstrations.texts``"""
    targets: np.ndarray
    """(B, K, A) float32"""
    weights: np.ndarray
    """(B, K) float32"""


def numbered(stores: Sequence[EpisodeStore]) -> list[pd.DataFrame]:
    """``metadata()`` of each store; its ``episode_index`` counts on from the store before."""
    tables, first = [], 0
    for store in stores:
        table = store.metadata()
        tables.append(table.assign(episode_index=table["episode_index"] + first))
        first += len(table)
    return tables


class Demonstrations:
    """Episodes of stores, loaded once. ``rows_of`` gives the frames that can be drawn from.

    ``tables`` are those of the stores, in which ``episode_index`` counts on from one store to the
    next: by these numbers episodes are named here.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        episodes: Sequence[int],
        robot: RobotSpec,
        *,
        tables: Sequence[pd.DataFrame] | None = None,
        progress: bool = False,
    ) -> None:
        """tables: what ``numbered`` gave for these stores; read anew if not given."""
        from tqdm import tqdm

        self.tables = numbered(stores) if tables is None else list(tables)
        for store in stores:
            check_store(store, robot)
        self.places = [store.root for store in stores]
        told = {
            int(row["episode_index"]): (store, index, int(row["length"]), str(row["instruction"]))
            for store, table in zip(stores, self.tables, strict=True)
            for index, row in enumerate(table.to_dict("records"))
        }
        self.robot = robot
        self.views = robot.views
        total = sum(told[i][2] for i in episodes)
        height, width = robot.image_size
        self.frames = np.empty((total, len(self.views), height, width, 3), np.uint8)
        self.poses = np.empty((total, robot.pose_dim), np.float32)
        steps = (robot.steps_per_frame, robot.action_dim)
        self.executed = np.zeros((total, *steps), np.float32)
        self.expert = np.zeros((total, *steps), np.float32)
        self.has_expert = np.zeros(total, bool)
        self.last = np.empty(total, np.int64)
        """Row of the last frame of each row's episode; it has no action of its own."""
        self.text = np.empty(total, np.int64)
        self.texts: list[str] = []
        self.rows: dict[int, range] = {}
        start = 0
        for i in tqdm(
            episodes,
            desc="loading demonstrations",
            unit="episode",
            disable=None if progress else True,
        ):
            store, index, length, instruction = told[i]
            rows = slice(start, start + length)
            moves = slice(start, start + length - 1)
            self.frames[rows] = store.frames(index)
            path = store.trajectory(index)
            self.poses[rows] = path.poses
            self.executed[moves] = path.actions
            if path.expert_actions is not None:
                self.expert[moves] = path.expert_actions
                self.has_expert[rows] = True
            self.last[rows] = start + length - 1
            if instruction not in self.texts:
                self.texts.append(instruction)
            self.text[rows] = self.texts.index(instruction)
            self.rows[i] = range(start, start + length)
            start += length
        self._blurred_row = np.full(total, -1, np.int64)
        self._blurred = np.empty((0, *self.frames.shape[1:]), np.uint8)

    @classmethod
    def load(
        cls,
        stores: str | Path | EpisodeStore | Sequence[str | Path | EpisodeStore],
        selections: Sequence[Selection],
        robot: RobotSpec,
        *,
        verdicts: Sequence[str | Path] = (),
        progress: bool = False,
    ) -> Demonstrations:
        """The episodes that any of ``selections`` wants, of one store or of several.

        verdicts: tables that say which episodes are solved, in place of the stores.
        """
        from worldeval.data.store.episodes import EpisodeStore

        several = [stores] if isinstance(stores, str | Path | EpisodeStore) else stores
        opened = [s if isinstance(s, EpisodeStore) else EpisodeStore.open(s) for s in several]
        tables = numbered(opened)
        if verdicts:
            tables = judged(tables, read_verdicts(verdicts))
        wanted: set[int] = set()
        for selection in selections:
            for store, table in zip(opened, tables, strict=True):
                train, held_out = choose(table, selection, store.root)
                wanted.update(train, held_out)
        return cls(opened, sorted(wanted), robot, tables=tables, progress=progress)

    def rows_of(self, episodes: Sequence[int], *, idle_share: float = 1.0) -> np.ndarray:
        """Rows of the frames of ``episodes`` that an action follows.

        idle_share: how many of the frames to keep at which nothing is left to do (the labels stand
            still). Episodes of fixed length are full of them, and they teach little.
        """
        rows = np.concatenate([np.asarray(self.rows[i][:-1], np.int64) for i in episodes])
        labels = np.where(
            self.has_expert[rows][:, None, None], self.expert[rows], self.executed[rows]
        )
        first = [int(self.rows[i][0]) for i in episodes]
        idle = (np.abs(self._motion_of(labels, np.isin(rows, first))) < IDLE).all((1, 2))
        still = rows[idle]
        kept = still[:: max(1, round(1 / idle_share))] if idle_share > 0 else still[:0]
        return np.sort(np.concatenate([rows[~idle], kept]))

    @property
    def moving(self) -> list[int]:
        """Places of the actions that move no gripper."""
        return list(self.robot.moving_axes)

    def _motion_of(self, labels: np.ndarray, first: np.ndarray) -> np.ndarray:
        """How far labels (N, S, A) move the robot; first (N,): rows at which an episode begins.

        Where an action says where to be, that is its way from the last one, by half its range.
        """
        robot = self.robot
        if robot.control_mode not in ABSOLUTE_MOTIONS:
            return labels[..., self.moving]
        last = np.roll(labels[:, -1], 1, axis=0)
        last = np.where(first[:, None], labels[:, 0], last)
        ways = np.diff(labels, axis=1, prepend=last[:, None])
        half = (np.array(robot.action_high) - robot.action_low) / 2
        return (ways / half)[..., self.moving]

    def corrupt(
        self, corruption: Corruption, *, share: float, seed: int = 0, progress: bool = False
    ) -> None:
        """Keep a corrupted twin of a random ``share`` of the frames, to be drawn in their place.

        Made once, before training: a pass through a world model's autoencoder in every batch would
        cost as much as the policy itself.
        """
        from tqdm import tqdm

        rng = np.random.default_rng([seed, 7])
        count = round(share * len(self.frames))
        rows = np.sort(rng.choice(len(self.frames), count, replace=False))
        self._blurred = np.empty((count, *self.frames.shape[1:]), np.uint8)
        for first in tqdm(
            range(0, count, CORRUPTION_BATCH),
            desc="corrupting frames",
            disable=None if progress else True,
        ):
            some = rows[first : first + CORRUPTION_BATCH]
            for view in range(len(self.views)):
                made = corruption(self.frames[some, view])
                if made.shape != self.frames[some, view].shape or made.dtype != np.uint8:
                    raise DataError(
                        f"the corruption returned {made.dtype} {made.shape}, expected "
                        f"uint8 {self.frames[some, view].shape}"
                    )
                self._blurred[first : first + len(some), view] = made
        self._blurred_row[:] = -1
        self._blurred_row[rows] = np.arange(count)

    def label_error(self, std: float, seed: int) -> np.ndarray:
        """What a sloppy demonstrator adds to his motion, (all rows, S, A): noise at every control
        step, and an offset of the same size that stays for an episode (and so does not average
        out over it). The gripper is spared."""
        rng = np.random.default_rng([seed, 11])
        error = rng.normal(0, std, self.executed.shape).astype(np.float32)
        for rows in self.rows.values():
            error[rows.start : rows.stop] += rng.normal(0, std, self.executed.shape[-1])
        error[..., -1] = 0
        return error

    def batch(
        self,
        rows: np.ndarray,
        *,
        views: Sequence[int],
        chunk: int,
        labels: str = "expert",
        hold_weight: float = 0.0,
        blurred: np.ndarray | None = None,
        label_error: np.ndarray | None = None,
    ) -> Batch:
        """The samples at ``rows``.

        labels: "expert" (what an expert would do there, as in DART, Laskey et al. 2017; executed
            actions where no expert was asked) or "executed".
        blurred: (B,) bool, take the corrupted twin of a frame where it has one.
        label_error: (all rows, S, A), added to the labels; see ``label_error``.
        """
        if list(views) == list(range(len(self.views))):
            frames = self.frames[rows]
        else:
            frames = self.frames[rows[:, None], np.asarray(views)]
        if blurred is not None:
            twin = self._blurred_row[rows]
            use = np.flatnonzero(blurred & (twin >= 0))
            frames[use] = self._blurred[twin[use]][:, list(views)]
        wanted, last, inside = self._following(rows, chunk)
        clipped = np.minimum(wanted, last - 1)
        actions = self.executed[clipped]  # (B, frames, S, A)
        if labels == "expert":
            known = self.has_expert[clipped][..., None, None]
            actions = np.where(known, self.expert[clipped], actions)
        if label_error is not None:
            actions = actions + label_error[clipped]
        hold = np.zeros_like(actions)
        held = list(self.robot.held_axes)
        hold[..., held] = actions[:, -1:, -1:][..., held]  # the last command of these
        actions = np.where(inside[..., None, None], actions, hold)
        batch = len(rows)
        return Batch(
            frames,
            self.poses[rows],
            self.text[rows],
            actions.reshape(batch, -1, actions.shape[-1])[:, :chunk].astype(np.float32),
            self.weights(rows, chunk, hold_weight),
        )

    def weights(self, rows: np.ndarray, chunk: int, hold_weight: float = 0.0) -> np.ndarray:
        """(B, chunk) of the samples at ``rows``: 1 within the episode, then ``hold_weight``."""
        weights = np.where(self._following(rows, chunk)[2], 1.0, hold_weight).astype(np.float32)
        return np.repeat(weights, self.robot.steps_per_frame, axis=1)[:, :chunk]

    def _following(self, rows: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The frames (B, F) from which a chunk acts, the last ones (B, 1), and which have actions:
        all before the last frame."""
        wanted = rows[:, None] + np.arange(-(-chunk // self.robot.steps_per_frame))
        last = self.last[rows][:, None]
        return wanted, last, wanted < last
