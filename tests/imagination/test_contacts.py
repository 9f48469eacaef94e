"""The detector of contacts, on pictures whose truth is known, and the rates made of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from worldeval.imagination.contacts import (
    Contact,
    Rate,
    contact_row,
    contact_rows,
    grip_rows,
    read_travel,
)


def picture(column: int | None, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """(1, 32, 32, 3): a bright square whose left edge is at ``column``; None: no object."""
    frame = np.full((1, 32, 32, 3), 90.0)
    if column is not None:
        frame[:, 12:18, column : column + 6] = (240, 60, 40)
    frame += noise * np.random.default_rng(seed).normal(size=frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


PLACES = np.stack([picture(4 + 3 * step) for step in range(7)])
TRAVEL = 0.03 * np.arange(7)


@pytest.mark.parametrize("step", range(7))
def test_the_object_is_found_where_it_is_also_in_noise(step: int) -> None:
    for seed in range(5):
        frame = picture(4 + 3 * step, noise=40, seed=seed)
        assert read_travel(frame, PLACES, TRAVEL) == pytest.approx(TRAVEL[step])


def test_what_is_the_same_in_all_pictures_is_not_looked_at() -> None:
    frame = picture(10)
    frame[:, 24:] = 255  # the arm is elsewhere in imagination
    assert read_travel(frame, PLACES, TRAVEL) == pytest.approx(0.06)


def test_what_cannot_be_seen_is_unknown() -> None:
    hidden = np.stack([picture(None)] * 3)
    assert np.isnan(read_travel(picture(None), hidden, TRAVEL[:3]))


def test_what_is_nowhere_is_lost_and_the_view_that_is_nearest_does_not_decide_alone() -> None:
    places = np.concatenate([PLACES, picture(None)[None]])
    travel = np.append(TRAVEL, np.inf)
    assert read_travel(picture(None), places, travel) == np.inf
    large = np.repeat(np.repeat(places, 2, axis=1), 1, axis=2)  # two views
    half = np.concatenate([picture(4), picture(None)])
    half[0] = places[0, 0]
    large[:, 1] = 90 + (large[:, 1].astype(int) - 90) // 2  # it is fainter in the second
    assert read_travel(half, large, travel) == 0
    row = contact_row("all", [contact(0.0, np.inf), contact(0.1, np.inf), contact(0.0, 0.0)])
    assert (row.lost, row.invented, row.omitted) == (
        Rate(count=2, of=3),
        Rate(count=0, of=1),
        Rate(count=0, of=0),
    )


def contact(true: float, imagined: float, kind: str = "expert", sharp: float | None = None):
    seen = true if sharp is None else sharp
    return Contact(
        task="push",
        kind=kind,
        true_m=true,
        imagined_m=imagined,
        sharp_m=seen,
        blurred_m=seen,
        psnr_db=20.0,
    )


def test_rates_count_what_was_invented_and_omitted_and_leave_out_what_is_in_between() -> None:
    rows = [
        contact(0.0, 0.0),
        contact(0.0, 0.08),  # invented
        contact(0.0, float("nan")),  # not seen
        contact(0.015, 0.1),  # neither touched nor moved
        contact(0.1, 0.1),
        contact(0.1, 0.0),  # omitted
        contact(0.1, 0.01),  # omitted
        contact(0.2, 0.05, sharp=0.0),  # the detector errs about the true frame
    ]
    row = contact_row("all", rows)
    assert (row.invented, row.omitted) == (Rate(count=1, of=2), Rate(count=2, of=4))
    assert row.detector_sharp == Rate(count=1, of=7)
    assert str(row.invented) == "50 % [9, 91] of 2" and str(Rate(count=0, of=0)) == "–"
    json.dumps(row.to_dict(), allow_nan=False)
    names = [r.name for r in contact_rows([*rows, contact(0, 0, kind="random")], "kind")]
    assert names == ["expert", "random", "all"]


def test_the_effect_of_a_gripper_is_compared_with_the_true_effect() -> None:
    """In truth a window closes with any gripper and a puck with a closed one alone."""
    outcomes = [("window", "own", True, True)] * 4 + [("window", "open", False, True)] * 3
    outcomes += [("window", "open", True, True)]
    outcomes += [("puck", "own", True, True), ("puck", "open", False, False)]
    rows = {row.task: row for row in grip_rows(outcomes)}
    assert rows["window"].difference == pytest.approx(-0.75) and rows["window"].rollouts == 4
    assert rows["puck"].difference == 0
    assert grip_rows([("window", "open", True, True)]) == []
