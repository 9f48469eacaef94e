"""The learned adapter: its file formats, its arithmetic, its blocks; and how it is trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldeval.commands.train_adapter import TrainAdapter
from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError, DataError, MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.policies.joint_adapter import PUBLISHED, AdapterNetwork, LearnedAdapter
from worldeval.policies.joint_adapter_training import (
    AdapterTrainConfig,
    bounds_of,
    drawn,
    flange_errors,
    train_adapter,
    windows_of,
)

READY = np.array([[0.0, -0.3, 0.1, -2.0, 0.05, 1.9, 0.7]])


def network(hidden: int = 8, seed: int = 0) -> AdapterNetwork:
    torch.manual_seed(seed)
    return AdapterNetwork(hidden, PUBLISHED)


def published(folder: Path, model: AdapterNetwork) -> Path:
    path = folder / "adapter.pth"
    torch.save(model.state_dict(), path)
    return path


def test_the_arithmetic_by_hand(tmp_path: Path) -> None:
    model = network(16)
    velocity = np.random.default_rng(0).uniform(-1, 1, (2, 15, 7))
    joints = np.repeat(READY, 2, 0) + [[0.0], [0.1]]
    found = LearnedAdapter.load(published(tmp_path, model)).joints(joints, velocity)
    low, high = np.array(PUBLISHED["velocity_low"]), np.array(PUBLISHED["velocity_high"])
    x = np.concatenate([joints, (2 * (velocity - low) / (high - low) - 1).reshape(2, -1)], 1)
    weights = {n: t.double().numpy() for n, t in model.state_dict().items()}
    for layer in ("net.0", "net.2", "net.4"):
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        if layer != "net.4":
            x = x / (1 + np.exp(-x))
    low, high = np.array(PUBLISHED["delta_low"]), np.array(PUBLISHED["delta_high"])
    expected = joints[:, None] + (x.reshape(2, 15, 7) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_our_form_keeps_weights_and_percentiles(tmp_path: Path) -> None:
    bounds = {name: tuple(2 * x for x in values) for name, values in PUBLISHED.items()}
    torch.manual_seed(1)
    one = LearnedAdapter(AdapterNetwork(8, bounds))
    other = LearnedAdapter.load(one.save(tmp_path / "adapter"))
    velocity = np.full((1, 15, 7), 0.3)
    np.testing.assert_array_equal(other.joints(READY, velocity), one.joints(READY, velocity))
    assert other.network.bounds == {n: tuple(map(float, v)) for n, v in bounds.items()}


@pytest.mark.parametrize("steps", [6, 15, 24])
def test_chunks_of_any_length(steps: int) -> None:
    adapter = LearnedAdapter(network())
    velocity = np.random.default_rng(1).uniform(-1, 1, (1, steps, 7))
    along = adapter.along(READY, velocity)
    assert along.shape == (1, steps, 7)
    filled = np.concatenate([velocity, np.repeat(velocity[:, -1:], 15, 1)], 1)
    first = adapter.joints(READY, filled[:, :15])
    np.testing.assert_array_equal(along[:, :15], first[:, :steps])
    if steps > 15:  # goes on from where the first block ended
        second = adapter.joints(first[:, -1], filled[:, 15:30])
        np.testing.assert_array_equal(along[:, 15:], second[:, : steps - 15])


def test_poses_by_the_learned_adapter(tmp_path: Path) -> None:
    robot = panda.panda("joint_velocity", steps_per_frame=3)
    model = network(16)
    adapter = adapter_for(robot, LearnedAdapter.load(published(tmp_path, model)), gripper_most=0.9)
    actions = np.zeros((1, 12, 8), np.float32)
    actions[..., -1] = 1.0
    pose = np.concatenate([panda.forward_pose(READY), [[0.0]]], -1)
    poses, joints = adapter.advance(pose, READY, actions)
    expected = LearnedAdapter(model).along(READY, actions[..., :7])[:, 2::3]
    np.testing.assert_allclose(joints, expected, atol=1e-6)
    np.testing.assert_allclose(poses[..., :6], panda.forward_pose(joints), atol=1e-5)
    assert np.allclose(poses[..., 6], 0.9)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_files_that_are_no_adapter(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"net.0.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        LearnedAdapter.load(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is no action adapter"):
        LearnedAdapter.load(tmp_path / "other.pth")
    model = network()
    with torch.no_grad():
        model.net[0].bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"net\.0\.bias has NaN"):
        LearnedAdapter.load(published(tmp_path, model))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        LearnedAdapter.load(tmp_path / "nowhere")
    with pytest.raises(MismatchError, match=r"\(1, 14, 7\) were given"):
        LearnedAdapter(network()).joints(READY, np.zeros((1, 14, 7)))


GAIN = 0.05


def dataset(root: Path, *, split: str, count: int, velocities: bool = True) -> None:
    """Episodes of an arm that follows its commands at once: q += GAIN * v."""
    for number in range(count):
        rng = np.random.default_rng([number, split == "val"])
        steps = 61
        velocity = np.repeat(rng.uniform(-0.3, 0.3, (7, 7)), 9, axis=0)[:steps]
        joints = READY[0] + GAIN * np.cumsum(np.concatenate([np.zeros((1, 7)), velocity]), 0)[:-1]
        poses = panda.forward_pose(joints)
        gripper = np.zeros(steps)
        record = {
            "texts": ["move"],
            "success": 1,
            "video_length": 21,
            "states": np.concatenate([poses, gripper[:, None]], 1)[::3].tolist(),
            "observation.state.cartesian_position": poses.tolist(),
            "observation.state.joint_position": joints.tolist(),
            "observation.state.gripper_position": gripper.tolist(),
        }
        if velocities:
            record["action.joint_velocity"] = velocity.tolist()
        path = root / "annotation" / split / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        for view in range(3):
            video = root / "videos" / split / str(number) / f"{view}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.touch()


def small(steps: int = 80) -> AdapterTrainConfig:
    loop = LoopConfig(
        steps=steps, batch=64, learning_rate=3e-3, warmup=10, threads=1, ema=0.95, device="cpu"
    )
    return AdapterTrainConfig(loop=loop, hidden=64, joint_noise_rad=0.02)


def test_training_learns_how_the_arm_follows(tmp_path: Path, capsys) -> None:
    dataset(tmp_path / "data", split="train", count=6)
    dataset(tmp_path / "data", split="val", count=2)
    TrainAdapter(source=(tmp_path / "data",), out=tmp_path / "out", config=small()).run()
    assert "on held-out episodes" in capsys.readouterr().out
    errors = checkpoint.read_header(tmp_path / "out")["card"]
    held_out = windows_of([tmp_path / "data"], "val")
    still = np.sqrt(np.mean(held_out.moves**2))
    assert errors["joint_rmse_rad"] < 0.5 * still
    adapter = LearnedAdapter.load(tmp_path / "out")
    found = adapter.joints(held_out.joints, held_out.velocity) - held_out.joints[:, None]
    assert np.sqrt(np.mean((found - held_out.moves) ** 2)) == pytest.approx(
        errors["joint_rmse_rad"], rel=1e-3
    )


def test_windows_are_the_steps_after_each_moment(tmp_path: Path) -> None:
    dataset(tmp_path, split="train", count=1)
    windows = windows_of([tmp_path], "train", stride=5)
    assert len(windows) == 10 and windows.velocity.shape == (10, 15, 7)
    np.testing.assert_allclose(windows.moves, GAIN * np.cumsum(windows.velocity, 1), atol=1e-9)
    low, high = bounds_of(windows)["velocity_low"], bounds_of(windows)["velocity_high"]
    assert np.less(low, high).all() and np.abs([*low, *high]).max() <= 0.3


def test_processes_share_what_is_drawn(tmp_path: Path) -> None:
    dataset(tmp_path, split="train", count=1)
    windows = windows_of([tmp_path], "train")
    tensors = [torch.as_tensor(v) for v in (windows.joints, windows.velocity, windows.moves)]

    def draw(share: slice) -> list[torch.Tensor]:
        return list(drawn(small(), tensors, torch.Generator().manual_seed(3), share))

    whole, even, odd = draw(slice(None)), draw(slice(0, None, 2)), draw(slice(1, None, 2))
    for all_rows, one, other in zip(whole, even, odd, strict=True):
        assert torch.equal(all_rows[0::2], one) and torch.equal(all_rows[1::2], other)
    # what is blurred is what the network sees of the joints, nothing else
    torch.testing.assert_close(whole[2], GAIN * whole[1].cumsum(1), atol=1e-9, rtol=0)


def test_a_width_that_is_not_the_starts(tmp_path: Path) -> None:
    dataset(tmp_path, split="train", count=1)
    dataset(tmp_path, split="val", count=1)
    start = LearnedAdapter(network(8)).save(tmp_path / "start")
    config = replace(small(), start=start)
    with pytest.raises(ConfigError, match="hidden is 64, but .* has 8"):
        train_adapter([tmp_path], tmp_path / "out", config=config, progress=False)


def test_episodes_without_commands_are_refused(tmp_path: Path) -> None:
    dataset(tmp_path, split="train", count=1, velocities=False)
    with pytest.raises(DataError, match="no joint positions and joint velocities at 15 Hz"):
        windows_of([tmp_path], "train")


def test_errors_are_in_millimetres_and_degrees() -> None:
    one = np.array([[0.5, 0, 0.3, np.pi, 0, 0.1]])
    other = one + [[0.003, 0.004, 0, 0, 0, np.radians(2.0)]]
    place, turn = flange_errors(one, other)
    assert place[0] == pytest.approx(5.0) and turn[0] == pytest.approx(2.0)
