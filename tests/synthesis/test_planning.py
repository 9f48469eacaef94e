"""Recipes: what is varied is as configured, the same every time, and within the arm's reach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.rollout.suite import Suite
from worldeval.synthesis.planning import frames_to, plan, reachable
from worldeval.synthesis.recipe import Recipe, as_text, from_text
from worldeval.synthesis.variety import Variety
from worldeval.synthesis.wording import reworded
from worldeval.worlds.toy import TOY_ROBOT, toy_starts

SUITE = Suite(name="toy", robot="toy", chunks=2, starts=toy_starts(count=20), seed=5)
POSES = {s.start_id: np.array([0.0, 0.02, -0.03, -1.0], np.float32) for s in SUITE.starts}


def planned(**variety: object) -> tuple[Recipe, ...]:
    return plan(SUITE, Variety(**variety), TOY_ROBOT, POSES, reworded, frames_at_once=3)  # type: ignore[arg-type]


def test_the_same_seed_plans_the_same_and_another_does_not() -> None:
    assert planned() == planned()
    other = dataclasses.replace(SUITE, seed=6)
    assert plan(other, Variety(), TOY_ROBOT, POSES, reworded, frames_at_once=3) != planned()


def test_more_variations_or_fewer_start_states_change_nothing_of_a_recipe() -> None:
    all_of_them = planned(variations=2)
    more = {r.start_id: r for r in planned(variations=5)}
    assert all(more[r.start_id] == r for r in all_of_them)
    few = dataclasses.replace(SUITE, starts=SUITE.starts[3:5])
    alone = plan(few, Variety(variations=2), TOY_ROBOT, POSES, reworded, frames_at_once=3)
    assert set(alone) <= set(all_of_them)


@pytest.mark.parametrize("name", ["moved", "reworded", "noisy"])
def test_each_share_is_what_was_asked_for(name: str) -> None:
    is_so = {
        "moved": lambda r: r.moved,
        "reworded": lambda r: r.instruction != r.meaning,
        "noisy": lambda r: r.noise > 0,
    }[name]
    for share in (0.0, 0.3, 1.0):
        given = {"moved": 0.0, "reworded": 0.0, "noisy": 0.0, name: share}
        found = planned(variations=10, **given)
        assert np.mean([is_so(r) for r in found]) == pytest.approx(
            share, abs=0.08 * (0 < share < 1)
        )


def test_of_several_samples_the_first_shows_the_policy_itself() -> None:
    found = planned(variations=1, samples=4, noisy=1.0)
    assert [r.noise > 0 for r in found[:4]] == [False, True, True, True]
    assert len({r.group for r in found[:4]}) == 1
    assert len({(r.arm, r.instruction) for r in found[:4]}) == 1


def test_an_arm_is_moved_within_its_reach_and_never_below_its_start() -> None:
    low, high = np.array(TOY_ROBOT.pose_low), np.array(TOY_ROBOT.pose_high)
    for recipe in planned(moved=1.0, reach=0.2, variations=3):
        way = np.array(recipe.arm) - POSES[recipe.base]
        assert (np.abs(way) <= 0.2 * (high - low) + 1e-6).all()
        assert way[2] >= -1e-6 and way[3] == 0  # z, and the gripper
        assert recipe.arm_frames % 3 == 0
        path = recipe.approach(POSES[recipe.base])
        np.testing.assert_allclose(path[-1], recipe.arm, atol=1e-6)
        step = np.abs(np.diff(np.vstack([POSES[recipe.base], path]), axis=0)).max()
        assert step <= TOY_ROBOT.action_scale_m * TOY_ROBOT.steps_per_frame + 1e-6


def test_poses_that_were_seen_are_preferred() -> None:
    seen = np.array([[0.05, 0.0, 0.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    rng = np.random.default_rng(0)
    found = reachable(np.array([0.0, 0, 0, -1]), TOY_ROBOT, 0.25, seen, rng)
    assert found.tolist() == [0.05, 0.0, 0.0, -1.0]  # with the start's own gripper


def test_the_time_for_a_way_is_rounded_up() -> None:
    start = np.zeros(4)
    each = TOY_ROBOT.action_scale_m * TOY_ROBOT.steps_per_frame
    assert frames_to(start, np.array([4 * each, 0, 0, 0]), TOY_ROBOT, 3) == 6
    assert frames_to(start, np.array([3 * each, 0, 0, 0]), TOY_ROBOT, 3) == 3
    assert frames_to(start, start, TOY_ROBOT, 3) == 3


def test_recipes_survive_as_text_to_the_last_bit() -> None:
    found = planned(moved=1.0)
    assert from_text(as_text(found), "x") == found


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"start_id": 3}]', '[{"colour": "red"}]'])
def test_what_is_no_recipe_is_a_sentence(text: str) -> None:
    with pytest.raises(DataError, match="the recipes of an episode cannot be read"):
        from_text(text, "an episode")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"moved": 1.5}, "moved is 1.5, expected a share from 0 to 1"),
        ({"reworded": float("nan")}, "reworded is nan"),
        ({"near_failure": -0.1}, "near_failure is -0.1"),
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"variations": 2.5}, "variations is 2.5"),
        ({"reach": 0.0}, "reach is 0.0, expected a share above 0"),
        ({"noise": -1.0}, "noise is -1.0"),
    ],
)
def test_a_variety_that_cannot_be_is_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Variety(**given)  # type: ignore[arg-type]


def test_other_words_are_other_and_never_empty() -> None:
    rng = np.random.default_rng(0)
    for text in ("open the drawer", "reach to the red ball", "wipe", "Pick up the mug"):
        found = {reworded(text, [text], rng) for _ in range(50)}
        assert len(found) > 5 and text not in found and all(found)


def test_an_instruction_without_words_cannot_be_reworded() -> None:
    with pytest.raises(ConfigError, match="an instruction is empty"):
        reworded("  ", [], np.random.default_rng(0))
