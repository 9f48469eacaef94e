from collections import Counter

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.worlds.record import RecordConfig, jobs, kind_at, record
from worldeval.worlds.sawyer import ROBOT, TASKS

MIX = RecordConfig().mix


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"tasks": ("fly",)}, "fly"),
        ({"split": "test"}, "'test'"),
        ({"images": "jpeg"}, "'jpeg'"),
        ({"workers": 0}, "workers is 0"),
        ({"mix": (("lazy", 1.0),)}, "'lazy'"),
        ({"mix": (("expert", 0.0),)}, "sum above 0"),
    ],
)
def test_config_quotes_what_is_wrong(wrong, said):
    with pytest.raises(ConfigError, match=said):
        RecordConfig(**wrong)


@pytest.mark.parametrize("count", [20, 90])
def test_every_prefix_is_near_the_mix(count):
    for task in TASKS:
        found = Counter(kind_at(MIX, index, task) for index in range(count))
        for kind, weight in MIX:
            assert abs(found[kind] - weight * count) <= 2.0


def test_jobs_come_in_rounds_over_the_tasks():
    made = jobs(RecordConfig(episodes_per_task=3))
    assert [job.task for job in made[:10]] == list(TASKS)
    assert {job.index for job in made[10:20]} == {1}
    assert len({job.key for job in made}) == 30
    assert len({job.kind for job in made[:10]}) >= 3


def small(**changes):
    values = dict(tasks=("reach", "push"), episodes_per_task=2, workers=1, chunks=1)
    return RecordConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)
    return record(small(), tmp_path_factory.mktemp("record") / "store", progress=False)


@pytest.mark.sim
def test_recorded_episodes_are_whole_and_agree_with_the_robot(store):
    assert len(store) == 4
    for index in range(4):
        episode = store.episode(index)
        assert episode.frames.shape == (5, 3, 64, 64, 3)
        assert episode.actions.shape == episode.expert_actions.shape == (4, 3, 4)
        poses = ROBOT.integrate(episode.poses[0], episode.actions.reshape(-1, 4))
        np.testing.assert_allclose(poses, episode.poses[1:], atol=1e-6)
        assert episode.success == episode.success_at.any()
        assert set(episode.extra) >= {"kind", "seed", "split", "start_id", "scene"}
    assert set(store.metadata().kind) <= {kind for kind, _ in MIX}


@pytest.mark.sim
def test_recording_continues_where_it_stopped(store, tmp_path):
    first = record(small(episodes_per_task=1), tmp_path / "b", progress=False)
    assert len(first) == 2
    whole = record(small(), tmp_path / "b", progress=False)
    assert whole.keys == store.keys
    for key in store.keys:
        np.testing.assert_array_equal(whole.by_key(key).frames, store.by_key(key).frames)


@pytest.mark.sim
def test_workers_do_not_change_the_episodes(store, tmp_path):
    other = record(small(workers=2), tmp_path / "c", progress=False)
    assert [e.key for e in other] == [e.key for e in store]
    for mine, theirs in zip(other, store, strict=True):
        np.testing.assert_array_equal(mine.frames, theirs.frames)
        np.testing.assert_array_equal(mine.actions, theirs.actions)
        np.testing.assert_array_equal(mine.expert_actions, theirs.expert_actions)
