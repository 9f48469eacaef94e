"""How far several raters agree on the same rollouts, beyond chance.

Enters: who said what of which rollout (a judge, people, the world); not everyone rates everything.
Leaves: Cohen's kappa for two raters and Krippendorff's alpha for any number, with intervals from
resampling the rollouts. 1 is perfect agreement, 0 what chance would give, below 0 worse.

Abstentions are missing labels, not a category of their own: an undecided rater disagrees with
nobody.

Sources: Cohen 1960, "A coefficient of agreement for nominal scales"; Krippendorff 2011, "Computing
Krippendorff's Alpha-Reliability" (nominal metric).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError
from worldeval.settings import settings_from
from worldeval.types import Outcome

Label = Hashable
"""What a rater says; None and NaN: nothing."""


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """A coefficient of agreement over ``rollouts`` that at least two rated.

    value is None where it is not defined: nothing was rated twice, or all labels are the same, so
    that there is nothing to agree on. low and high are None where resampling cannot tell.
    """

    value: float | None
    low: float | None
    high: float | None
    rollouts: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two raters: their kappa, and the share of rollouts on which they say the same."""

    first: str
    second: str
    kappa: Coefficient
    same: float | None


@dataclass(frozen=True, kw_only=True)
class RaterAgreement:
    """All raters: alpha over all of them, kappa for every two."""

    raters: tuple[str, ...]
    alpha: Coefficient
    pairs: tuple[Pair, ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RaterAgreement:
        """The inverse of ``dataclasses.asdict``."""
        return settings_from(cls, content)


def cohen_kappa(
    first: Sequence[Label],
    second: Sequence[Label],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Coefficient:
    """kappa = (p_o - p_e) / (1 - p_e) of two raters' labels, row by row of one rollout.

    p_o: share of equal labels; p_e = sum over labels of the product of both raters' shares, what
    independent raters with these habits would reach. Rows that one of them left out do not count.
    """
    codes, categories = _encode([first, second])
    both = (codes >= 0).all(axis=0)
    cells = np.zeros((int(both.sum()), categories * categories))
    cells[np.arange(len(cells)), codes[0, both] * categories + codes[1, both]] = 1

    def kappa(sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(-1, categories, categories)
        n = table.sum((1, 2))
        agreed = np.trace(table, axis1=1, axis2=2) / n
        chance = (table.sum(1) * table.sum(2)).sum(1) / n**2
        with np.errstate(invalid="ignore"):
            return np.where(chance < 1, (agreed - chance) / (1 - chance), np.nan)

    return _with_interval(kappa, cells, confidence=confidence, draws=draws, seed=seed)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Label]],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Coefficient:
    """alpha = 1 - D_observed / D_expected for nominal labels; ratings (raters, rollouts).

    A rollout with m labels adds to the coincidences o_ck (its pairs of labels c, k by different
    raters) / (m - 1); with n_c their sums over k and n over all,
    alpha = 1 - (n - 1) sum_{c != k} o_ck / sum_{c != k} n_c n_k.
    Any number of raters, any labels missing; a rollout with fewer than two labels does not count.
    """
    codes, categories = _encode(ratings)
    counts = np.stack([(codes == c).sum(axis=0) for c in range(categories)], axis=1).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]
    labels = counts.sum(axis=1, keepdims=True)
    # Per rollout: labels of each category, then its coincidences of different labels.
    different = (labels[:, 0] ** 2 - (counts**2).sum(axis=1)) / np.maximum(labels[:, 0] - 1, 1)
    parts = np.column_stack([counts, different])

    def alpha(sums: np.ndarray) -> np.ndarray:
        per_label, observed = sums[:, :-1], sums[:, -1]
        n = per_label.sum(axis=1)
        expected = n**2 - (per_label**2).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan)

    return _with_interval(alpha, parts, confidence=confidence, draws=draws, seed=seed)


def agreement_of_raters(
    ratings: Mapping[str, Mapping[Hashable, Outcome]],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> RaterAgreement:
    """Alpha and kappas of raters who said outcomes of rollouts; only SUCCESS and FAILURE count.

    Raises DataError for fewer than two raters.
    """
    if len(ratings) < 2:
        raise DataError(
            f"agreement needs at least two raters, got {sorted(ratings)}; give the labels of "
            "another"
        )
    names = tuple(ratings)
    rollouts = list(dict.fromkeys(item for said in ratings.values() for item in said))
    decided = {
        name: {r: outcome for r, outcome in ratings[name].items() if outcome.decided}
        for name in names
    }
    rows = {name: [decided[name].get(r) for r in rollouts] for name in names}
    options: Any = {"confidence": confidence, "draws": draws, "seed": seed}
    pairs = [
        Pair(
            first=first,
            second=second,
            kappa=cohen_kappa(rows[first], rows[second], **options),
            same=_same(rows[first], rows[second]),
        )
        for number, first in enumerate(names)
        for second in names[number + 1 :]
    ]
    alpha = krippendorff_alpha(list(rows.values()), **options)
    return RaterAgreement(raters=names, alpha=alpha, pairs=tuple(pairs))


def _same(first: Sequence[Label], second: Sequence[Label]) -> float | None:
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return sum(a == b for a, b in both) / len(both) if both else None


def _encode(ratings: Sequence[Sequence[Label]]) -> tuple[np.ndarray, int]:
    """Codes (raters, rollouts) of the labels, -1 where missing, and how many labels there are."""
    lengths = [len(row) for row in ratings]
    if len(lengths) < 2 or len(set(lengths)) != 1:
        raise DataError(
            f"ratings of lengths {lengths}, expected two or more raters with one label (or None) "
            "for every rollout"
        )
    known: dict[Label, int] = {}

    def code(label: Label) -> int:
        # NaN, the missing value of tables, is the one label that does not equal itself.
        return -1 if label is None or label != label else known.setdefault(label, len(known))

    codes = np.array([[code(label) for label in row] for row in ratings], np.int64)
    return codes.reshape(len(lengths), lengths[0]), max(len(known), 1)


def _with_interval(
    statistic: Any, parts: np.ndarray, *, confidence: float, draws: int, seed: int
) -> Coefficient:
    """The statistic of the summed parts (rollouts, :), and its percentiles over resamples."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence!r}, expected a number between 0 and 1")
    if draws < 1:
        raise ConfigError(f"draws is {draws!r}, expected at least 1")
    rollouts = len(parts)
    if not rollouts:
        return Coefficient(value=None, low=None, high=None, rollouts=0)
    value = float(statistic(parts.sum(axis=0, keepdims=True))[0])
    if not np.isfinite(value):
        return Coefficient(value=None, low=None, high=None, rollouts=rollouts)
    # Rollouts that were rated alike are alike: drawing kinds of them is drawing them, and faster.
    kinds, numbers = np.unique(parts, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(rollouts, numbers / rollouts, size=draws)
    values = statistic(drawn @ kinds)
    values = values[np.isfinite(values)]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail]) if len(values) else (None, None)
    return Coefficient(
        value=value,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        rollouts=rollouts,
    )
