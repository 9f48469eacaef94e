"""Inverse dynamics: motion is read back from frames in which it can be seen."""

import numpy as np
import pytest
import torch

from tests.imagination.trust_world import CONFIG, draw, recorded, training, walk
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, DataError
from worldeval.imagination.trust.inverse_dynamics import (
    InverseDynamics,
    InverseDynamicsConfig,
    pose_difference,
)
from worldeval.imagination.trust.inverse_dynamics_training import train_inverse_dynamics


@pytest.fixture
def network(trust) -> InverseDynamics:
    return trust.network


def read(network: InverseDynamics, seed: int = 100):
    _, poses = walk(seed)
    after = np.arange(1, len(poses))
    before = np.maximum(after - 4, 0)
    video = torch.from_numpy(to_model(draw(poses)))
    answers = network.read(video, before, after).numpy()
    return answers, network.targets(poses[before], poses[after])


def test_motion_that_shifts_pixels_is_read_back_by_each_view_and_together(network) -> None:
    wrong, size = [], []
    for seed in range(100, 110):
        answers, wanted = read(network, seed)
        wrong.append(np.abs(answers - wanted[:, None])[..., :2])  # x and y
        size.append(np.abs(wanted[..., :2]))
    error = np.concatenate(wrong).mean((0, 3))  # (R, 2)
    assert error.shape == (3, 2)
    still = np.concatenate(size).mean((0, 2))  # the error of reading no motion at all
    assert (error[:, 0] < 0.4 * still[0]).all() and (error[:, 1] < 0.6 * still[1]).all(), error


def test_a_batch_does_not_change_a_reading(network) -> None:
    _, poses = walk(3)
    video = torch.from_numpy(to_model(draw(poses)))
    before, after = np.arange(0, 10), np.arange(1, 11)
    whole = network.read(video, before, after, batch=64)
    parts = network.read(video, before, after, batch=3)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert network.read(video, before[:0], after[:0]).shape == (0, 3, 2, 4)


def test_a_view_that_sees_nothing_harms_its_own_reading_most(network) -> None:
    _, poses = walk(5)
    frames = draw(poses)
    after = np.arange(4, len(poses))
    wanted = network.targets(poses[after - 4], poses[after])
    blind = frames.copy()
    blind[:, 1] = 40
    errors = [
        np.abs(network.read(torch.from_numpy(to_model(f)), after - 4, after).numpy()
               - wanted[:, None]).mean((0, 2, 3))
        for f in (frames, blind)
    ]  # fmt: skip
    assert errors[1][0] == pytest.approx(errors[0][0]), "the other view is read by itself"
    assert errors[1][1] > 2 * errors[0][1]


def test_targets_are_in_units_of_the_spread() -> None:
    network = InverseDynamics(CONFIG)
    network.pose_centre.copy_(torch.tensor([0.1, 0.0, 0.0, 0.0]))
    network.pose_spread.copy_(torch.tensor([0.2, 1.0, 1.0, 1.0]))
    network.change_spread.copy_(torch.tensor([0.05, 1.0, 1.0, 1.0]))
    wanted = network.targets(np.array([[0.2, 0, 0, 0]]), np.array([[0.3, 0, 0, 0]]))
    assert wanted[0, :, 0] == pytest.approx([1.0, 2.0])


def test_angles_differ_by_the_shortest_turn() -> None:
    names = ("x_m", "yaw_rad", "gripper")
    apart = pose_difference(np.array([4.0, 3.1, 1.0]), np.array([1.0, -3.1, 0.0]), names)
    assert apart == pytest.approx([3.0, 6.2 - 2 * np.pi, 1.0])


def test_it_can_be_told_to_go_on(tmp_path) -> None:
    stores = [recorded(tmp_path / "store", range(4))]
    settings = {"training": training(4), "stores": stores, "progress": False}
    whole = train_inverse_dynamics(CONFIG, tmp_path / "whole", **settings)
    again = train_inverse_dynamics(CONFIG, tmp_path / "whole", **settings)  # nothing left to do
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"views": ()}, r"views is \(\)"),
        ({"views": ("together",)}, "other than 'together'"),
        ({"pose_names": ()}, "pose_names"),
        ({"image_size": (16, 20)}, r"image_size is \(16, 20\)"),
        ({"widths": (16, 20, 16)}, "multiples of 8"),
        ({"most_frames": 0}, "most_frames is 0"),
    ],
)
def test_settings_that_cannot_be(wrong, said) -> None:
    given = {"robot": "r", "views": ("top",), "pose_names": ("x",), **wrong}
    with pytest.raises(ConfigError, match=said):
        InverseDynamicsConfig(**given)


def test_without_motion_there_is_nothing_to_learn(tmp_path) -> None:
    empty = recorded(tmp_path / "store", range(0))
    with pytest.raises(DataError, match="no motion to read"):
        train_inverse_dynamics(
            CONFIG, tmp_path / "out", training=training(1), stores=[empty], progress=False
        )
