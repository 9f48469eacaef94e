"""Poses of a hand that turns: no jump at pi, and the motion as the hand sees it."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from worldeval.data.normalize import BoundNormalizer
from worldeval.errors import ConfigError
from worldeval.motion.panda import panda
from worldeval.world_model.backbone import Backbone, BackboneConfig
from worldeval.world_model.conditioning import PER_ROTATION_RAD, PER_TRANSLATION_M, turned_poses
from worldeval.world_model.model import WorldModel, WorldModelConfig

ANGLES = (3, 4, 5)
BOUNDS = BoundNormalizer(low=(-1,) * 3 + (-3.2,) * 3 + (0,), high=(1,) * 3 + (3.2,) * 3 + (1,))


def pose(x=0.0, y=0.0, z=0.0, roll=0.0, pitch=0.0, yaw=0.0, gripper=0.0) -> list[float]:
    return [x, y, z, roll, pitch, yaw, gripper]


def both(*poses: list[float]) -> tuple[np.ndarray, np.ndarray]:
    own, relative = turned_poses(np.array([poses], np.float32), 0, ANGLES, BOUNDS)
    return own[0], relative[0]


def test_a_small_turn_across_pi_is_a_small_change():
    own, relative = both(pose(roll=np.pi - 0.05), pose(roll=-np.pi + 0.05))
    assert np.abs(own[1] - own[0]).max() < 0.11
    assert np.allclose(relative[1, -3:], [0.1 * PER_ROTATION_RAD, 0, 0], atol=1e-5)


def test_the_way_is_seen_from_the_hand_of_now():
    """A hand turned by 90 degrees about the vertical sees a way along the base's y as its x."""
    _, relative = both(pose(yaw=np.pi / 2), pose(y=0.1, z=-0.2, yaw=np.pi / 2))
    assert np.allclose(relative[1, 4:7], np.array([0.1, 0, -0.2]) * PER_TRANSLATION_M, atol=1e-5)
    assert np.allclose(relative[1, 7:], 0, atol=1e-5)
    assert np.allclose(relative[0], 0)


def test_what_leaves_the_bounds_still_moves():
    own, relative = both(pose(x=1.5), pose(x=1.6))
    assert np.allclose(own[:, 0], 1)
    assert np.isclose(relative[1, 0], 4 * 0.1 / 2)


def test_a_robot_with_angles_gets_a_token_for_them():
    config = WorldModelConfig.for_robot(
        panda("absolute_pose"),
        latent_channels=4,
        latent_size=(24, 40),
        geometry=False,
        angles=ANGLES,
        backbone=BackboneConfig(widths=(8, 8), blocks=1, token_width=8, heads=1, patch=4),
    )
    model = WorldModel(config)
    assert model.token.pose[0].in_features == 2 * (7 + 3)
    assert WorldModelConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(ConfigError, match=r"angles are \(2, 3, 4\)"):
        WorldModelConfig.for_robot(
            panda(), latent_channels=4, latent_size=(24, 40), angles=(2, 3, 4)
        )
    with pytest.raises(ConfigError, match=r"trust is \(0\.5,\)"):
        WorldModelConfig.for_robot(panda(), latent_channels=4, latent_size=(24, 40), trust=(0.5,))


def test_patches_go_in_and_come_out_at_their_places():
    """With all blocks silent, what the head says of a patch lands in that patch alone."""
    torch.manual_seed(0)
    backbone = Backbone(
        BackboneConfig(widths=(8, 8), blocks=1, token_width=8, heads=1, patch=2), 3, 1
    )
    torch.nn.init.normal_(backbone.head.weight)
    latents = torch.randn(1, 2, 1, 3, 8, 12)
    token = torch.zeros(1, 2, 8)
    with torch.no_grad():
        before = backbone(latents, token)
        assert before.shape == (1, 2, 1, 1, 8, 12)
        backbone.head.bias += torch.tensor([0.0, 0.0, 0.0, 5.0])
        after = backbone(latents, token) - before
    assert torch.allclose(after[..., 1::2, 1::2], torch.tensor(5.0), atol=1e-4)
    assert torch.allclose(after[..., 0::2, :], torch.tensor(0.0), atol=1e-4)
    with pytest.raises(ConfigError, match=r"latents are \(6, 12\).*multiples of 4"):
        backbone(latents[..., :6, :], token)
