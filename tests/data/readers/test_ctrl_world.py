"""The published layout, both variants; and what the conventions are in the real recordings."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from worldeval.data.readers.ctrl_world import CtrlWorldDataset, load_latents
from worldeval.data.readers.footage import VideoFile, resized
from worldeval.data.readers.raw import RawEpisode
from worldeval.data.video import write_mp4
from worldeval.errors import DataError
from worldeval.motion.panda import POSE_HIGH, POSE_LOW, forward
from worldeval.motion.rotations import (
    angle_difference,
    matrix_from_euler,
    matrix_from_quaternion,
    quaternion_from_euler,
    rotation_angle,
)


def notes_of(root: Path, identity: str) -> dict:
    return json.loads((root / f"annotation/train/{identity}.json").read_text())


def rewrite(root: Path, identity: str, **changes) -> None:
    notes = notes_of(root, identity) | changes
    (root / f"annotation/train/{identity}.json").write_text(json.dumps(notes))


def test_the_first_variant_has_its_rows_where_the_clocks_say(record_ctrl_world):
    root = record_ctrl_world("12", frames=7)
    notes = notes_of(root, "12")
    raw = CtrlWorldDataset(root).episode("12")
    assert (raw.key, raw.instructions, raw.success, raw.frames) == (
        "train/12", ("do 12",), True, 7,
    )  # fmt: skip
    cartesian = np.asarray(notes["observation.state.cartesian_position"], np.float32)
    gripper = np.asarray(notes["observation.state.gripper_position"], np.float32)
    joints = np.asarray(notes["observation.state.joint_position"], np.float32)
    assert np.array_equal(raw.poses(), np.asarray(notes["states"], np.float32))
    assert np.array_equal(raw.joints(), joints[[0, 3, 6, 9, 12, 15, 18]])
    steps = raw.steps()
    assert steps.shape == (6, 3, 7) and steps.dtype == np.float32
    for t, s in ((0, 0), (2, 1), (5, 2)):
        assert np.array_equal(steps[t, s, :6], cartesian[3 * t + 1 + s])
        assert steps[t, s, 6] == gripper[3 * t + 1 + s]
    assert np.array_equal(steps[:, -1], raw.poses()[1:])
    assert raw.actions["joint_velocity"].shape == (20, 7)
    assert raw.extra()["steps"] == "recorded"


def test_the_second_variant_is_interpolated_along_the_shorter_arc(record_ctrl_world):
    root = record_ctrl_world("cup-a", frames=4, second=True)
    states = np.zeros((4, 7))
    states[:, 3] = [3.0, -3.1, -3.0, -2.4]  # rolls on across pi
    states[:, 0] = [0.0, 0.3, 0.3, 0.0]
    rewrite(root, "cup-a", states=states.tolist())
    raw = CtrlWorldDataset(root).episode("cup-a")
    assert raw.success is None and raw.latents is None and raw.joints().shape == (4, 7)
    steps = raw.steps()
    assert np.allclose(steps[0, :, 0], [0.1, 0.2, 0.3])
    turn = (2 * np.pi - 6.1) / 3
    assert np.allclose(
        np.cos(steps[0, :, 3]), np.cos([3.0 + turn, 3.0 + 2 * turn, -3.1]), atol=1e-6
    )
    assert np.abs(steps[..., 3]).max() <= np.pi
    assert np.array_equal(steps[:, -1], raw.poses()[1:])
    assert raw.extra()["steps"] == "interpolated"


@pytest.mark.parametrize("video_hz", [5, 15])
def test_frame_t_shows_row_3t_whatever_the_rate_of_the_video(record_ctrl_world, row_of, video_hz):
    root = record_ctrl_world("3", frames=7, video_hz=video_hz)
    frames = CtrlWorldDataset(root).episode("3").images((24, 32))
    assert frames.shape == (7, 3, 24, 32, 3)
    assert np.abs(row_of(frames) - 3 * np.arange(7)[:, None]).max() < 1


def test_frames_are_resized_by_area(tmp_path):
    fine = np.zeros((4, 8, 3), np.uint8)
    fine[:, ::2] = 200  # columns of 200 and 0: every coarse pixel covers as much of both
    assert np.array_equal(resized(fine, (2, 4)), np.full((2, 4, 3), 100))
    assert resized(np.full((180, 320, 3), 7, np.uint8), (192, 320)).shape == (192, 320, 3)


def test_ids_are_in_the_order_of_numbers(record_ctrl_world):
    for identity in ("10", "9", "b", "a"):
        root = record_ctrl_world(identity, frames=2, latents=False)
    assert CtrlWorldDataset(root).ids == ("9", "10", "a", "b")


def test_latents_are_read_by_view(record_ctrl_world):
    root = record_ctrl_world("1", frames=7)
    latents = load_latents(CtrlWorldDataset(root).episode("1"))
    assert latents.shape == (7, 3, 4, 3, 4) and latents.dtype == np.float32
    assert np.array_equal(latents.mean(axis=(0, 2, 3, 4)), [1, 2, 3])


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


def break_latents(root: Path, kind: str) -> str:
    path = root / "latent_videos/train/1/1.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "length":
        torch.save(torch.zeros(6, 4, 3, 4), path)
    elif kind == "nan":
        torch.save(torch.full((7, 4, 3, 4), float("nan")), path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "integers":
        torch.save(torch.zeros((7, 4, 3, 4), dtype=torch.int8), path)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    return str(path)


@pytest.mark.parametrize("kind", ["pickle", "length", "nan", "list", "integers", "truncated"])
def test_damaged_latents_are_refused_by_name(record_ctrl_world, kind):
    root = record_ctrl_world("1", frames=7)
    path = break_latents(root, kind)
    with pytest.raises(DataError) as error:
        load_latents(CtrlWorldDataset(root).episode("1"))
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"states": [[0.0] * 6] * 7}, "(7, 6)"),
        ({"states": [[0.0] * 7] * 7}, "states[i] differs from row 3i"),
        ({"video_length": 9}, "video_length is 9"),
        ({"success": "maybe"}, "'maybe'"),
        ({"texts": [3]}, "[3]"),
        ({"videos": [{"video_path": "a.mp4"}]}, "lists 1 videos"),
        ({"videos": ["a", "b", "c"]}, "'videos' is not a list"),
        ({"action.joint_velocity": [[0.0] * 7] * 5}, "action.joint_velocity has shape (5, 7)"),
        ({"observation.state.joint_position": [[0.0] * 7, [1.0]]}, "not a regular array"),
    ],
)
def test_damaged_annotations_are_refused_by_name(record_ctrl_world, changes, words):
    root = record_ctrl_world("1", frames=7)
    rewrite(root, "1", **changes)
    with pytest.raises(DataError) as error:
        CtrlWorldDataset(root).episode("1")
    assert str(root / "annotation/train/1.json") in str(error.value) and words in str(error.value)


def test_success_and_texts_that_say_nothing_are_unknown(record_ctrl_world):
    root = record_ctrl_world("1", frames=7)
    for value, expected in (("no", False), ("true", True), (-1, None), (float("nan"), None)):
        rewrite(root, "1", success=value)
        assert CtrlWorldDataset(root).episode("1").success is expected
    rewrite(root, "1", texts=["", "None", "nan"])
    assert CtrlWorldDataset(root).episode("1").instructions == ()


@pytest.mark.parametrize("kind", ["grad", "parameter", "sparse", "bfloat16"])
def test_latents_as_encoders_leave_them_are_read(record_ctrl_world, kind):
    root = record_ctrl_world("1", frames=7)
    for view in range(3):
        latent = torch.full((7, 4, 3, 4), float(view + 1), requires_grad=kind == "grad")
        latent = torch.nn.Parameter(latent) if kind == "parameter" else latent
        latent = latent.to_sparse() if kind == "sparse" else latent
        latent = latent.bfloat16() if kind == "bfloat16" else latent
        torch.save(latent, root / f"latent_videos/train/1/{view}.pt")
    latents = load_latents(CtrlWorldDataset(root).episode("1"))
    assert np.array_equal(latents.mean(axis=(0, 2, 3, 4)), [1, 2, 3])


def test_nan_in_a_state_is_refused_with_its_row(record_ctrl_world):
    root = record_ctrl_world("1", frames=7)
    joints = notes_of(root, "1")["observation.state.joint_position"]
    joints[4][2] = float("nan")
    rewrite(root, "1", **{"observation.state.joint_position": joints})
    with pytest.raises(DataError, match="joint_position has NaN or infinity in row 4"):
        CtrlWorldDataset(root).episode("1")


def test_annotation_that_is_no_json(record_ctrl_world):
    root = record_ctrl_world("1")
    path = root / "annotation/train/1.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match="1.json cannot be read as JSON"):
        CtrlWorldDataset(root).episode("1")


def test_videos_that_do_not_fit_are_refused_by_name(record_ctrl_world):
    root = record_ctrl_world("1", frames=7)
    folder = root / "videos/train/1"
    raw = CtrlWorldDataset(root).episode("1")
    shorter = np.zeros((5, 18, 32, 3), np.uint8)
    write_mp4(folder / "2.mp4", shorter, 5)
    with pytest.raises(DataError, match=r"unequal length.*2\.mp4 has 5 frames"):
        raw.images((24, 32))
    for view in range(3):
        write_mp4(folder / f"{view}.mp4", shorter, 5)
    with pytest.raises(DataError, match=r"0\.mp4 has 5 frames at 5 Hz, expected 7"):
        raw.images((24, 32))
    for view in range(3):
        write_mp4(folder / f"{view}.mp4", np.zeros((7, 18, 32, 3), np.uint8), 10)
    with pytest.raises(DataError, match=r"0\.mp4 has 10 frames per second, expected 5 or 15"):
        raw.images((24, 32))
    (folder / "0.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"0\.mp4 cannot be read as video"):
        raw.images((24, 32))
    (folder / "0.mp4").unlink()
    with pytest.raises(DataError, match=r"0\.mp4 is missing"):
        raw.images((24, 32))


def test_folders_that_are_no_dataset_are_refused(tmp_path, record_ctrl_world):
    with pytest.raises(DataError, match="no folder 'annotation'"):
        CtrlWorldDataset(tmp_path)
    root = record_ctrl_world("1", frames=2, latents=False)
    with pytest.raises(DataError, match="no split 'val', only train"):
        CtrlWorldDataset(root, "val")


def test_states_too_few_for_the_frames(tmp_path):
    with pytest.raises(DataError, match="10 rows of states at 15 Hz are too few for 5 frames"):
        RawEpisode(
            id="1",
            split="train",
            described_in=tmp_path / "1.json",
            instructions=("",),
            success=None,
            footage=tuple(VideoFile(path=tmp_path / f"{v}.mp4") for v in range(3)),
            frames=5,
            state_hz=15.0,
            cartesian_position=np.zeros((10, 6)),
            gripper=np.zeros(10),
        )


# What the real recordings say about conventions.


@pytest.fixture
def real(droid) -> list[RawEpisode]:
    train, val = CtrlWorldDataset(droid, "train"), CtrlWorldDataset(droid, "val")
    return [train.episode(i) for i in train.ids] + [val.episode(i) for i in val.ids]


def test_real_percentiles_are_those_of_the_robot(droid):
    bounds = CtrlWorldDataset(droid).bounds()
    assert np.array_equal(bounds.low, POSE_LOW) and np.array_equal(bounds.high, POSE_HIGH)


def test_real_angles_are_extrinsic_xyz_and_the_hand_is_the_flange(real):
    for raw in real:
        hand = forward(raw.joint_position)  # (N, 4, 4)
        roll, pitch, yaw = raw.cartesian_position[:, 3:].T
        extrinsic = matrix_from_euler(raw.cartesian_position[:, 3:])
        assert np.abs(hand[:, :3, 3] - raw.cartesian_position[:, :3]).max() < 1e-5  # m
        assert rotation_angle(hand[:, :3, :3], extrinsic).max() < 1e-5  # rad
        turn = [matrix_from_euler(np.eye(3)[i] * a[:, None]) for i, a in
                enumerate((roll, pitch, yaw))]  # fmt: skip
        assert np.allclose(extrinsic, turn[2] @ turn[1] @ turn[0])
        intrinsic = turn[0] @ turn[1] @ turn[2]
        assert rotation_angle(hand[:, :3, :3], intrinsic).mean() > 0.3  # the rival convention


def test_real_angles_go_through_quaternions_and_back(real):
    for raw in real:
        euler = raw.cartesian_position[:, 3:]
        quaternion = quaternion_from_euler(euler)
        assert np.allclose(np.linalg.norm(quaternion, axis=1), 1)
        back = matrix_from_quaternion(quaternion)
        assert np.abs(back - matrix_from_euler(euler)).max() < 1e-9
        # Neighbours differ by little up to sign, also where roll jumps by two pi.
        assert np.abs(np.sum(quaternion[1:] * quaternion[:-1], axis=1)).min() > 0.99


def test_real_roll_wraps_and_normalising_makes_a_jump_of_it(real, droid):
    from worldeval.data.normalize import BoundNormalizer

    bounds = CtrlWorldDataset(droid).bounds()
    normalizer = BoundNormalizer(low=tuple(bounds.low), high=tuple(bounds.high))
    wraps = 0
    for raw in real:
        poses = raw.poses()
        jumps = np.flatnonzero(np.abs(np.diff(poses[:, 3])) > 3)
        wraps += len(jumps)
        # The way along the shorter arc is small everywhere: the arm turned by this much.
        turned = angle_difference(poses[1:, 3], poses[:-1, 3])
        assert np.abs(turned).max() < 0.3
        # A model that sees the percentiles' [-1, 1] sees the same small turn as a jump by two.
        seen = np.abs(np.diff(normalizer.normalize(poses)[:, 3]))
        assert (seen[jumps] > 1.9).all()
        rest = np.delete(seen, jumps)
        assert rest.max(initial=0) < 0.1
    assert wraps >= 8


def test_real_gripper_is_0_open_1_closed_and_follows_its_command(real):
    moved = 0
    for raw in real:
        commanded = raw.actions["gripper_position"].reshape(-1)
        assert raw.gripper[0] == 0  # DROID's recordings begin with an open gripper
        assert raw.gripper.min() >= 0 and raw.gripper.max() <= 1
        if commanded.max() < 0.1:
            continue
        moved += 1
        late = [
            np.abs(commanded[: len(commanded) - lag] - raw.gripper[lag:]).mean() for lag in range(9)
        ]
        assert 3 <= int(np.argmin(late)) <= 6  # rows of 15 Hz: 0.2 to 0.4 s behind
        assert np.corrcoef(commanded, raw.gripper)[0, 1] > 0.9  # same sense
        # Something between the fingers keeps them from closing as far as commanded.
        assert raw.gripper.max() <= commanded.max()
    assert moved >= 5


def test_real_clocks_agree(real, droid):
    for raw in real:
        rows = np.concatenate([raw.cartesian_position, raw.gripper[:, None]], 1)
        notes = json.loads(raw.described_in.read_text())
        assert np.array_equal(np.asarray(notes["states"]), rows[::3][: raw.frames])
        assert raw.frames == -(-len(rows) // 3)
        assert [footage.count() for footage in raw.footage] == [raw.frames] * 3
        assert [round(footage.hz, 3) for footage in raw.footage] == [5.0] * 3
        if "joints" in notes:
            assert np.array_equal(np.asarray(notes["joints"])[:, :7], raw.joint_position[::3])


def test_real_wrist_camera_moves_when_the_arm_does(droid):
    """The picture changes most where the pose does: no offset between video and states."""
    raw = CtrlWorldDataset(droid, "val").episode("1799")
    seen = raw.footage[2].read().astype(np.float32)
    change = np.abs(np.diff(seen, axis=0)).mean(axis=(1, 2, 3))
    poses = raw.poses()
    rotation = matrix_from_euler(poses[:, 3:6])
    moved = np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1)
    moved += 0.3 * rotation_angle(rotation[1:], rotation[:-1])
    agreement = {
        lag: np.corrcoef(
            change[max(0, lag) : len(change) + min(0, lag)],
            moved[max(0, -lag) : len(moved) + min(0, -lag)],
        )[0, 1]
        for lag in range(-3, 4)
    }
    assert max(agreement, key=agreement.get) == 0 and agreement[0] > 0.8
