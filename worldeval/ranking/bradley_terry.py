"""Strengths of policies that met two at a time, with ties.

In: who won how often against whom. Out: ``BradleyTerry``: a strength per policy, its standard
error, a score on the scale of chess ratings, and intervals.

Bradley & Terry (Biometrika 39, 1952) with the ties of Davidson (JASA 65, 1970)::

    P(i wins) = e^t_i / Z,   P(j wins) = e^t_j / Z,   P(tie) = 2 nu e^((t_i + t_j)/2) / Z

with Z the sum of the three and sum_i t_i = 0. The likelihood is concave in (t, log nu): Newton's
method finds its only maximum. Standard errors are the diagonal of the pseudo-inverse of its
curvature, which leaves out the level that the games cannot tell.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.intervals import Interval, normal_quantile, tail_of

SCORE_OF_EQUALS = 1500.0
SCORE_PER_STRENGTH = 200.0

_STEPS = 200
_LARGEST_STEP = 1.0
"""In strength; far from the maximum a full Newton step overshoots."""

Game = tuple[str, str, float, Hashable]
"""(a, b, result of a: 1 won, 0 lost, 0.5 tie, the evaluation round it belongs to)."""


@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """All in the order of ``names``, the order in which the policies first appear.

    theta: strengths, their mean is 0. sd: their standard errors. nu: of ties, 0 for none.
    scores: 1500 + 200 theta. intervals: of the scores, from the standard errors, or percentiles
        over resampled rounds where draws were asked for; None where these do not bound the score.
    warnings: sentences that say why.
    """

    names: tuple[str, ...]
    theta: tuple[float, ...]
    sd: tuple[float, ...]
    nu: float
    scores: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    warnings: tuple[str, ...] = ()


def bradley_terry(
    games: Mapping[tuple[str, str], tuple[float, float, float]] | Iterable[Game],
    *,
    draws: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> BradleyTerry:
    """Strengths from games with ties, by maximum likelihood.

    games: {(a, b): (wins of a, losses of a, ties)}, or rows (a, b, result, round), the result of
        a being 1, 0 or 0.5 for a tie. Games of one round (one evening, one scene) hang together.
    draws: resamplings of whole rounds with replacement for the intervals; 0 takes the standard
        errors, which call every game independent. Counts have no rounds: each game is its own.

    Raises DataError if there is no maximum: a group of policies that never lost a point to the
    rest (or never met it) is infinitely stronger, and games that are all ties rank nobody.

    >>> found = bradley_terry({("A", "B"): (3, 1, 0)})
    >>> [round(score) for score in found.scores]
    [1610, 1390]
    """
    if draws < 0 or draws != int(draws):
        raise ConfigError(f"draws is {draws!r}, expected a whole number of 0 or more")
    tail = tail_of(confidence)
    names, rounds, times = _tables(games)
    every = np.tensordot(times, rounds, axes=1)[None]
    _check_maximum(names, every)
    theta, nu, curvature = _fit(every)
    sd = np.sqrt(np.diag(np.linalg.pinv(curvature[0], hermitian=True))[: len(names)])
    scores = SCORE_OF_EQUALS + SCORE_PER_STRENGTH * theta[0]
    half = normal_quantile(confidence) * SCORE_PER_STRENGTH * sd
    low, high = scores - half, scores + half
    warnings: tuple[str, ...] = ()
    bounded = True
    if draws:
        taken = np.random.default_rng(seed).multinomial(
            round(times.sum()), times / times.sum(), size=draws
        )
        drawn = np.tensordot(taken, rounds, axes=1)
        fit = _has_maximum(drawn)
        bounded = bool((~fit).sum() <= tail * draws)
        if bounded:
            sample = SCORE_OF_EQUALS + SCORE_PER_STRENGTH * _fit(drawn[fit])[0]
            low, high = np.quantile(sample, [tail, 1 - tail], axis=0)
        else:
            warnings = (
                f"in {(~fit).sum()} of {draws} resamplings of the rounds some policy is unbeaten "
                f"or meets nobody, so that the scores have no bounds; play more rounds",
            )
    return BradleyTerry(
        names=names,
        theta=tuple(theta[0].tolist()),
        sd=tuple(sd.tolist()),
        nu=float(nu[0]),
        scores=tuple(scores.tolist()),
        intervals=tuple(
            Interval(x, y) if bounded else None
            for x, y in zip(low.tolist(), high.tolist(), strict=True)
        ),
        warnings=warnings,
    )


def _tables(
    games: Mapping[tuple[str, str], tuple[float, float, float]] | Iterable[Game],
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names, (R, 2, P, P) wins of the row over the column and ties, and how often each was (R,)."""
    rows: list[Game] = []
    weights: list[float] = []
    if isinstance(games, Mapping):
        for (a, b), counts in games.items():
            if len(counts) != 3 or not all(np.isfinite(c) and c >= 0 for c in counts):
                raise DataError(
                    f"{a!r} against {b!r} has {counts!r}, expected (wins, losses, ties), each 0 or "
                    f"more"
                )
            rows += [(a, b, result, (a, b, result)) for result in (1.0, 0.0, 0.5)]
            weights += list(counts)
    else:
        rows = list(games)
    names = tuple(dict.fromkeys(name for row in rows for name in row[:2]))
    index = {name: i for i, name in enumerate(names)}
    place = {label: i for i, label in enumerate(dict.fromkeys(row[3] for row in rows))}
    rounds = np.zeros((len(place), 2, len(names), len(names)))
    for a, b, result, label in rows:
        i, j, one = index[a], index[b], rounds[place[label]]
        if i == j:
            raise DataError(f"{a!r} plays against itself; expected two different policies")
        if result == 0.5:
            one[1, i, j] += 1
            one[1, j, i] += 1
        elif result in (0, 1):
            one[(0, i, j) if result else (0, j, i)] += 1
        else:
            raise DataError(
                f"the result of {a!r} against {b!r} is {result!r}, expected 1, 0, or 0.5 for a tie"
            )
    return names, rounds, np.array(weights) if weights else np.ones(len(rounds))


