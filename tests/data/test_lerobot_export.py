"""A store as a LeRobot dataset, and back: the same numbers to the bit, every picture in its row."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldeval import cli
from worldeval.data import origin
from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.readers.droid import LeRobotDroid
from worldeval.data.readers.lerobot_robot import LeRobotRobot
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.writers import lerobot
from worldeval.data.writers.lerobot import export
from worldeval.errors import ConfigError, DataError, StoreError
from worldeval.motion.panda import panda
from worldeval.robots import RobotSpec, read_robot
from worldeval.types import Episode

LENGTHS = (5, 3, 1)


def bit_coded(number: int, length: int, views: int, size: tuple[int, int]) -> np.ndarray:
    """Frames (T, V, H, W, 3) whose blocks spell episode, frame and view in black and white."""
    height, width = size
    frames = np.zeros((length, views, height, width, 3), np.uint8)
    for t in range(length):
        for v in range(views):
            code = number << 8 | t << 2 | v
            for bit in range(16):
                if code >> bit & 1:
                    x = bit * width // 16
                    frames[t, v, :, x : (bit + 1) * width // 16] = 255
    return frames


def spelled(frame: np.ndarray) -> tuple[int, int, int]:
    """(episode, frame, view) that a picture of ``bit_coded`` says."""
    width = frame.shape[1]
    middle = [(2 * bit + 1) * width // 32 for bit in range(16)]
    code = sum(1 << bit for bit, x in enumerate(middle) if frame[:, x].mean() > 127)
    return code >> 8, code >> 2 & 63, code & 3


def store_of(root: Path, robot: RobotSpec, *, expert: bool = False, **changes: Any) -> EpisodeStore:
    """Episodes with random numbers; poses are where absolute actions lead."""
    store = EpisodeStore.create(
        root, **store_fields(robot), images="lossless", expert_actions=expert,
        extra=robot_extra(robot),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    low, high = np.array(robot.action_low), np.array(robot.action_high)
    for number, length in enumerate(LENGTHS):
        shape = (length - 1, robot.steps_per_frame, robot.action_dim)
        actions = (low + (high - low) * rng.random(shape)).astype(np.float32)
        poses = rng.random((length, robot.pose_dim)).astype(np.float32)
        if robot.control_mode in ("absolute_pose", "joint_target"):
            poses[1:] = actions[:, -1]
        elif robot.control_mode == "delta_position" and length > 1:
            poses[1:] = robot.integrate(poses[:1].clip(robot.pose_low, robot.pose_high), actions.reshape(1, -1, shape[-1]))[0]  # fmt: skip  # noqa: E501
            poses[0] = poses[0].clip(robot.pose_low, robot.pose_high)
        joints = rng.random((length, robot.joint_dim)).astype(np.float32)
        same = robot.joint_names == robot.pose_names
        store.append(
            Episode(
                key=f"task/{number}",
                task="task",
                instruction=("push it", "lift it, née «x»")[number % 2],
                views=robot.views,
                frames=bit_coded(number, length, len(robot.views), robot.image_size),
                poses=poses,
                actions=actions,
                joints=(poses if same else joints) if robot.joint_names else None,
                expert_actions=-actions if expert else None,
                success_at=np.arange(length) >= 3,
                success=length > 3,
                extra={"policy": "mine"},
                **changes,
            )
        )
    store.close()
    return EpisodeStore.open(root)


def robots() -> dict[str, RobotSpec]:
    sawyer, so101, aloha = map(read_robot, ("metaworld-sawyer", "so101", "aloha"))
    return {
        "sawyer": replace(sawyer, image_size=(32, 64)),
        "so101": replace(so101, image_size=(32, 64), steps_per_frame=3),
        "aloha": replace(aloha, image_size=(32, 64)),
    }


@pytest.mark.parametrize("version", lerobot.VERSIONS)
@pytest.mark.parametrize("name", ["sawyer", "so101", "aloha"])
def test_what_is_read_back_is_what_was_written(tmp_path: Path, name: str, version: str) -> None:
    robot = robots()[name]
    store = store_of(tmp_path / "store", robot, expert=True)
    done = export(store, tmp_path / "out", robot, version=version)
    steps = robot.steps_per_frame
    assert done.rows == sum((length - 1) * steps + 1 for length in LENGTHS)
    back = LeRobotRobot(tmp_path / "out", read_robot(tmp_path / "out/meta/robot.toml"))
    assert len(back) == len(store)
    for number, identity in enumerate(back.ids):
        one, other = store.episode(number), back.episode(identity)
        assert other.poses().tobytes() == one.poses.tobytes()
        assert other.steps().tobytes() == one.actions.tobytes()
        if one.joints is not None:
            assert other.joints().tobytes() == one.joints.tobytes()
        assert other.success == one.success
        assert other.instructions == (one.instruction,)
        seen = other.images(robot.image_size)
        said = [[spelled(frame) for frame in views] for views in seen]
        assert said == [
            [(number, t, v) for v in range(len(robot.views))] for t in range(one.length)
        ]
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["codebase_version"] == f"v{version}"
    assert info["fps"] == robot.control_hz
    assert info["features"]["action"]["shape"] == [robot.action_dim]
    # what LeRobot would take for an action or an input
    assert [n for n in info["features"] if n.startswith("action")] == ["action"]
    assert info["features"]["expert_action"]["names"] == list(robot.action_names)


@pytest.mark.parametrize("version", lerobot.VERSIONS)
def test_droid_is_spelled_as_droid_and_read_as_droid(tmp_path: Path, version: str) -> None:
    robot = panda("absolute_pose", image_size=(32, 64))
    store = store_of(tmp_path / "store", robot)
    export(store, tmp_path / "out", robot, version=version)
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert {
        "observation.images.exterior_1_left", "observation.images.wrist_left",
        "observation.state.cartesian_position", "observation.state.joint_position",
        "action.cartesian_position", "action.gripper_position", "is_episode_successful",
    } <= set(info["features"])  # fmt: skip
    assert info["features"]["observation.state"]["shape"] == [8]
    assert info["features"]["observation.state"]["names"][-1] == "gripper"
    back = LeRobotDroid(tmp_path / "out")
    for number, identity in enumerate(back.ids):
        one, other = store.episode(number), back.episode(identity)
        assert other.poses().tobytes() == one.poses.tobytes()
        assert other.joints().tobytes() == one.joints.tobytes()
        assert other.steps().tobytes() == one.actions.tobytes()
        assert other.success == one.success
    fast = panda("joint_velocity", image_size=(32, 64))
    store = store_of(tmp_path / "fast", fast)
    export(store, tmp_path / "openpi", fast, version="2.1", keys="droid_openpi")
    features = json.loads((tmp_path / "openpi/meta/info.json").read_text())["features"]
    assert features["actions"]["shape"] == [8]
    assert "action" not in features
    assert features["joint_position"]["shape"] == [7]
    rows = pq.read_table(tmp_path / "openpi/data/chunk-000/episode_000000.parquet")
    found = np.array(rows["actions"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found[:-1], store.episode(0).actions.reshape(-1, 8))


def test_rows_between_two_frames_say_what_was_commanded(tmp_path: Path) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    export(store, tmp_path / "out", robot)
    table = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    rows = [i for i, e in enumerate(table["episode_index"].to_pylist()) if e == 0]
    state = np.array(table["observation.state"].to_pylist(), np.float32)[rows]
    episode = store.episode(0)
    fine = replace(robot, steps_per_frame=1)
    flat = episode.actions.reshape(-1, robot.action_dim)
    np.testing.assert_allclose(state[1:], fine.integrate(episode.poses[0], flat), atol=1e-5)
    action = np.array(table["action"].to_pylist(), np.float32)[rows]
    np.testing.assert_array_equal(action[-1, :3], 0)  # it stands still ...
    assert action[-1, 3] == action[-2, 3]  # ... and holds what it holds
    done = np.array(table["next.done"].to_pylist())[rows]
    assert done.tolist() == [False] * (len(rows) - 1) + [True]
    solved = np.array(table["next.success"].to_pylist())[rows]
    assert np.flatnonzero(solved)[0] == 3 * robot.steps_per_frame - 1  # frame 3 is seen after it
    assert solved[-1]


def test_what_nobody_has_judged_is_not_called_a_failure(tmp_path: Path) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    other = EpisodeStore.open(tmp_path / "store")
    with other:
        other.append(replace(store.episode(0), key="task/9", success=None, success_at=None))
    done = export(EpisodeStore.open(tmp_path / "store"), tmp_path / "out", robot)
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert "next.success" not in info["features"]
    assert "next.success is left out" in done.notes[0]
    index = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert index["success"].to_pylist() == [True, False, False, None]


def test_gr00t_finds_arm_gripper_views_and_instruction(tmp_path: Path) -> None:
    robot = robots()["aloha"]
    store = store_of(tmp_path / "store", robot)
    export(store, tmp_path / "out", robot, version="2.1", with_modality="gr00t")
    said = json.loads((tmp_path / "out/meta/modality.json").read_text())
    assert list(said["action"]) == ["arm", "gripper", "arm_2", "gripper_2"]
    assert said["action"]["gripper"] == {"start": 6, "end": 7}
    assert said["action"]["gripper_2"]["end"] == robot.action_dim
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    for view, key in said["video"].items():
        assert view in robot.views
        assert info["features"][key["original_key"]]["dtype"] == "video"
    rows = pq.read_table(tmp_path / "out/data/chunk-000/episode_000001.parquet")
    name = next(iter(said["annotation"]))
    assert set(rows[f"annotation.{name}"].to_pylist()) == {1}
    with pytest.raises(ConfigError, match=r"GR00T reads version 2\.1"):
        export(store, tmp_path / "x", robot, with_modality="gr00t")


def test_films_and_tables_are_cut_where_they_have_grown_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worldeval.data.writers import lerobot_v30

    monkeypatch.setattr(lerobot_v30, "DATA_FILES_SIZE_IN_MB", 0)
    monkeypatch.setattr(lerobot_v30, "VIDEO_FILES_SIZE_IN_MB", 0)
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    export(store, tmp_path / "out", robot)
    assert len(list((tmp_path / "out/data").rglob("*.parquet"))) == len(LENGTHS)
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == len(LENGTHS) * len(robot.views)
    back = LeRobotRobot(tmp_path / "out", robot)
    for number, identity in enumerate(back.ids):
        frames = back.episode(identity).images(robot.image_size)
        assert spelled(frames[-1, 0]) == (number, LENGTHS[number] - 1, 0)


@pytest.mark.parametrize("version", lerobot.VERSIONS)
def test_a_full_disk_or_ctrl_c_leaves_nothing(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    write, calls = lerobot.write_mp4, []
    for error, raised in (
        (OSError(errno.ENOSPC, "No space left on device"), StoreError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fails(*args: Any, error: BaseException = error, **rest: Any) -> None:
            calls.append(1)
            if len(calls) % 5 == 0:
                assert not list(tmp_path.rglob(".out*/meta/info.json"))
                raise error
            write(*args, **rest)

        with monkeypatch.context() as during, pytest.raises(raised):
            during.setattr(lerobot, "write_mp4", fails)
            export(store, tmp_path / "out", robot, version=version)
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_export_never_changes_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    words = ["export", "lerobot", str(store.root), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert "3 episodes" in capsys.readouterr().out
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert cli.main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert cli.main([*words[:-1], str(tmp_path / "some"), "--only-successful"]) == 0
    assert "1 episodes" in capsys.readouterr().out
    assert cli.main([*words[:-1], str(tmp_path / "x"), "--keys", "droid_1_0_1"]) == 2
    assert "which spells a droid-panda" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(DataError, match="no episodes to export"):
        export(store, tmp_path / "x", robot, episodes=[])


def test_prepare_takes_it_back_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    assert cli.main(["export", "lerobot", str(store.root), "--out", str(tmp_path / "out")]) == 0
    words = (
        f"prepare --source {tmp_path / 'out'} --min-frames 1 --workers 1 --out {tmp_path / 'back'}"
    )
    assert cli.main(words.split()) == 0, capsys.readouterr().err
    back = EpisodeStore.open(tmp_path / "back")
    for number in range(len(store)):
        one, other = store.episode(number), back.episode(number)
        assert one.poses.tobytes() == other.poses.tobytes()
        assert one.actions.tobytes() == other.actions.tobytes()
        assert (one.success, one.instruction) == (other.success, other.instruction)
        assert spelled(other.frames[-1, 1])[:2] == (number, one.length - 1)


@pytest.mark.parametrize("version", lerobot.VERSIONS)
def test_what_was_imagined_is_marked_and_stays_so(tmp_path: Path, version: str) -> None:
    robot = robots()["sawyer"]
    store = store_of(tmp_path / "store", robot)
    with EpisodeStore.open(tmp_path / "store") as more:
        facts = {"world": "imagination", "judge": "somebody", "seed": 5}
        more.append(replace(store.episode(0), key="task/9", extra=facts))
    done = export(EpisodeStore.open(tmp_path / "store"), tmp_path / "out", robot, version=version)
    assert any("imagined" in note for note in done.notes)
    assert origin.marked_folder(tmp_path / "out")
    words = f"prepare --source {tmp_path / 'out'} --min-frames 1 --workers 1 --out {tmp_path}/back"
    assert cli.main(words.split()) == 0
    assert origin.marked(EpisodeStore.open(tmp_path / "back"))
    if version == "3.0":
        index = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
        kept = index["extra"].to_pylist()[-1]
    else:
        lines = (tmp_path / "out/meta/episodes.jsonl").read_text().splitlines()
        kept = json.loads(lines[-1])["extra"]
    assert json.loads(kept) == facts
    done = export(EpisodeStore.open(tmp_path / "store"), tmp_path / "few", robot, episodes=[0, 1])
    assert not origin.marked_folder(tmp_path / "few")
