"""Letters: two policies share one exactly if they cannot be told apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.ranking import adjust_p_values, compact_letters


@pytest.mark.parametrize("seed", range(40))
def test_policies_share_a_letter_exactly_if_not_significant(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    names = [f"policy-{i}" for i in range(count)]
    share = rng.random()  # of significant pairs, in any pattern
    p_values = {
        pair: float(rng.choice([0.001, 0.9], p=[share, 1 - share]))
        for pair in itertools.combinations(names, 2)
    }
    letters = compact_letters(p_values, correction="none")
    assert list(letters) == names
    for (a, b), p in p_values.items():
        assert bool(set(letters[a]) & set(letters[b])) == (p > 0.05), (a, b, letters)
    # No letter says what another says already.
    groups = [
        {name for name in names if letter in letters[name]}
        for letter in set("".join(letters.values()))
    ]
    assert not any(one < other for one in groups for other in groups)


def test_letters_are_given_out_in_the_order_of_names():
    p_values = {("C", "A"): 0.001, ("A", "B"): 0.4, ("B", "C"): 0.4}
    assert compact_letters(p_values, names=["A", "B", "C"]) == {"A": "a", "B": "ab", "C": "b"}
    assert compact_letters(p_values, names=["C", "B", "A"]) == {"C": "a", "B": "ab", "A": "b"}


def test_all_alike_and_all_different():
    names = "ABCDE"
    pairs = list(itertools.combinations(names, 2))
    assert compact_letters(dict.fromkeys(pairs, 1.0)) == dict.fromkeys(names, "a")
    apart = compact_letters(dict.fromkeys(pairs, 1e-9))
    assert list(apart.values()) == ["a", "b", "c", "d", "e"]


def test_a_matrix():
    matrix = np.array([[1, 0.2, 0.001], [0.2, 1, 0.3], [0.001, 0.3, 1]])
    assert compact_letters(matrix) == {"1": "a", "2": "ab", "3": "b"}
    assert compact_letters(matrix, names=["x", "y", "z"])["y"] == "ab"


def test_one_policy_and_none():
    assert compact_letters({}, names=["only"]) == {"only": "a"}
    assert compact_letters([[1.0]], names=["only"]) == {"only": "a"}
    assert compact_letters({}) == {}


def test_sixty_policies_have_letters_enough():
    names = [str(i) for i in range(60)]
    letters = compact_letters(dict.fromkeys(itertools.combinations(names, 2), 0.0))
    assert len(set(letters.values())) == 60
    assert (letters["26"], letters["52"]) == ("A", "a2")


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1, and none below the one before."""
    assert adjust_p_values([0.04, 0.01, 0.03, 0.02], "holm") == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert adjust_p_values([0.04, 0.3], "bonferroni") == pytest.approx([0.08, 0.6])
    assert adjust_p_values([0.04, 0.3], "none") == pytest.approx([0.04, 0.3])
    assert adjust_p_values([], "holm").shape == (0,)


def test_holm_rejects_what_bonferroni_does_and_more():
    rng = np.random.default_rng(0)
    p = rng.random((100, 10)) ** 3
    holm = np.array([adjust_p_values(row, "holm") for row in p])
    bonferroni = np.array([adjust_p_values(row, "bonferroni") for row in p])
    assert (holm <= bonferroni).all() and (holm < bonferroni).any()


def test_holm_keeps_its_word():
    """10 true nulls in 2000 families: any of them rejected in at most 5 of 100."""
    rng = np.random.default_rng(1)
    families = rng.random((2000, 10))
    rejected = [adjust_p_values(row, "holm").min() <= 0.05 for row in families]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.015)


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="'sidak'"):
        compact_letters({("A", "B"): 0.1}, correction="sidak")
    with pytest.raises(ConfigError, match="alpha is 0"):
        compact_letters({("A", "B"): 0.1}, alpha=0)
    with pytest.raises(DataError, match="p-value is nan"):
        compact_letters({("A", "B"): float("nan")})
    with pytest.raises(DataError, match=r"compares 'A' with 'C' \(1 pairs"):
        compact_letters({("A", "B"): 0.1, ("B", "C"): 0.1})
    with pytest.raises(DataError, match="one p-value per two policies"):
        compact_letters({("A", "B"): 0.1, ("B", "A"): 0.2})
    with pytest.raises(MismatchError, match="names are"):
        compact_letters({("A", "B"): 0.1}, names=["A", "C"])
    with pytest.raises(MismatchError, match=r"\(1, 2\)"):
        compact_letters([[0.1, 0.2]])
    with pytest.raises(MismatchError, match="2 rows"):
        compact_letters([[1, 0.1], [0.1, 1]], names=["A"])
    with pytest.raises(DataError, match="not symmetric"):
        compact_letters([[1, 0.1], [0.2, 1]])
