"""DROID as a LeRobot dataset: both forms, rival spellings, and what is refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.readers import lerobot_made
from worldeval.data.readers.droid import LeRobotDroid
from worldeval.data.readers.droid_keys import FOLDER, known_key_maps, read_key_map
from worldeval.data.video import read_mp4, write_mp4
from worldeval.errors import ConfigError, DataError
from worldeval.motion.panda import forward_pose

RIVAL = (
    "observation.images.exterior_image_1_left",
    "observation.images.exterior_image_2_left",
    "observation.images.wrist_image_left",
)
BARE = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_both_forms_give_the_same_episode(record_lerobot, row_of, version):
    dataset = LeRobotDroid(record_lerobot(version, lengths=(20, 23)))
    assert dataset.ids == ("0", "1") and dataset.key_map.name == "droid_1_0_1"
    raw = dataset.episode("1")
    assert (raw.key, raw.frames, raw.success) == ("train/1", 8, False)  # rows 0, 3, ..., 21
    assert raw.instructions == ("task 1", "again 1")
    assert raw.extra()["instruction_2"] == "again 1"
    assert raw.cartesian_position.shape == (23, 6) and raw.joint_position.shape == (23, 7)
    assert np.allclose(raw.gripper, np.linspace(0, 1, 23))
    assert np.array_equal(raw.actions["gripper_position"], np.ones((23, 1)))  # of episode 1
    assert np.allclose(raw.actions["joint_velocity"][5], np.arange(7) / 10)
    assert np.array_equal(raw.steps()[:, -1], raw.poses()[1:])
    frames = raw.images((24, 32))
    assert frames.shape == (8, 3, 24, 32, 3)
    assert np.abs(row_of(frames) - 3 * np.arange(8)[:, None]).max() < 1


def test_images_inside_parquet_and_poses_from_joints(record_lerobot, row_of):
    root = record_lerobot("v2.1", views=BARE, spelling="droid_openpi", images=True)
    dataset = LeRobotDroid(root)
    raw = dataset.episode("1")
    assert dataset.key_map.name == "droid_openpi"
    assert np.allclose(raw.cartesian_position, forward_pose(raw.joint_position))
    assert np.allclose(raw.actions["joint_velocity"][0], np.arange(7) / 10)
    frames = raw.images((24, 32))
    assert np.abs(row_of(frames) - 3 * np.arange(8)[:, None]).max() < 1e-6  # PNG loses nothing


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("droid_1_0_1", "droid_exterior_image"), ("droid_100", "droid_100")],
)
def test_rival_spellings_are_told_apart(record_lerobot, spelling, expected):
    # Both say 10 frames per second in places; the recording was at 15 Hz all the same.
    root = record_lerobot("v3.0", views=RIVAL, spelling=spelling, fps=10)
    dataset = LeRobotDroid(root)
    raw = dataset.episode("1")
    assert dataset.key_map.name == expected
    assert raw.joint_position.shape == (23, 7) and np.allclose(raw.gripper, np.linspace(0, 1, 23))
    assert len(raw.images((24, 32))) == 8


def test_an_unknown_layout_is_refused_with_keys_and_maps(record_lerobot):
    root = record_lerobot("v2.1", views=("camera.a", "camera.b", "camera.c"))
    with pytest.raises(DataError) as error:
        LeRobotDroid(root)
    said = str(error.value)
    assert "camera.a" in said and "action.joint_velocity [7]" in said  # what it has
    assert all(known.name in said for known in known_key_maps())  # what was tried
    assert "droid_1_0_1 lacks observation.images.exterior_1_left" in said


def test_a_map_of_ones_own(record_lerobot, tmp_path):
    root = record_lerobot("v2.1", views=("camera.a", "camera.b", "camera.c"))
    content = json.loads((FOLDER / "droid_1_0_1.json").read_text())
    content["views"] = dict(
        zip(content["views"], ("camera.a", "camera.b", "camera.c"), strict=True)
    )
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    assert LeRobotDroid(root, key_map=path).episode("0").frames == 7

    content["gripper"]["width"] = 2
    content["gripper"]["to"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"gripper_position of width 2 \(it has \[1\]\)"):
        LeRobotDroid(root, key_map=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": {"left": "a"}}, "views are ['left']"),
        ({"surplus": 1}, "surplus"),
        ({"gripper": {"column": "g"}}, "incomplete"),
        ({"gripper": {"column": "g", "width": 3}}, "gripper takes 3 numbers"),
        ({"gripper": {"column": "g", "width": 3, "from": 2, "to": 5}}, "takes 2..5 of 3"),
        ({"cartesian_position": None, "joint_position": None}, "neither"),
    ],
)
def test_unusable_maps_are_refused(tmp_path, change, words):
    content = json.loads((FOLDER / "droid_1_0_1.json").read_text()) | change
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as error:
        read_key_map(path)
    assert words in str(error.value)


@pytest.mark.parametrize("shape", [True, "8", 8, None, {"0": 8}])
def test_a_shape_of_another_kind_fits_no_map(shape):
    (first, *_) = known_key_maps()
    features = {view: {} for view in first.views.values()}
    features[first.gripper.name] = {"shape": shape}
    assert any(f"(it has {shape!r})" in lack for lack in first.lacking(features))
    features[first.gripper.name] = shape if shape is not None else 1
    assert any("(it has None)" in lack for lack in first.lacking(features))


def edit_info(root, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebase_version": "v4.0"}, "codebase_version 'v4.0'"),
        ({"fps": None}, "says nothing of frames per second, expected 15"),
        ({"fps": 30}, "says 30 frames per second, expected 15"),
        ({"splits": {"test": "0:2"}}, "no split 'train', only test"),
        ({"splits": {"train": "all"}}, "'all', expected 'first:end'"),
        ({"splits": ["train"]}, "splits are ['train']"),
        ({"fps": "15"}, "fps is '15'"),
        ({"features": {"a": 3}}, "has no features"),
        ({"features": {"a": {"shape": True}}}, "the shape of 'a' is True, expected a list"),
        ({"features": {"a": {"shape": [None]}}}, "the shape of 'a' is [None], expected a list"),
    ],
)
def test_infos_that_cannot_be_used(record_lerobot, changes, words):
    root = record_lerobot("v2.1")
    edit_info(root, **changes)
    with pytest.raises(DataError) as error:
        LeRobotDroid(root)
    assert str(root / "meta/info.json") in str(error.value) and words in str(error.value)


def test_damaged_files_are_named(record_lerobot):
    root = record_lerobot("v2.1")
    dataset = LeRobotDroid(root)
    video = next(root.glob("videos/*/*/episode_000000.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(DataError, match="episode_000000.mp4"):
        dataset.episode("0").images((24, 32))
    data = root / "data/chunk-000/episode_000000.parquet"
    data.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="episode_000000.parquet cannot be read"):
        dataset.episode("0")
    data.unlink()
    with pytest.raises(DataError, match="episode_000000.parquet is missing"):
        dataset.episode("0")
    with pytest.raises(DataError, match="no episode '7'"):
        dataset.episode("7")
    shutil.rmtree(root / "meta")
    with pytest.raises(DataError, match="info.json is missing"):
        LeRobotDroid(root)


def test_what_splits_leave_out_is_told_and_can_be_taken(record_lerobot):
    root = record_lerobot("v3.0", lengths=(20, 23, 20))
    edit_info(root, splits={"train": "0:1", "test": "5:9"})
    dataset = LeRobotDroid(root)
    assert dataset.ids == ("0",)
    assert "2 of 3 episodes of the index (1, 2) belong to no split" in dataset.notes[0]
    assert "train is 0:1" in dataset.notes[0] and "--split all" in dataset.notes[0]
    everything = LeRobotDroid(root, "all")
    assert (everything.ids, everything.notes) == (("0", "1", "2"), [])
    assert "lists 0 of these 4 episodes" in LeRobotDroid(root, "test").notes[1]


def test_an_entry_that_names_no_episode_costs_itself_alone(record_lerobot):
    root = record_lerobot("v2.1")
    with (root / "meta/episodes.jsonl").open("a") as file:
        file.write('{"episode_index": "2", "length": 20}\n{"length": \n')
    dataset = LeRobotDroid(root)
    assert dataset.ids[:2] == ("0", "1") and len(dataset.ids) == 4
    assert dataset.episode("1").frames == 8
    with pytest.raises(DataError, match=r"line 3 has '2' for episode_index"):
        dataset.episode(dataset.ids[2])


def test_a_film_whose_rate_is_wrong_is_named_with_both_rates(record_lerobot):
    """All frames are found at twice the rate, each at half of its time."""
    root = record_lerobot("v3.0")
    for path in root.glob("videos/*/*/*.mp4"):
        write_mp4(path, read_mp4(path), 30)
    with pytest.raises(DataError, match=r"43 frames at 30 Hz.*up to 2.867 s at 15 Hz"):
        LeRobotDroid(root).episode("0").images((24, 32))


@pytest.mark.parametrize("form", ["bytes", "struct", "path", "list"])
def test_images_in_every_form_are_read_or_named(record_lerobot, row_of, form):
    root = record_lerobot("v2.1", views=BARE, spelling="droid_openpi", images=True)
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    for place, name in enumerate(BARE):
        cells = [cell["bytes"] for cell in table.column(name).to_pylist()]
        if form == "struct":
            cells = [{"path": f"{k}.png", "bytes": cell} for k, cell in enumerate(cells)]
        if form == "path":
            for k, cell in enumerate(cells):
                (root / f"{place}-{k}.png").write_bytes(cell)
            cells = [{"path": f"{place}-{k}.png", "bytes": None} for k in range(len(cells))]
        if form == "list":
            cells = [list(cell) for cell in cells]
        position = table.column_names.index(name)
        table = table.set_column(position, name, pa.array(cells))
    pq.write_table(table, path)
    raw = LeRobotDroid(root).episode("0")
    if form == "list":
        with pytest.raises(DataError, match=r"'exterior_image_1_left' is list, expected the bytes"):
            raw.images((24, 32))
    else:
        frames = raw.images((24, 32))
        assert np.abs(row_of(frames) - 3 * np.arange(7)[:, None]).max() < 1e-6


@pytest.mark.parametrize(
    ("flags", "expected"), [("FFT", True), ("FFF", False), ("TTF", None), ("TFT", None)]
)
def test_a_flag_of_success_may_rise_but_not_fall(record_lerobot, flags, expected):
    root = record_lerobot("v2.1", lengths=(20, 3))
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path).drop_columns("is_episode_successful")
    values = pa.array([flag == "T" for flag in flags])
    pq.write_table(table.append_column("is_episode_successful", values), path)
    dataset = LeRobotDroid(root)
    if expected is not None:
        assert dataset.episode("1").success is expected
    else:
        with pytest.raises(DataError, match="says both success and, later, failure"):
            dataset.episode("1")


def spoilt(tmp_path, version, spoil) -> LeRobotDroid:
    """A dataset of two episodes after ``spoil(made)``; row 0 of episode 1 is row 7 of all."""
    dataset = lerobot_made.make(version, [7, 9])
    spoil(dataset)
    lerobot_made.write(dataset, tmp_path / "d")
    return LeRobotDroid(tmp_path / "d")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_rows_without_any_clock_come_in_the_order_of_the_whole_dataset(tmp_path, version):
    def spoil(dataset):
        for table in dataset.tables.values():
            del table["frame_index"], table["timestamp"]
            for values in table.values():
                values.reverse()

    raw = spoilt(tmp_path, version, spoil).episode("1")
    assert np.allclose(1000 * raw.poses()[:, 0], [7, 10, 13]) and not raw.notes


@pytest.mark.parametrize("index", [0, 99])
def test_rows_that_only_a_broken_count_orders_are_refused(tmp_path, index):
    def spoil(dataset):
        for table in dataset.tables.values():
            del table["frame_index"], table["timestamp"]
            table["index"][3] = index

    with pytest.raises(DataError, match="index has rows twice or leaves rows out"):
        spoilt(tmp_path, "v2.1", spoil).episode("0")


def test_a_task_that_changes_within_an_episode_is_named(tmp_path):
    def spoil(dataset):
        next(iter(dataset.tables.values()))["task_index"][4:] = [1, 1, 1]

    with pytest.raises(DataError, match="means 'do 1' in the table of tasks.* says 'do 0'"):
        spoilt(tmp_path, "v2.1", spoil).episode("0")


@pytest.mark.parametrize(
    "pattern", ["{episode_index:0999999999d}", "{video_key:>999}", "{episode_index:{file_index}d}"]
)
def test_paths_padded_without_end_are_refused(tmp_path, pattern):
    dataset = spoilt(tmp_path, "v2.1", lambda made: made.info.update(video_path=pattern))
    with pytest.raises(DataError, match="pads to 100 characters or more"):
        dataset.index.path(0, "video_path", "videos")
