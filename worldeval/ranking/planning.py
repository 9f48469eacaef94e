"""How many rollouts it takes to tell two policies apart. In: two rates. Out: rollouts of each."""

from __future__ import annotations

import math

from worldeval.errors import ConfigError
from worldeval.ranking.intervals import normal_quantile


def rollouts_needed(p1: float, p2: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Rollouts of EACH policy for a two-sided test of rates p1 and p2, of independent samples.

    Normal approximation on the arcsine scale (Cohen, Statistical Power Analysis, 1988, ch. 6)::

        h = 2 asin(sqrt(p2)) - 2 asin(sqrt(p1)),   n = 2 ((z_(1 - alpha/2) + z_power) / h)^2

    power: the probability to find the difference if it is there. Policies that run from the same
    start states often need fewer. Raises ConfigError for equal rates: no number separates these.

    >>> rollouts_needed(0.5, 0.7)
    93
    """
    for name, rate in (("p1", p1), ("p2", p2)):
        if not 0 <= rate <= 1:
            raise ConfigError(f"{name} is {rate!r}, expected a rate in [0, 1]")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha!r}, expected a number between 0 and 1")
    if not 0.5 <= power < 1:
        raise ConfigError(f"power is {power!r}, expected a number in [0.5, 1)")
    effect = 2 * math.asin(math.sqrt(p2)) - 2 * math.asin(math.sqrt(p1))
    if abs(effect) < 1e-9:
        raise ConfigError(f"both rates are {p1!r}: no number of rollouts separates equal rates")
    # The quantile at ``power`` is the upper end of a central interval of 2 * power - 1.
    z = normal_quantile(1 - alpha) + (normal_quantile(2 * power - 1) if power > 0.5 else 0.0)
    return math.ceil(2 * (z / effect) ** 2)
