"""Moved starts, exploration noise and frames with artefacts, on a world that needs no model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import RobotSpec
from worldeval.errors import StartStateError
from worldeval.synthesis.exploring import ExploringPolicy
from worldeval.synthesis.frames import artefact_shares, changes, sharpness
from worldeval.synthesis.near_failure import flat_at
from worldeval.synthesis.recipe import Recipe
from worldeval.synthesis.world import VariedWorld
from worldeval.testing import check_world
from worldeval.types import Observation
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy, ToyWorld, toy_starts

START = toy_starts(count=1)[0]


def recipe(name: str, **varied: object) -> Recipe:
    return Recipe(
        start_id=name, base=START.start_id, task=START.task, split=START.split,
        scene_seed=START.seed, instruction=START.instruction, meaning=START.instruction, **varied,
    )  # type: ignore[arg-type]  # fmt: skip


ARM = (0.1, -0.05, 0.08, -1.0)
RECIPES = [
    recipe("plain"),
    recipe("moved", arm=ARM, arm_frames=6),
    recipe("on a path", path=((0.01, 0.0, 0.0, -1.0), (0.02, 0.0, 0.0, 1.0))),
    recipe("both", path=((0.01, 0.0, 0.0, -1.0),), arm=ARM, arm_frames=3),
]


@pytest.fixture
def world() -> VariedWorld:
    inner = ToyWorld(truth=False, frames_per_step=3)
    return VariedWorld(inner, {r.start_id: r for r in RECIPES})


def test_it_is_a_world(world: VariedWorld) -> None:
    check_world(world, [r.start() for r in RECIPES])


def test_rollouts_begin_where_their_recipes_say(world: VariedWorld) -> None:
    seen = world.reset([r.start() for r in RECIPES], [1, 2, 3, 4])
    assert seen.frames.shape[:2] == (4, 1)
    np.testing.assert_allclose(seen.poses[1, 0], ARM, atol=1e-6)
    np.testing.assert_allclose(seen.poses[2, 0], [0.02, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(seen.poses[3, 0], ARM, atol=1e-6)
    assert (seen.frames[0] != seen.frames[1]).any()
    assert world.seconds > 0 and world.beside == tuple(RECIPES)


def test_a_rollout_does_not_depend_on_those_beside_it(world: VariedWorld) -> None:
    together = world.reset([r.start() for r in RECIPES], [1, 2, 3, 4])
    alone = world.reset([RECIPES[3].start()], [4])
    np.testing.assert_array_equal(together.frames[3], alone.frames[0])


def test_a_start_without_a_recipe_is_told(world: VariedWorld) -> None:
    with pytest.raises(StartStateError, match="is none of the 4 varied ones"):
        world.reset([START], [0])


def test_start_digests_know_the_recipe(world: VariedWorld) -> None:
    assert len({world.start_digest(r.start()) for r in RECIPES}) == 4


def observation(rollout: str) -> Observation:
    frame = ToyWorld().reset([START], [0])
    views = TOY_ROBOT.views
    return Observation(
        images=dict(zip(views, frame.frames[0, 0], strict=True)),
        state={"pose": frame.poses[0, 0]},
        instruction=START.instruction,
        rollout_id=rollout,
        step=0,
    )


def acted(noise: dict[str, float], seed: int = 3, robot: RobotSpec = TOY_ROBOT) -> np.ndarray:
    policy = ExploringPolicy(ToyPolicy(robot=robot), robot, noise)
    names = ["a", "b"]
    policy.reset(names, [START.instruction] * 2, [seed, seed])
    return np.concatenate([policy.act([observation(n) for n in names]) for _ in range(3)], axis=1)


def test_noise_is_for_the_rollouts_that_have_it_and_spares_grippers() -> None:
    still, loud = acted({}), acted({"b": 0.2})
    np.testing.assert_array_equal(still[0], loud[0])
    moved = loud[1] - still[1]
    assert np.abs(moved[:, :3]).max() > 0.05 and not moved[:, 3].any()
    assert (np.abs(loud) <= 1).all()


def test_noise_depends_on_the_seed_and_wanders_slowly() -> None:
    np.testing.assert_array_equal(acted({"b": 0.2}), acted({"b": 0.2}))
    assert (acted({"b": 0.2}, seed=4) != acted({"b": 0.2})).any()
    policy = ExploringPolicy(ToyPolicy(), TOY_ROBOT, {"a": 0.5})
    policy.reset(["a"], ["x"], [0])
    zero = np.zeros((4000, 4), np.float32)
    noise = policy._disturbed(zero, "a")[:, 0]
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0.9, abs=0.05)


def test_flicker_and_blur_are_artefacts_and_motion_is_none() -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (1, 1, 16, 16, 3), np.uint8)
    motion = np.concatenate([np.roll(scene, i, axis=3) // (1 + (i > 40)) for i in range(20)])
    smooth = np.concatenate([scene] * 20)
    flicker, blurred = smooth.copy(), smooth.copy()
    flicker[9:12:2] = 255 - flicker[9:12:2]
    blurred[10:] = blurred[10:].mean((2, 3), keepdims=True).astype(np.uint8)
    pool = {"motion": motion, "smooth": smooth, "flicker": flicker, "blurred": blurred}
    shares = artefact_shares(
        {key: changes(f) for key, f in pool.items()}, {key: sharpness(f) for key, f in pool.items()}
    )
    assert shares["smooth"] == 0 and shares["flicker"] > 0.1 and shares["blurred"] > 0.4


def test_a_single_frame_has_no_artefacts() -> None:
    one = np.zeros((1, 2, 8, 8, 3), np.uint8)
    assert artefact_shares({"a": changes(one)}, {"a": sharpness(one)}) == {"a": 0.0}


@pytest.mark.parametrize(
    ("progress", "flat"),
    [
        ([0.1] * 13, 0),  # never got anywhere
        (np.linspace(0, 1, 13), 0),  # went on to the end
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, *[0.6] * 7], 4),
        ([0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.9, 0.9, 0.9], 0),
        ([0.1, 0.2, 0.4, 0.6, 0.6, 0.6, 0.6, 0.2, 0.2, 0.2, 0.2, 0.1, 0.0], 3),
    ],
)
def test_where_progress_went_flat(progress: list[float], flat: int) -> None:
    multiple = 3 if flat == 3 else 4
    assert flat_at(np.asarray(progress, float), multiple) == flat
