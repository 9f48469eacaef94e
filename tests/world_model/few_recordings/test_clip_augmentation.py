"""More clips from few recordings: what changes, and above all what must not."""

import numpy as np
import pytest

from worldeval.data.normalize import BoundNormalizer
from worldeval.errors import ConfigError
from worldeval.world_model.conditioning import turned_poses
from worldeval.world_model.few_recordings.clip_augmentation import Augmentation


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_nothing_is_changed_unless_it_is_asked_for():
    same = Augmentation()
    clip = np.random.default_rng(0).normal(size=(5, 3, 2, 4, 6)).astype(np.float32)
    poses = np.ones((5, 7), np.float32)
    assert not same.changes and Augmentation(shift=1).changes
    assert same.track(rng(), 20, 6, 4).tolist() == list(range(11))
    assert np.array_equal(same.move(rng(), clip), clip)
    assert np.array_equal(same.stand(rng(), poses, (3, 4, 5)), poses)


def test_a_backward_clip_is_of_the_same_episode_in_the_other_order():
    track = Augmentation(backward=1.0).track(rng(), 20, 6, 4)
    assert track.tolist() == [19 - t for t in range(11)]


def test_a_fast_clip_takes_every_other_frame_and_ends_within_the_episode():
    fast = Augmentation(fast=1.0)
    assert fast.track(rng(), 20, 7, 4).tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert fast.track(rng(), 14, 7, 4).tolist() == list(range(12)), "too short to be fast"


def test_views_are_exchanged_among_those_that_may_and_moved_alike_in_all_frames():
    clip = np.zeros((4, 3, 1, 6, 8), np.float32)
    clip += np.arange(3)[:, None, None, None] * 100  # the view
    clip += np.arange(6)[:, None] * 10 + np.arange(8)  # the place
    orders, steps = set(), set()
    for seed in range(40):
        moved = Augmentation(exchangeable=(0, 1), shift=2).move(np.random.default_rng(seed), clip)
        assert (moved == moved[:1]).all(), "the same in every frame"
        centre = moved[0, :, 0, 2:4, 2:6]
        assert (np.diff(centre, axis=-1) == 1).all() and (np.diff(centre, axis=-2) == 10).all()
        views = tuple((centre[:, 0, 0] // 100).astype(int))
        orders.add(views)
        steps.add(int(centre[2, 0, 0] - 200 - 22))
    assert orders == {(0, 1, 2), (1, 0, 2)}
    assert min(steps) == -22 and max(steps) == 22


def test_edges_are_repeated_and_nothing_else_appears():
    clip = np.random.default_rng(0).normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    moved = Augmentation(shift=3).move(rng(), clip)
    assert np.isin(moved, clip).all()


def test_a_robot_that_stands_elsewhere_sees_its_own_motion_alike():
    """The way and the turn in the hand's own frame do not depend on where the robot stands."""
    chance = np.random.default_rng(1)
    poses = np.concatenate(
        [chance.uniform(0.2, 0.6, (6, 3)), chance.uniform(-1, 1, (6, 3)), np.ones((6, 1))], axis=1
    ).astype(np.float32)
    bounds = BoundNormalizer(low=(-9.0,) * 7, high=(9.0,) * 7)
    moved = Augmentation(turn=True).stand(rng(), poses, (3, 4, 5))
    assert np.abs(moved[:, :2] - poses[:, :2]).max() > 0.05
    assert np.array_equal(moved[:, 2:5], poses[:, 2:5]), "height, roll and pitch stay"
    assert np.abs(moved[:, 5]).max() <= np.pi + 1e-6
    _, before = turned_poses(poses[None], 2, (3, 4, 5), bounds)
    _, after = turned_poses(moved[None], 2, (3, 4, 5), bounds)
    assert np.allclose(before[..., 4:], after[..., 4:], atol=1e-5)
    assert not np.allclose(before[..., :2], after[..., :2], atol=1e-3)


def test_a_tint_keeps_every_view_s_contrasts_in_order():
    clip = np.random.default_rng(0).normal(size=(3, 2, 2, 4, 5)).astype(np.float32)
    tinted = Augmentation(tint=0.1).move(rng(), clip)
    for v in range(2):
        for c in range(2):
            factor, offset = np.polyfit(clip[:, v, c].ravel(), tinted[:, v, c].ravel(), 1)
            assert np.allclose(tinted[:, v, c], factor * clip[:, v, c] + offset, atol=1e-5)
            assert abs(factor - 1) < 0.5 and tinted.dtype == np.float32


def test_impossible_shares_are_named():
    with pytest.raises(ConfigError, match=r"backward 1\.5"):
        Augmentation(backward=1.5)
    with pytest.raises(ConfigError, match="shift -1"):
        Augmentation(shift=-1)
