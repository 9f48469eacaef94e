"""Is policy b better than policy a, after a number of rollouts fixed in advance?

In: counts of two independent samples, or the outcomes of both policies from the same start states.
Out: ``TestResult`` and ``PairedTest`` (p-values), ``Interval`` (of the difference of the rates).

Barnard 1945 (unconditional exact test), Newcombe 1998 (interval of a difference), McNemar 1947
exact and the sign-flip permutation test (Fisher 1935) for pairs. To look at the result while
rollouts still come in, use ``sequential``: a p-value from here is right once only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking.barnard import barnard
from worldeval.ranking.intervals import Interval, check_counts, normal_quantile, wilson_interval
from worldeval.ranking.scores import scores_of

ALTERNATIVES = ("two-sided", "less", "greater")

_ENUMERATED_PAIRS = 12
"""Up to so many differing pairs all 2^n sign flips are counted, above they are drawn."""

_FLIPS = 9999


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A test statistic and the probability of one at least as extreme if there is no difference."""

    __test__ = False  # not a test class for pytest

    statistic: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two policies from the same start states.

    pairs: start states decided on both sides; ``undecided`` more were left out.
    only_a, only_b: pairs in which that policy did better (alone succeeded).
    both, neither: pairs in which both scored the same, above 0 and 0.
    difference: mean score of b - mean score of a, with its interval.
    """

    pairs: int
    only_a: int
    only_b: int
    both: int
    neither: int
    undecided: int
    difference: float
    low: float
    high: float
    p_value: float


def barnard_test(
    successes_a: int,
    trials_a: int,
    successes_b: int,
    trials_b: int,
    alternative: str = "two-sided",
) -> TestResult:
    """Barnard's unconditional exact test of equal success rates, of independent samples.

    alternative: "less" asks whether a's rate is below b's, "greater" above.

    Statistic: Wald's (p_a - p_b) / se, with the pooled variance for equal trials. p: the
    probability of one as extreme at the common rate that makes it largest (Barnard, Nature 156,
    1945). More powerful than Fisher's test. Two samples without a failure, or without a success,
    give p = 1. Raises DataError for no trials and for half successes, which no exact test knows.
    """
    if alternative not in ALTERNATIVES:
        raise ConfigError(f"alternative is {alternative!r}, expected one of {list(ALTERNATIVES)}")
    for side, successes, trials in (("a", successes_a, trials_a), ("b", successes_b, trials_b)):
        check_counts(successes, trials)
        if trials == 0:
            raise DataError(f"{side} has 0 trials: there is nothing to test; roll out {side}")
        if successes != int(successes) or trials != int(trials):
            raise DataError(
                f"{side} has {successes!r} successes of {trials!r} trials; Barnard's test takes "
                f"whole counts, use paired_test for scores"
            )
    statistic, p_value = barnard(
        int(successes_a), int(trials_a), int(successes_b), int(trials_b), alternative
    )
    return TestResult(statistic=statistic, p_value=p_value)


def difference_interval(
    successes_a: float,
    trials_a: float,
    successes_b: float,
    trials_b: float,
    confidence: float = 0.95,
) -> Interval:
    """Newcombe's interval of p_b - p_a, of independent samples (Stat. Med. 17, 1998, method 10).

    With the Wilson intervals [l, u] of both rates::

        d - sqrt((p_b - l_b)^2 + (u_a - p_a)^2),  d + sqrt((u_b - p_b)^2 + (p_a - l_a)^2)

    Without trials on either side nothing is known: [-1, 1].
    """
    a = wilson_interval(successes_a, trials_a, confidence)
    b = wilson_interval(successes_b, trials_b, confidence)
    if trials_a == 0 or trials_b == 0:
        return Interval(-1.0, 1.0)
    return square_and_add(successes_a / trials_a, a, successes_b / trials_b, b)


def square_and_add(rate_a: float, a: Interval, rate_b: float, b: Interval) -> Interval:
    """The interval of rate_b - rate_a from an interval of each, of independent samples."""
    difference = rate_b - rate_a
    below = math.hypot(rate_b - b.low, a.high - rate_a)
    above = math.hypot(b.high - rate_b, rate_a - a.low)
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def paired_test(
    a: Iterable[Any] | Mapping[Any, Any],
    b: Iterable[Any] | Mapping[Any, Any],
    confidence: float = 0.95,
    *,
    seed: int = 0,
) -> PairedTest:
    """Compare two policies start state by start state.

    a, b: outcomes, or scores in [0, 1], of the same start states and seeds: sequences in the same
        order, or mappings start -> outcome. UNDECIDED, ERROR, None and NaN leave their pair out.

    p_value, two-sided: for 0 and 1 McNemar's exact test, Binomial(only_a + only_b, 1/2) (1947);
    for other scores the permutation test that flips the signs of the differences (Fisher 1935),
    all 2^n of them up to 12 differing pairs, else 9999 drawn with ``seed``. Pairs that all tie
    give p = 1.

    The interval of the difference d = mean(b) - mean(a) adds one pair in favour of each policy,
    so that it keeps a width where all pairs tie (Bonett & Price, JEBS 37, 2012, for 0 and 1)::

        mean(d') +- z std(d') / sqrt(n + 2),   d' = the differences, and +1 and -1

    Raises MismatchError, naming the start states, if the two mappings have different ones;
    DataError if no pair is decided.

    >>> paired_test([0, 0, 0, 1, 0], [1, 1, 1, 1, 0]).p_value
    0.25
    """
    scores_a, scores_b = _same_starts(a, b)
    decided = np.isfinite(scores_a) & np.isfinite(scores_b)
    scores_a, scores_b = scores_a[decided], scores_b[decided]
    pairs = len(scores_a)
    if not pairs:
        raise DataError(
            f"none of {len(decided)} start states is decided for both policies; there is nothing "
            f"to compare"
        )
    differences = np.round(scores_b - scores_a, 12)  # 0.3 - (0.1 + 0.2) is a tie
    tied = differences == 0
    bonett_price = np.concatenate([differences, (1.0, -1.0)])
    half = normal_quantile(confidence) * bonett_price.std() / math.sqrt(pairs + 2)
    return PairedTest(
        pairs=pairs,
        only_a=int((differences < 0).sum()),
        only_b=int((differences > 0).sum()),
        both=int((tied & (scores_a > 0)).sum()),
        neither=int((tied & (scores_a == 0)).sum()),
        undecided=int((~decided).sum()),
        difference=float(differences.mean()),
        low=max(-1.0, float(bonett_price.mean() - half)),
        high=min(1.0, float(bonett_price.mean() + half)),
        p_value=_sign_flip_p(differences, seed),
    )


def _same_starts(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise MismatchError("a and b: expected two mappings or two sequences, got one of each")
    if isinstance(a, Mapping):
        only_a, only_b = [s for s in a if s not in b], [s for s in b if s not in a]
        if only_a or only_b:
            raise MismatchError(
                f"the two policies have different start states: a alone has {_shown(only_a)}, b "
                f"alone {_shown(only_b)}; roll out both from the same ones, or leave these out"
            )
        b = [b[start] for start in a]
        a = list(a.values())
    scores_a, scores_b = scores_of(a, "a"), scores_of(b, "b")
    if len(scores_a) != len(scores_b):
        raise MismatchError(
            f"a has {len(scores_a)} outcomes, b {len(scores_b)}; a paired test needs the same "
            f"start states, give mappings start -> outcome to learn which differ"
        )
    return scores_a, scores_b


def _shown(starts: list[Any]) -> str:
    if not starts:
        return "none"
    more = f" and {len(starts) - 5} more" if len(starts) > 5 else ""
    return ", ".join(repr(start) for start in starts[:5]) + more


def _sign_flip_p(differences: np.ndarray, seed: int) -> float:
    """The share of sign flips whose sum is at least as far from 0 as that of ``differences``."""
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    if (np.abs(moved) == 1).all():
        from scipy.special import bdtr

        fewer = min((moved > 0).sum(), (moved < 0).sum())
        return min(1.0, 2 * float(bdtr(float(fewer), len(moved), 0.5)))
    reached = abs(moved.sum()) - 1e-9  # sums that differ by rounding alone are equal
    if len(moved) <= _ENUMERATED_PAIRS:
        flips = 2 * (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1) - 1
        return float((np.abs(flips @ moved) >= reached).mean())
    sums = np.abs(_flipped_sums(moved, seed))
    # The observed signs are one of the flips: p is never 0 (Phipson & Smyth 2010).
    return float((1 + (sums >= reached).sum()) / (1 + _FLIPS))


def _flipped_sums(moved: np.ndarray, seed: int) -> np.ndarray:
    """(flips,) sums under random signs. A random byte carries the signs of eight differences."""
    eights = np.pad(moved, (0, -len(moved) % 8)).reshape(-1, 8)
    signs = 2 * (np.arange(256)[:, None] >> np.arange(8) & 1) - 1
    sums_of_byte = signs @ eights.T
    drawn = np.random.default_rng(seed).integers(0, 256, (_FLIPS, len(eights)), np.uint8)
    return sums_of_byte[drawn, np.arange(len(eights))].sum(axis=1)