def _check_maximum(names: tuple[str, ...], every: np.ndarray) -> None:
    if len(names) < 2:
        raise DataError(f"{len(names)} policies have played, expected at least 2")
    if not every[0, 0].any():
        raise DataError("all games are ties, or there are none: they rank nobody; play more games")
    took = _reach(every)[0]
    for i in range(len(names)):
        weaker = [name for j, name in enumerate(names) if not took[j, i]]
        if weaker:
            rest = [name for name in names if name not in weaker]
            raise DataError(
                f"{weaker} never took a point from {rest}: how much weaker they are is unbounded; "
                f"play more games between the two groups, or rank each alone"
            )


def _has_maximum(tables: np.ndarray) -> np.ndarray:
    """(D,) whether everybody took points from everybody, over others."""
    return np.logical_and(_reach(tables).all(axis=(1, 2)), tables[:, 0].any(axis=(1, 2)))


def _reach(tables: np.ndarray) -> np.ndarray:
    """(D, P, P): whether the row took points from the column, over others too."""
    reach = (tables.sum(axis=1) > 0) | np.eye(tables.shape[-1], dtype=bool)
    for _ in range(int(np.ceil(np.log2(max(2, tables.shape[-1]))))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return reach


def _fit(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newton's method: (D, 2, P, P) -> strengths (D, P), nu (D,), curvature (D, P + 1, P + 1)."""
    wins, ties = tables[:, 0], tables[:, 1]
    played = wins + wins.swapaxes(1, 2) + ties
    points = (wins + ties / 2).sum(axis=2)
    tied = ties.sum(axis=(1, 2)) / 2
    some = tied > 0
    draws, policies = points.shape
    theta, log_nu = np.zeros((draws, policies)), np.zeros(draws)
    curvature = np.zeros((draws, policies + 1, policies + 1))
    level = np.zeros((policies + 1, policies + 1))
    level[:policies, :policies] = 1 / policies  # the games leave the level open: keep it at 0
    for _ in range(_STEPS):
        half = (theta[:, :, None] - theta[:, None, :]) / 2
        double_nu = 2 * np.where(some, np.exp(log_nu), 0.0)[:, None, None]
        total = np.exp(half) + np.exp(-half) + double_nu
        win, tie = np.exp(half) / total, double_nu / total
        mean = win + tie / 2
        spread = played * (win + tie / 4 - mean**2)
        curvature[:, :policies, :policies] = -spread
        diagonal = np.arange(policies)
        curvature[:, diagonal, diagonal] += spread.sum(axis=2)
        both = (played * tie * (0.5 - mean)).sum(axis=2)
        curvature[:, :policies, policies] = curvature[:, policies, :policies] = both
        curvature[:, policies, policies] = (played * tie * (1 - tie)).sum(axis=(1, 2)) / 2
        gradient = np.concatenate(
            [
                points - (played * mean).sum(axis=2),
                (tied - (played * tie).sum(axis=(1, 2)) / 2)[:, None],
            ],
            axis=1,
        )
        solvable = curvature + level
        solvable[:, policies, policies] += ~some  # without ties nu is 0 and does not move
        step = np.linalg.solve(solvable, gradient[..., None])[..., 0]
        step = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        theta, log_nu = theta + step[:, :policies], log_nu + step[:, policies]
        if not step.size or np.abs(step).max() < 1e-9:
            break
    theta -= theta.mean(axis=1, keepdims=True)
    return theta, np.where(some, np.exp(log_nu), 0.0), curvature
