"""Coefficients of agreement against values printed in the literature."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.judge_calibration.raters import (
    RaterAgreement,
    agreement_of_raters,
    cohen_kappa,
    krippendorff_alpha,
)
from worldeval.types import Outcome

S, F, U = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED


def rows(text: str) -> list[str | None]:
    """Labels of one rater, a letter each; a dot is a missing one."""
    return [None if letter == "." else letter for letter in text.replace(" ", "")]


def crossed(yes_yes: int, yes_no: int, no_yes: int, no_no: int) -> tuple[list[str], list[str]]:
    first = ["yes"] * (yes_yes + yes_no) + ["no"] * (no_yes + no_no)
    second = ["yes"] * yes_yes + ["no"] * yes_no + ["yes"] * no_yes + ["no"] * no_no
    return first, second


@pytest.mark.parametrize(
    ("ratings", "alpha"),
    [
        # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": A binary data of two
        # observers, B nominal data of two, C nominal data of four with missing labels.
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "1233244125 1.".replace(" ", "")), 0.743),
        # Three coders with many gaps (the worked example of the encyclopedias).
        (
            (
                ". . . . . 3 4 1 2 1 1 3 3 . 3",
                "1 . 2 1 3 3 4 3 . . . . . . .",
                ". . 2 1 3 4 4 . 2 1 1 3 3 . 4",
            ),
            0.691,
        ),
    ],
)
def test_alpha_of_published_examples(ratings: tuple[str, ...], alpha: float) -> None:
    found = krippendorff_alpha([rows(text) for text in ratings])
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.low is not None and found.high is not None
    assert found.low < alpha < found.high


@pytest.mark.parametrize(
    ("table", "kappa"),
    [((20, 5, 10, 15), 0.40), ((45, 15, 25, 15), 0.1304), ((25, 35, 5, 35), 0.2593)],
)
def test_kappa_of_textbook_tables(table: tuple[int, int, int, int], kappa: float) -> None:
    assert cohen_kappa(*crossed(*table)).value == pytest.approx(kappa, abs=5e-5)


def test_kappa_and_its_interval_agree_with_statsmodels() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    table = np.array([[60, 15], [10, 40]])
    expected = inter_rater.cohens_kappa(table)
    found = cohen_kappa(*crossed(*table.ravel()), draws=8000)
    assert found.value == pytest.approx(expected.kappa)
    assert found.rollouts == 125
    # The asymptotic interval of Fleiss, Cohen & Everitt 1969 and resampling differ a little.
    assert (found.low, found.high) == pytest.approx(
        (expected.kappa_low, expected.kappa_upp), abs=0.02
    )


def test_two_raters_who_always_agree_or_never() -> None:
    assert cohen_kappa(rows("ababab"), rows("ababab")).value == 1
    assert krippendorff_alpha([rows("ababab"), rows("ababab")]).value == 1
    assert cohen_kappa(rows("abab"), rows("baba")).value == -1


def test_independent_raters_agree_by_chance_alone() -> None:
    rng = np.random.default_rng(0)
    first, second = (list((rng.random(4000) < 0.8).astype(int)) for _ in range(2))
    for found in (cohen_kappa(first, second, draws=200), krippendorff_alpha([first, second])):
        assert found.value == pytest.approx(0, abs=0.05)
        assert found.low < 0 < found.high


def test_what_is_not_defined_is_none() -> None:
    same = cohen_kappa(rows("aaaa"), rows("aaaa"))
    assert (same.value, same.low, same.rollouts) == (None, None, 4)
    nothing = krippendorff_alpha([rows("ab.."), rows("..ab")])
    assert (nothing.value, nothing.rollouts) == (None, 0)
    assert cohen_kappa([1.0, float("nan")], [float("nan"), 0.0]).rollouts == 0


def test_a_missing_label_is_no_category() -> None:
    full = cohen_kappa(rows("aabb"), rows("abbb"))
    assert cohen_kappa(rows("aabb.a"), rows("abbba.")) == full


def test_raters_of_rollouts_are_paired_and_undecided_disagrees_with_nobody() -> None:
    said = {
        "judge": {1: S, 2: F, 3: U, 4: S, 5: F},
        "world": {1: S, 2: F, 3: F, 4: F, 5: F},
        "ann": {1: S, 9: F},
    }
    found = agreement_of_raters(said)
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("judge", "world"), ("judge", "ann"), ("world", "ann"),
    ]  # fmt: skip
    judge_world = found.pairs[0]
    assert judge_world.kappa.rollouts == 4
    assert judge_world.same == pytest.approx(3 / 4)
    # p_o = 3/4, p_e = (2/4)(1/4) + (2/4)(3/4) = 1/2.
    assert judge_world.kappa.value == pytest.approx(0.5)
    assert found.alpha.rollouts == 4, "rollout 3 has one decided label, rollout 9 only one label"
    again = RaterAgreement.from_dict(json.loads(json.dumps(dataclasses.asdict(found))))
    assert again == found


def test_the_same_seed_gives_the_same_interval() -> None:
    labels = crossed(20, 5, 10, 15)
    assert cohen_kappa(*labels, seed=3) == cohen_kappa(*labels, seed=3)
    wide = cohen_kappa(*labels, confidence=0.99)
    narrow = cohen_kappa(*labels, confidence=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bad_ratings_are_told() -> None:
    with pytest.raises(DataError, match="at least two raters, got \\['judge'\\]"):
        agreement_of_raters({"judge": {1: S}})
    with pytest.raises(DataError, match=r"lengths \[2, 3\]"):
        cohen_kappa(["a", "b"], ["a", "b", "a"])
    with pytest.raises(ConfigError, match="confidence is 1"):
        krippendorff_alpha([["a"], ["a"]], confidence=1)
    with pytest.raises(ConfigError, match="draws is 0"):
        cohen_kappa(["a"], ["a"], draws=0)
