"""Which episodes are learned from, and how often each is drawn.

Enters: tables of stores (``EpisodeStore.metadata``), verdicts of a judge, choices. Leaves: numbers
of episodes to train on and to hold out, the weights of advantage-weighted cloning, and a
``Sampler``, which draws rows of frames from several stores at given shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldeval.data.tables import KEY, Table
from worldeval.errors import DataError
from worldeval.policies.cloning.config import Selection
from worldeval.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

PROBABILITY = "probability"
"""Column of a verdict table by which episodes can be weighed too."""
MOST_WEIGHT = 20.0
"""Largest weight of an episode, as AWR and AWAC clip it: one lucky episode must not be all data."""


def choose(
    table: pd.DataFrame, selection: Selection, where: str | Path = "the store"
) -> tuple[list[int], list[int]]:
    """Episode indices to train on and to hold out, of a store's ``metadata()``.

    where: the store, for messages.
    """
    if not len(table):
        raise DataError(f"{where} holds no episodes; record some with `worldeval record`")
    chosen = table
    for column, wanted in (("task", selection.tasks), ("kind", selection.kinds)):
        if wanted is None:
            continue
        if column not in chosen.columns:
            raise DataError(
                f"{where} has no column {column!r} to select {list(wanted)} from; "
                f"it has {list(table.columns)}"
            )
        unknown = set(wanted) - set(chosen[column])
        if unknown:
            raise DataError(
                f"{where} has no {column} {sorted(unknown)[0]!r}; it has "
                f"{sorted(map(str, set(table[column])))}"
            )
        chosen = chosen[chosen[column].isin(wanted)]
    if selection.only_successful:
        solved = chosen["success"].fillna(False).astype(bool)
        if not solved.any():
            unknown_ones = int(chosen["success"].isna().sum())
            raise DataError(
                f"{where}: none of {len(chosen)} episodes is solved ({unknown_ones} are not "
                "judged); judge them and name the table in --verdicts, or leave away "
                "--only-successful"
            )
        chosen = chosen[solved]
    train: list[int] = []
    held_out: list[int] = []
    for _, rows in chosen.groupby("task", sort=True):
        pairs = sorted(
            (hashlib.sha256(str(key).encode()).hexdigest(), int(index))
            for key, index in zip(rows["key"], rows["episode_index"], strict=True)
        )
        order = [index for _, index in pairs]
        apart = selection.held_out if len(order) >= 10 else 0
        held_out += order[len(order) - apart :]
        order = order[: len(order) - apart]
        train += order[: selection.demonstrations]
    if not train:
        raise DataError(
            f"{where}: no episode of {len(table)} fits {selection}; record more or select less"
        )
    return train, held_out


def read_verdicts(paths: Sequence[str | Path]) -> dict[str, tuple[Outcome, float]]:
    """Key -> (outcome, probability or NaN) of verdict tables; DataError if two judge an episode."""
    found: dict[str, tuple[Outcome, float]] = {}
    for path in paths:
        table = Table.read(path)
        pairs = zip(table.outcomes(), table.numbers(PROBABILITY), strict=True)
        for (key,), verdict in table.once(list(pairs), KEY).items():
            if found.setdefault(key, verdict) is not verdict:
                raise DataError(
                    f"{path} has a verdict on {key!r}, which an earlier table of {list(paths)} has "
                    "too; keep one verdict per episode"
                )
    return found


def judged(
    tables: Sequence[pd.DataFrame], verdicts: Mapping[str, tuple[Outcome, float]]
) -> list[pd.DataFrame]:
    """Tables of stores in which ``success`` and ``probability`` are what the verdicts say.

    Of episodes without a verdict they stay as they are. DataError if no episode has one.
    """
    import pandas as pd

    meant = {Outcome.SUCCESS: True, Outcome.FAILURE: False}
    found, matched = [], 0
    for table in tables:
        known = table["key"].isin(verdicts.keys())
        matched += int(known.sum())
        success = [
            meant.get(verdicts[key][0]) if has else (None if pd.isna(own) else bool(own))
            for key, has, own in zip(table["key"], known, table["success"], strict=True)
        ]
        before = table.get(PROBABILITY, pd.Series([None] * len(table), index=table.index))
        judged_as = [
            verdicts[key][1] if has else own
            for key, has, own in zip(table["key"], known, before, strict=True)
        ]
        found.append(
            table.assign(
                success=pd.array(success, dtype="boolean"),
                **{PROBABILITY: pd.Series(judged_as, index=table.index, dtype=object)},
            )
            if known.any()
            else table
        )
    if not matched:
        raise DataError(
            f"none of the {len(verdicts)} verdicts is about an episode of the stores (such as "
            f"{next(iter(verdicts), None)!r}); give the tables of these rollouts"
        )
    return found


def weights(
    table: pd.DataFrame,
    episodes: Sequence[int],
    column: str,
    temperature: float | None,
    where: str | Path,
) -> dict[int, float]:
    """Episode -> exp((advantage - mean) / temperature), mean 1 and at most MOST_WEIGHT.

    temperature: in the unit of ``column``; None takes its standard deviation. DataError for an
    episode without the number.
    """
    cells = table.set_index("episode_index")[column]
    numbers = np.empty(len(episodes))
    for place, episode in enumerate(episodes):
        cell = cells[episode]
        if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.number):
            cell = np.nan
        numbers[place] = cell
        if not np.isfinite(numbers[place]):
            raise DataError(
                f"{where}: episode {table.set_index('episode_index')['key'][episode]!r} has "
                f"{column} {cells[episode]!r}, expected a number to weigh it by; leave it out, or "
                "take another --advantage"
            )
    scale = float(numbers.std()) if temperature is None else temperature
    exponent = (numbers - numbers.mean()) / scale if scale > 0 else np.zeros(len(numbers))
    relative = np.exp(np.minimum(exponent, 50.0))
    relative = np.minimum(relative / relative.mean(), MOST_WEIGHT)
    return dict(zip(map(int, episodes), (relative / relative.mean()).tolist(), strict=True))


class Sampler:
    """Draws rows from several sources, each with its share, rows of a source by their weights."""

    def __init__(
        self,
        sources: Sequence[np.ndarray],
        shares: Sequence[float] | None = None,
        weights: Sequence[np.ndarray] | None = None,
    ) -> None:
        """sources: rows (n,) of each. shares: of the samples; None: as many as it has rows.

        weights: (n,) of each source's rows, relative; None: all alike.
        """
        self.rows = np.concatenate(sources)
        self._until: np.ndarray | None = None
        if shares is None and weights is None:
            return
        counts = np.array([len(rows) for rows in sources], float)
        parts = counts / counts.sum() if shares is None else np.asarray(shares, float)
        relative = weights or [np.ones(len(rows)) for rows in sources]
        chances = [part * w / w.sum() for part, w in zip(parts, relative, strict=True)]
        self._until = np.concatenate(chances).cumsum()

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """``count`` rows, with replacement."""
        if self._until is None:
            return self.rows[rng.integers(0, len(self.rows), count)]
        places = np.searchsorted(self._until, rng.random(count) * self._until[-1], side="right")
        return self.rows[np.minimum(places, len(self.rows) - 1)]
