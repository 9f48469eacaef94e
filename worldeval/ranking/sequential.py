"""Is policy b better than policy a, while the rollouts come in? Look as often as you like.

In: outcomes or scores in [0, 1] of both policies, start state by start state.
Out: e-values: capital of a bet against "b is not better", whose expectation is at most 1 at any
time if it is true. By Ville's inequality it ever reaches 1/alpha with a probability of at most
alpha, so that stopping there is right whatever made one look.

Two bets:

- "betting": E_n = mean over xi in (0, 1) of prod_i (1 + xi (b_i - a_i)). If the mean of b - a,
  given the past, is at most 0, no factor expects to win, HOWEVER a and b of one start state hang
  together, and for any scores in [0, 1]. This is the one for rollouts from the same start states,
  which share an easy or a hard scene (a capital process as in Waudby-Smith & Ramdas, JRSS B 86,
  2024, with a mixture in place of a predicted bet; cf. N-SCORE, arXiv 2603.13616).
- "turner-grunwald": E_n = prod_i f_p(a_i) f_q(b_i) / (f_m(a_i) f_m(b_i)), m = (p + q) / 2 (Turner
  & Grunwald, arXiv 2106.02693), with 0 and 1 only. The denominator is the likelihood of
  INDEPENDENT outcomes: where one policy tends to fail where the other succeeds, pairs (0, 1) and
  (1, 0) come more often than independence allows, the factor expects more than 1 under equal
  rates, and false alarms exceed alpha. Use it for two independent streams of rollouts.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from worldeval.errors import ConfigError, DataError
from worldeval.ranking.scores import score_of

METHODS = ("betting", "turner-grunwald")

_BETS = (np.arange(64) + 0.5) / 64
"""xi of the mixture: even, since how much better b is nobody knows. Any fixed weights are valid."""

_LARGEST_LOG = 700.0
"""exp of more is infinite."""


class _Bet(Protocol):
    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """log E after these pairs, one of each row; NaN leaves a row as it is."""
        ...


class _Mixture:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.log_capital = np.zeros((*shape, len(_BETS)))
        self.log_e = np.zeros(shape)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        won = np.nan_to_num(b - a)
        if won.any():  # a tie moves no capital, and most pairs tie
            self.log_capital += np.log1p(_BETS * won[..., None])
            most = self.log_capital.max(axis=-1, keepdims=True)
            self.log_e = most[..., 0] + np.log(np.exp(self.log_capital - most).mean(axis=-1))
        return self.log_e


class _TurnerGrunwald:
    """p and q: posterior means before each pair, from the priors Beta(1, 2) and Beta(2, 1)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.log_e = np.zeros(shape)
        self.trials, self.a, self.b = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        known = np.isfinite(a) & np.isfinite(b)
        a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
        if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
            raise DataError(
                "method 'turner-grunwald' knows outcomes 0 and 1 only, these are scores between; "
                "use method='betting'"
            )
        p, q = (1 + self.a) / (3 + self.trials), (2 + self.b) / (3 + self.trials)
        m = (p + q) / 2
        factor = np.log(np.where(a == 1, p / m, (1 - p) / (1 - m)))
        factor += np.log(np.where(b == 1, q / m, (1 - q) / (1 - m)))
        self.log_e = self.log_e + np.where(known & (p < q), factor, 0.0)
        self.trials, self.a, self.b = self.trials + known, self.a + a, self.b + b
        return self.log_e


def e_values(pairs: Any, method: str = "turner-grunwald") -> np.ndarray:
    """The running e-value of "b is better than a", after each pair.

    pairs: (..., n, 2) outcomes or scores in [0, 1] of (a, b); NaN, or None, leaves a pair out.
        Leading axes are separate comparisons.
    method: "betting", or "turner-grunwald" for independent streams of 0 and 1; see the module.

    Returns (..., n) float64. Valid at any time: min(1, 1 / max(E)) is a p-value.

    >>> e_values([(0, 1), (0, 1), (0, 1), (0, 1)]).round(6).tolist()
    [1.777778, 4.0, 10.24, 28.444444]
    """
    scores = _pair_scores(pairs)
    bet = _bet(method, scores.shape[:-2])
    running = np.empty(scores.shape[:-1])
    for i in range(scores.shape[-2]):
        running[..., i] = bet.add(scores[..., i, 0], scores[..., i, 1])
    return np.exp(np.minimum(running, _LARGEST_LOG))


class SequentialComparison:
    """Compare two policies as their rollouts come in, and say when it is decided.

    Two bets run, one on each policy, each against alpha / 2: together they are wrong with a
    chance of at most alpha, however often one looks and whenever one stops. A decision, once
    made, stays.

    >>> comparison = SequentialComparison(alpha=0.05)
    >>> while comparison.decision is None:
    ...     comparison.add(a=0, b=1)
    >>> comparison.decision, comparison.pairs
    ('b', 8)
    """

    def __init__(self, alpha: float = 0.05, method: str = "betting") -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is {alpha!r}, expected a number between 0 and 1")
        self.alpha, self.method = alpha, method
        self.pairs = 0
        """Pairs decided on both sides."""
        self.undecided = 0
        """Pairs left out, since at least one side is unknown."""
        self.decision: str | None = None
        """"a" or "b", the better one; None while nothing is decided."""
        self._bets: dict[str, _Bet] = {side: _bet(method, ()) for side in ("a", "b")}
        self._log_e = {"a": 0.0, "b": 0.0}
        self._most = 0.0

    def add(self, a: Any, b: Any) -> None:
        """One start state: the outcome, or score in [0, 1], of both policies."""
        scores = np.float64(score_of(a, "a")), np.float64(score_of(b, "b"))
        if np.isnan(scores).any():
            self.undecided += 1
            return
        self.pairs += 1
        self._log_e["b"] = float(self._bets["b"].add(np.asarray(scores[0]), np.asarray(scores[1])))
        self._log_e["a"] = float(self._bets["a"].add(np.asarray(scores[1]), np.asarray(scores[0])))
        self._most = max(self._most, *self._log_e.values())
        # The two cannot cross at once: where one wins, the other loses.
        if self.decision is None and self._most >= math.log(2 / self.alpha):
            self.decision = max(self._log_e, key=lambda side: self._log_e[side])

    @property
    def e_a_better(self) -> float:
        """The e-value of "a is better than b" now."""
        return math.exp(min(self._log_e["a"], _LARGEST_LOG))

    @property
    def e_b_better(self) -> float:
        """The e-value of "b is better than a" now."""
        return math.exp(min(self._log_e["b"], _LARGEST_LOG))

    @property
    def p_value(self) -> float:
        """Two-sided, valid at any time: min(1, 2 / the largest e-value so far)."""
        return min(1.0, 2 * math.exp(-self._most))


def _bet(method: str, shape: tuple[int, ...]) -> _Bet:
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {list(METHODS)}")
    return _Mixture(shape) if method == "betting" else _TurnerGrunwald(shape)


def _pair_scores(pairs: Any) -> np.ndarray:
    scores = np.asarray(pairs)
    if scores.dtype.kind not in "fiub":
        values = np.asarray(pairs, dtype=object)
        flat = [score_of(value, "a pair") for value in values.ravel()]
        scores = np.array(flat, np.float64).reshape(values.shape)
    scores = scores.astype(np.float64)
    if scores.ndim < 2 or scores.shape[-1] != 2:
        raise DataError(f"pairs have the shape {scores.shape}, expected (n, 2): a and b of each")
    if ((scores < 0) | (scores > 1)).any():
        raise DataError("a pair has a score outside [0, 1]; divide by the largest possible score")
    return scores
