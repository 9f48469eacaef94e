"""A store gives back what it was given, in LeRobot's layout, and refuses what does not fit."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldeval.data import atomic
from worldeval.data.store import index
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError, StoreError


def test_episodes_come_back(store, episode, assert_same) -> None:
    given = [episode(i, length=3 + i) for i in range(4)]
    assert [store.append(e) for e in given] == [0, 1, 2, 3]
    lossy = store.layout.images == "video"
    for reader in (store, EpisodeStore.open(store.root)):
        assert len(reader) == 4 and reader.keys == {e.key for e in given}
        for mine, theirs in zip(reader, given, strict=True):
            assert_same(mine, theirs, lossy)
        assert_same(reader.by_key("episode-2"), given[2], lossy)
        assert "episode-2" in reader and "episode-9" not in reader
    with pytest.raises(DataError, match="no episode 'episode-9'"):
        store.by_key("episode-9")
    with pytest.raises(DataError, match="no episode 4"):
        store.episode(4)


def test_unknown_stays_unknown(tmp_path, layout, episode, assert_same) -> None:
    store = EpisodeStore.create(tmp_path, images="lossless", expert_actions=True, **layout)
    expert = np.ones((4, 2, 3), np.float32)
    given = episode(0, success_at=None, success=None, expert_actions=expert, extra={})
    store.append(given)
    assert_same(store.episode(0), given)
    assert store.metadata()["success"].isna().all()


def test_a_start_frame_alone_is_an_episode(store, episode) -> None:
    store.append(episode(0, length=1))
    back = store.episode(0)
    assert back.length == 1 and back.actions.shape == (0, 2, 3)
    assert store.verify() == []


def test_numbers_become_float32(tmp_path, layout, episode) -> None:
    store = EpisodeStore.create(tmp_path, images="lossless", **layout)
    given = episode(0)
    given.poses, given.actions = given.poses.astype(np.float64), given.actions.astype(np.float16)
    store.append(given)
    back = store.episode(0)
    assert back.poses.dtype == back.actions.dtype == np.float32
    assert np.array_equal(back.poses, given.poses)
    back.poses[0] = 0  # arrays may be changed by whoever asked for them


def test_metadata_has_a_row_an_episode_and_a_column_a_fact(store, episode) -> None:
    store.append(episode(0, extra={"seed": np.int64(7), "note": None, "score": float("nan")}))
    store.append(episode(1, extra={"seed": 8, "judge": "human"}))
    store.append(episode(2, extra={"seed": 9}))
    table = store.metadata()
    assert table.columns.tolist() == [
        "episode_index",
        "key",
        "task",
        "instruction",
        "length",
        "success",
        "seed",
        "note",
        "score",
        "judge",
    ]
    assert table["seed"].tolist() == [7, 8, 9]
    assert table["judge"].tolist() == [None, "human", None]
    assert table["score"].tolist() == [None] * 3
    assert str(table["success"].dtype) == "boolean"
    assert table["success"].isna().tolist() == [False, False, True]
    assert table["success"].tolist()[:2] == [True, False]


def test_views_and_times_are_chosen(store, episode) -> None:
    store.append(episode(0, length=9))
    everything = store.frames(0)
    assert everything.shape == (9, 2, 16, 24, 3)
    some = store.frames(0, views=["wrist"], times=[7, 0, 7])
    assert np.array_equal(some, everything[[7, 0, 7]][:, 1:])
    assert store.frames(0, times=[]).shape == (0, 2, 16, 24, 3)
    with pytest.raises(DataError, match="no view.*top"):
        store.frames(0, views=["top"])
    with pytest.raises(DataError, match=r"frames 0\.\.8, asked for \[9\]"):
        store.frames(0, times=[9])


def test_the_trajectory_needs_no_frames(store, episode) -> None:
    given = episode(0)
    store.append(given)
    for path in store.root.rglob("*.mp4"):
        path.unlink()
    path = store.trajectory(0)
    assert np.array_equal(path.poses, given.poses) and np.array_equal(path.actions, given.actions)
    assert np.array_equal(path.success_at, given.success_at) and path.expert_actions is None


def test_the_folder_is_a_lerobot_dataset(store, episode) -> None:
    import pandas as pd

    for i in range(3):
        store.append(episode(i, length=4 + i))
    store.close()
    info = json.loads((store.root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 15, 2)
    features = info["features"]
    assert features["action"]["names"] == ["dx.0", "dy.0", "gripper.0", "dx.1", "dy.1", "gripper.1"]
    assert features["observation.state"]["shape"] == [3]

    tasks = pd.read_parquet(store.root / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["push the block 0", "push the block 1"]
    assert tasks["task_index"].tolist() == [0, 1]

    files = sorted((store.root / "data").glob("*/*.parquet"))
    data = pd.concat([pd.read_parquet(file) for file in files])
    not_video = {k for k, v in features.items() if v["dtype"] != "video"}
    assert set(data.columns) == not_video  # LeRobot refuses undeclared columns
    assert data["index"].tolist() == list(range(15))
    assert data["task_index"].tolist() == [0] * 4 + [1] * 5 + [0] * 6
    assert np.allclose(data["timestamp"], data["frame_index"] / 10)
    # The last row stands still but for holding the gripper.
    gripper = store.episode(0).actions[-1, -1, -1]
    assert np.array_equal(data["action"].iloc[3], [0, 0, gripper, 0, 0, gripper])

    episodes = pd.read_parquet(store.root / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["dataset_from_index"].tolist() == [0, 4, 9]
    assert episodes["worldeval.key"].tolist() == ["episode-0", "episode-1", "episode-2"]
    stats = json.loads((store.root / "meta/stats.json").read_text())
    assert set(stats) == set(features)


def test_statistics_over_all_are_those_of_the_numbers(tmp_path, layout, episode) -> None:
    store = EpisodeStore.create(tmp_path, images="lossless", **layout)
    given = [episode(i, length=4 + 3 * i) for i in range(3)]
    for one in given:
        store.append(one)
    store.close()
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    poses = np.concatenate([one.poses for one in given]).astype(np.float64)
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(stats["observation.state"][name], getattr(poses, name)(0)), name
    pixels = np.concatenate([one.frames[:, 1] for one in given]) / 255
    for name in ("min", "max", "mean", "std"):
        measured = np.array(stats["observation.images.wrist"][name])
        assert measured.shape == (3, 1, 1)
        assert np.allclose(measured.ravel(), getattr(pixels, name)((0, 1, 2))), name
    assert stats["observation.images.wrist"]["count"] == [4 + 7 + 10]


def test_more_episodes_than_one_index_file_holds(tmp_path, layout, episode, monkeypatch) -> None:
    monkeypatch.setattr("worldeval.data.store.episodes.ROWS_PER_FILE", 3)
    root = tmp_path / "s"
    for i in range(8):  # a new writer for each: nothing depends on what one remembers
        with EpisodeStore.open_or_create(root, images="lossless", **layout) as store:
            store.append(episode(i))
    assert len(list((root / "meta/episodes").rglob("*.parquet"))) == 3
    store = EpisodeStore.open(root)
    assert [e.key for e in store] == [f"episode-{i}" for i in range(8)]
    assert store.verify() == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"views": ("wrist", "left")}, "views \\('wrist', 'left'\\)"),
        ({"frames": np.zeros((5, 2, 32, 32, 3), np.uint8)}, r"frames of shape \(5, 2, 32, 32, 3\)"),
        ({"frames": np.zeros((5, 2, 16, 24, 3))}, "float64 frames, expected uint8"),
        ({"poses": np.zeros((4, 3), np.float32)}, r"poses of shape \(4, 3\), expected \(5, 3\)"),
        ({"actions": np.zeros((4, 1, 3), np.float32)}, r"expected \(4, 2, 3\)"),
        ({"actions": np.full((4, 2, 3), np.nan)}, "NaN or infinity in its actions"),
        ({"expert_actions": np.zeros((4, 2, 3))}, "created without them"),
        ({"success_at": np.zeros(4, bool)}, r"success_at of shape \(4,\)"),
        ({"extra": {"task": "x"}}, r"\['task'\], which are columns"),
        ({"extra": {"x": object()}}, "not JSON"),
        ({"key": ""}, "key is ''"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(store, episode, changes, message) -> None:
    store.append(episode(0))
    before = sorted(store.root.rglob("*"))
    with pytest.raises(DataError, match=message):
        store.append(episode(1, **changes))
    assert sorted(store.root.rglob("*")) == before and len(store) == 1


def test_a_key_is_stored_once(store, episode) -> None:
    store.append(episode(0))
    with pytest.raises(DataError, match="already has an episode 'episode-0'"):
        store.append(episode(0))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": "jpeg"}, "'jpeg', expected 'video' or 'lossless'"),
        ({"image_size": (15, 24), "images": "video"}, "even sizes"),
        ({"views": ()}, "one or more different names"),
        ({"views": ("../left",)}, "letters, digits"),
        ({"fps": 0}, "fps is 0"),
        ({"steps_per_frame": 0}, "steps_per_frame is 0"),
    ],
)
def test_unusable_layouts_are_refused(tmp_path, layout, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        EpisodeStore.create(tmp_path / "s", **(layout | changes))
    assert not (tmp_path / "s").exists()


def test_the_field_that_differs_is_named(tmp_path, layout) -> None:
    EpisodeStore.create(tmp_path, extra={"made": "today"}, **layout).close()
    again = EpisodeStore.open_or_create(tmp_path, extra={"made": "tomorrow"}, **layout)
    assert again.extra == {"made": "today"}
    with pytest.raises(MismatchError, match=r"fps is 10 in the store and 15 here"):
        EpisodeStore.open_or_create(tmp_path, **(layout | {"fps": 15}))
    with pytest.raises(StoreError, match="already holds a store"):
        EpisodeStore.create(tmp_path, **layout)


def test_no_store_and_damaged_stores_are_told_apart(tmp_path, store, episode) -> None:
    with pytest.raises(StoreError, match="no episode store at"):
        EpisodeStore.open(tmp_path / "nowhere")
    store.append(episode(0))
    store.close()
    path = store.root / "meta/episodes/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StoreError, match=r"episodes/chunk-000/file-000\.parquet cannot be read"):
        EpisodeStore.open(store.root)
    info = store.root / "meta/info.json"
    info.write_text(json.dumps({"codebase_version": "v3.0"}))
    with pytest.raises(StoreError, match="no store of worldeval"):
        EpisodeStore.open(store.root)
    info.write_text("{")
    with pytest.raises(StoreError, match="info.json cannot be read"):
        EpisodeStore.open(store.root)


def test_an_unwritable_folder_is_named(tmp_path, layout) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="store cannot be written"):
        EpisodeStore.create(tmp_path / "file" / "store", **layout)


def test_a_full_disk_loses_nothing(store, episode, monkeypatch, assert_same) -> None:
    store.append(episode(0))
    room_left = 0

    def full(path) -> None:
        nonlocal room_left
        room_left -= 1
        if room_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failures = 0
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "sync_file", full)
        while len(store) == 1:  # the disk fills up one file later each time
            room_left = failures
            try:
                store.append(episode(1))
            except StoreError as error:
                failures += 1
                assert "No space left" in str(error) and len(store) == 1
                assert not list(store.root.rglob("*.tmp"))
    assert failures >= 2
    store.append(episode(2))
    again = EpisodeStore.open(store.root)
    assert again.verify() == [] and len(again) == 3
    for number, stored in enumerate(again):
        assert_same(stored, episode(number), lossy=store.layout.images == "video")


def test_one_writer_at_a_time_and_it_sees_the_others(store, episode) -> None:
    second, reader = EpisodeStore.open(store.root), EpisodeStore.open(store.root)
    store.append(episode(0))
    with pytest.raises(StoreError, match="being written by another"):
        second.append(episode(1))
    store.close()
    assert second.append(episode(1)) == 1
    assert len(reader) == 0 and len(EpisodeStore.open(store.root)) == 2


def test_a_thousand_episodes_open_without_a_thousand_files(store, episode) -> None:
    for i in range(7):
        store.append(episode(i, length=2))
    assert len(index.episodes_files(store.root)) == 1
    names = pq.read_schema(index.episodes_files(store.root)[0]).names
    assert names == store.layout.episodes_schema().names


def test_a_store_like_another_has_its_layout_and_facts_and_no_episodes(tmp_path, layout) -> None:
    facts = {"made": "by hand"}
    one = EpisodeStore.create(
        tmp_path / "one", images="lossless", **layout | {"expert_actions": True}, extra=facts
    )
    other = EpisodeStore.create_like(tmp_path / "other", one)
    assert other.layout == one.layout and other.extra == facts and len(other) == 0


def test_an_episode_without_frames_is_the_same_but_for_its_pictures(
    store, episode, assert_same
) -> None:
    with store:
        store.append(episode(0))
    whole, bare = store.episode(0), store.without_frames(0)
    assert not bare.frames.any()
    assert_same(replace(whole, frames=bare.frames), bare)
