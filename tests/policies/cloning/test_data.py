from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError, MismatchError
from worldeval.policies.cloning.choosing import choose
from worldeval.policies.cloning.config import Selection
from worldeval.policies.cloning.data import Demonstrations
from worldeval.robots import RobotSpec


@pytest.fixture
def data(toy_store: EpisodeStore, toy_robot: RobotSpec) -> Demonstrations:
    return Demonstrations.load(toy_store.root, [Selection()], toy_robot)


def row_of(data: Demonstrations, key: str, t: int) -> np.ndarray:
    index = int(data.tables[0].set_index("key").loc[key, "episode_index"])
    return np.array([data.rows[index][t]])


def test_fewer_demonstrations_are_a_subset_of_more(toy_store: EpisodeStore) -> None:
    table = toy_store.metadata()
    few, apart = choose(table, Selection(demonstrations=3))
    many, same = choose(table, Selection(demonstrations=7))
    assert len(few) == 6
    assert set(few) < set(many)
    assert apart == same
    assert len(apart) == 4
    assert not set(apart) & set(choose(table, Selection())[0])


def test_selections_by_task_kind_and_success(toy_store: EpisodeStore) -> None:
    table = toy_store.metadata()
    train, apart = choose(table, Selection(tasks=("left",), kinds=("failing",)))
    assert len(train) == 4
    assert not apart  # too few to hold any out
    assert set(table.loc[train, "kind"]) == {"failing"}
    train, _ = choose(table, Selection(only_successful=True))
    assert set(table.loc[train, "kind"]) == {"expert"}
    for wrong in (
        Selection(tasks=("up",)),
        Selection(kinds=("human",)),
        Selection(kinds=("failing",), only_successful=True),
    ):
        with pytest.raises(DataError):
            choose(table, wrong)


def test_targets_are_the_steps_that_follow_a_frame(data: Demonstrations) -> None:
    views = range(2)
    batch = data.batch(row_of(data, "right/03/expert", 1), views=views, chunk=6)
    np.testing.assert_allclose(batch.targets[0, :, 1], [0.10, 0.11, 0.20, 0.21, 0.30, 0.31])
    np.testing.assert_array_equal(batch.targets[0, :, 0], 1)
    np.testing.assert_array_equal(batch.targets[0, :, 2], 0.5)  # the expert's, not the executed
    np.testing.assert_array_equal(batch.weights, 1)
    assert data.texts[batch.texts[0]] == "go to the right"
    executed = data.batch(
        row_of(data, "right/03/expert", 1), views=views, chunk=6, labels="executed"
    )
    np.testing.assert_array_equal(executed.targets[0, :, 2], 0)


def test_targets_beyond_the_end_stand_still(data: Demonstrations) -> None:
    batch = data.batch(row_of(data, "right/03/expert", 4), views=[0], chunk=6, hold_weight=0.25)
    np.testing.assert_allclose(batch.targets[0, :, 1], [0.40, 0.41, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch.targets[0, :, 0], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch.targets[0, :, 3], 1)  # the gripper stays closed
    np.testing.assert_array_equal(batch.weights[0], [1, 1, 0.25, 0.25, 0.25, 0.25])


def test_frames_are_those_of_the_episode_and_the_views_asked_for(
    toy_store: EpisodeStore, data: Demonstrations
) -> None:
    frames = toy_store.by_key("left/04/expert").frames
    both = data.batch(row_of(data, "left/04/expert", 2), views=[0, 1], chunk=6).frames
    np.testing.assert_array_equal(both[0], frames[2])
    wrist = data.batch(row_of(data, "left/04/expert", 2), views=[1], chunk=6).frames
    np.testing.assert_array_equal(wrist[0], frames[2][1:])


def test_rows_leave_out_last_frames_and_most_idle_ones(data: Demonstrations) -> None:
    episodes = list(data.rows)
    assert len(data.rows_of(episodes)) == 24 * 5
    assert not set(data.rows_of(episodes)) & set(data.last)
    data.expert[...] = 0
    data.expert[data.rows[0][0]] = 1
    assert data.rows_of(episodes, idle_share=0.0).tolist() == [data.rows[0][0]]
    assert len(data.rows_of(episodes, idle_share=0.5)) == 1 + (24 * 5 - 1 + 1) // 2


def test_a_corrupted_twin_takes_a_frames_place_when_asked(data: Demonstrations) -> None:
    data.corrupt(lambda frames: 255 - frames, share=0.5)
    rows = data.rows_of(list(data.rows))
    clean = data.batch(rows, views=[1], chunk=6, blurred=np.zeros(len(rows), bool)).frames
    np.testing.assert_array_equal(clean, data.frames[rows][:, 1:])
    drawn = data.batch(rows, views=[1], chunk=6, blurred=np.ones(len(rows), bool)).frames
    twins = (drawn == 255 - clean).all((1, 2, 3, 4))
    np.testing.assert_array_equal(drawn[~twins], clean[~twins])
    assert 0.35 < twins.mean() < 0.65
    with pytest.raises(DataError, match="the corruption returned"):
        data.corrupt(lambda frames: frames[:, ::2], share=0.5)


def test_a_sloppy_demonstrator_errs_by_an_offset_that_stays(data: Demonstrations) -> None:
    error = data.label_error(0.3, seed=0)
    np.testing.assert_array_equal(error, data.label_error(0.3, seed=0))
    assert (error[..., -1] == 0).all()
    # noise and offset have one standard deviation each: 0.3 * sqrt(2) together
    assert error[..., :3].std() == pytest.approx(0.3 * np.sqrt(2), rel=0.1)
    offsets = [error[r.start : r.stop, :, :3].mean((0, 1)) for r in data.rows.values()]
    assert np.std(offsets) > 0.2  # of noise alone it would be 0.3 / sqrt(12) = 0.09


def test_a_store_of_another_robot_is_refused(toy_store: EpisodeStore, toy_robot: RobotSpec) -> None:
    other = replace(toy_robot, pose_names=("x", "y", "z", "grip"))
    with pytest.raises(MismatchError, match="pose names"):
        Demonstrations.load(toy_store, [Selection()], other)
