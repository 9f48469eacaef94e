"""How many rollouts a comparison needs."""

from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.ranking import rollouts_needed


def test_one_more_vector():
    assert rollouts_needed(0.5, 0.8) == 38


def test_the_planned_number_has_the_promised_power():
    """Of 4000 experiments the pooled z test finds the difference in 80 %."""
    n = rollouts_needed(0.5, 0.7, power=0.8, alpha=0.05)
    rng = np.random.default_rng(0)
    a, b = rng.binomial(n, 0.5, 4000) / n, rng.binomial(n, 0.7, 4000) / n
    mean = (a + b) / 2
    z = (b - a) / np.sqrt(2 * mean * (1 - mean) / n)
    assert (np.abs(z) > 1.959964).mean() == pytest.approx(0.8, abs=0.025)


def test_order_does_not_matter_and_ends_are_possible():
    assert rollouts_needed(0.7, 0.5) == rollouts_needed(0.5, 0.7)
    assert 1 <= rollouts_needed(0.0, 1.0) < 5
    assert rollouts_needed(0.0, 0.1) < rollouts_needed(0.0, 0.05)


def test_more_certainty_takes_more():
    assert rollouts_needed(0.5, 0.6, power=0.9) > rollouts_needed(0.5, 0.6)
    assert rollouts_needed(0.5, 0.6, alpha=0.01) > rollouts_needed(0.5, 0.6)
    assert rollouts_needed(0.5, 0.6, power=0.5) < rollouts_needed(0.5, 0.6)


def test_equal_rates_are_never_told_apart():
    with pytest.raises(ConfigError, match="both rates are 0.4"):
        rollouts_needed(0.4, 0.4)


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="p2 is 50"):
        rollouts_needed(0.4, 50)
    with pytest.raises(ConfigError, match="p1 is nan"):
        rollouts_needed(float("nan"), 0.5)
    with pytest.raises(ConfigError, match="power is 80"):
        rollouts_needed(0.4, 0.5, power=80)
    with pytest.raises(ConfigError, match="alpha is 0"):
        rollouts_needed(0.4, 0.5, alpha=0)
