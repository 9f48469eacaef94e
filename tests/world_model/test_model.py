"""The world model: shapes, independence of rollouts in a batch, save and load, geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldeval.errors import CheckpointError, ConfigError, MismatchError
from worldeval.robots import CameraSpec, RobotSpec
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig
from worldeval.world_model.backbone import Backbone, BackboneConfig, Still
from worldeval.world_model.conditioning import (
    WorkspaceFrame,
    geometry_maps,
    nearest_memory,
    warp_grids,
)
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import Context, WorldModel, WorldModelConfig

DOWN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # looks along -z


def robot(views: int = 2) -> RobotSpec:
    cameras = [
        CameraSpec(
            name="top", mount="fixed", fovy_rad=0.9, position_m=(0, 0.6, 0.8), rotation=DOWN
        ),
        CameraSpec(name="wrist", mount="hand", fovy_rad=0.9, position_m=(0, 0, 0.1), rotation=DOWN),
        CameraSpec(
            name="side", mount="fixed", fovy_rad=0.9, position_m=(0.1, 0.6, 0.8), rotation=DOWN
        ),
    ]
    return RobotSpec(
        name="test",
        action_space="delta",
        action_names=("dx", "dy", "dz", "grip"),
        action_low=(-1,) * 4,
        action_high=(1,) * 4,
        pose_names=("x", "y", "z", "grip"),
        pose_low=(-0.5, 0.2, 0.0, -1),
        pose_high=(0.5, 1.0, 0.4, 1),
        action_scale_m=0.01,
        control_hz=30,
        steps_per_frame=3,
        frames_per_chunk=4,
        image_size=(16, 16),
        cameras=tuple(cameras[:views]),
        workspace_m=(0.0, 0.65, 0.35, 0.0),
    )


def model(views: int = 2) -> WorldModel:
    torch.manual_seed(0)
    config = WorldModelConfig.for_robot(
        robot(views),
        latent_channels=3,
        latent_size=(2, 2),
        backbone=BackboneConfig(widths=(16, 32), blocks=1, token_width=16),
    )
    made = WorldModel(config)
    for parameter in made.parameters():  # zero-initialised layers would hide mistakes
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return made.eval()


def autoencoder() -> Autoencoder:
    torch.manual_seed(1)
    return Autoencoder(
        AutoencoderConfig(widths=(8, 8, 8), latent_channels=3, image_size=(16, 16))
    ).eval()


def dream(rows: list[int], chunks: int = 3) -> np.ndarray:
    """Frames of the rollouts ``rows`` of four, imagined together."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 2, 16, 16, 3), dtype=np.uint8)
    poses = np.cumsum(rng.normal(0, 0.02, (4, 1 + 4 * chunks, 4)), axis=1).astype(np.float32)
    poses += np.array([0, 0.6, 0.2, 0], np.float32)
    frame_rollouts = FrameRollouts(model(), autoencoder())
    frame_rollouts.reset(frames[rows], poses[rows, 0], [100 + r for r in rows])
    seen = [
        frame_rollouts.step(poses[rows, 1 + 4 * k : 5 + 4 * k], range(len(rows)))[0]
        for k in range(chunks)
    ]
    return np.concatenate(seen, axis=1)


def test_a_batch_of_four_equals_four_batches_of_one():
    together = dream([0, 1, 2, 3])
    alone = np.concatenate([dream([r]) for r in range(4)])
    assert together.shape == (4, 12, 2, 16, 16, 3)
    assert np.abs(together.astype(int) - alone).max() <= 1  # rounding to uint8
    assert np.abs(together[0].astype(int) - together[1]).max() > 10


def test_parts_of_a_batch_side_by_side_are_equal():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = dream([0, 1, 2, 3], chunks=2)
        torch.set_num_threads(2)
        together = dream([0, 1, 2, 3], chunks=2)
        assert np.abs(together.astype(int) - alone).max() <= 1  # rounding to uint8
    finally:
        torch.set_num_threads(threads)


def test_rows_may_leave_the_batch():
    frame_rollouts = FrameRollouts(model(), autoencoder())
    frames = np.zeros((3, 2, 16, 16, 3), np.uint8)
    poses = np.full((3, 5, 4), 0.3, np.float32)
    frame_rollouts.reset(frames, poses[:, 0], [1, 2, 3])
    frame_rollouts.step(poses[:, 1:], [0, 1, 2])
    later, info = frame_rollouts.step(poses[[0, 2], 1:], [0, 2])
    assert later.shape[0] == 2 and info[0]["retrieved"][0] == 0 and info[0]["nfe"] == 3


@pytest.mark.parametrize("views", [1, 2, 3])
def test_any_number_of_views(views):
    torch.manual_seed(0)
    net = Backbone(BackboneConfig(widths=(16, 32), blocks=1, token_width=16), 5, 3)
    out = net(torch.randn(2, 4, views, 5, 4, 4), torch.randn(2, 4, 16))
    assert out.shape == (2, 4, views, 3, 4, 4)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("still_frames", [0, 1, 2, 4])
def test_frames_that_nobody_asks_for_and_still_ones_are_left_out_without_a_trace(
    blocks, still_frames
):
    """The last three of seven frames: whatever is not computed, they stay the same."""
    torch.manual_seed(0)
    net = Backbone(BackboneConfig(widths=(16, 32), blocks=blocks, token_width=16), 5, 3).eval()
    for parameter in net.parameters():  # zero-initialised layers would hide mistakes
        parameter.data += 0.05 * torch.randn(parameter.shape)
    clip, token = torch.randn(2, 7, 2, 5, 4, 4), torch.randn(2, 7, 16)
    still = Still(still_frames)
    with torch.inference_mode():
        for step in range(3):
            clip[:, still_frames:] += torch.randn(2, 7 - still_frames, 2, 5, 4, 4)
            token[:, still_frames:] += 1
            whole = net(clip, token)[:, -3:]
            assert torch.allclose(net(clip, token, 3), whole, atol=1e-6)
            assert still.known == (step > 0)
            shown = clip[:, still_frames:] if still.known else clip
            assert torch.allclose(net(shown, token, 3, still), whole, atol=1e-6)
    assert float(whole.std()) > 0.1


def test_save_and_load_give_the_same_function(tmp_path):
    first = model()
    first.save(tmp_path / "wm")
    second = WorldModel.load(tmp_path / "wm")
    assert second.config == first.config
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(CheckpointError, match="autoencoder"):
        Autoencoder.load(tmp_path / "wm")


def test_wrong_views_and_poses_are_named():
    frame_rollouts = FrameRollouts(model(), autoencoder())
    with pytest.raises(MismatchError, match="3 views"):
        frame_rollouts.reset(
            np.zeros((1, 3, 16, 16, 3), np.uint8), np.zeros((1, 4), np.float32), [0]
        )
    frame_rollouts.reset(np.zeros((1, 2, 16, 16, 3), np.uint8), np.zeros((1, 4), np.float32), [0])
    with pytest.raises(MismatchError, match="4 frames"):
        frame_rollouts.step(np.zeros((1, 5, 4), np.float32), [0])


def test_geometry_says_where_the_hand_and_the_table_are():
    poses = np.array([[0.0, 0.6, 0.0, 1.0], [0.1, 0.6, 0.0, 1.0]], np.float32)
    maps = geometry_maps(poses, robot().cameras, (9, 9), WorkspaceFrame.of(robot()))
    top = maps[0, 0]  # straight above (0, 0.6): the hand is in the middle
    assert np.unravel_index(top[0].argmax(), (9, 9)) == (4, 4)
    assert np.allclose(top[0], top[2]), "on the table, the hand is its own shadow"
    assert maps[1, 0, 0].argmax() % 9 > 4, "moving along +x moves right in this view"
    # the table point under the middle pixel: fixed for the fixed view, moving with the wrist
    assert maps[0, 0, 3, 4, 4] == pytest.approx(maps[1, 0, 3, 4, 4])
    assert maps[1, 1, 3, 4, 4] - maps[0, 1, 3, 4, 4] == pytest.approx(0.1 / 0.35, abs=1e-4)


def test_the_wrist_finds_what_it_saw_where_it_now_must_be():
    """Moving along +x by dx shifts what lies at depth d by f dx / d, and fixed views by nothing."""
    before = np.array([[0.0, 0.6, 0.2, 0.0]], np.float32)
    after = np.array([[[0.05, 0.6, 0.2, 0.0]]], np.float32)
    grids = warp_grids(after, before, robot().cameras, (5, 5), 0.3)
    still = warp_grids(before[:, None], before, robot().cameras, (5, 5), 0.3)
    assert np.allclose(grids[0, 0, 0], still[0, 0, 0])
    assert np.allclose(still[0, 0, 1, 2, 2], 0, atol=1e-6), "the middle of the image is (0, 0)"
    shift = (grids - still)[0, 0, 1]
    assert np.allclose(shift[..., 0], 0.05 / 0.3 / np.tan(0.45), atol=1e-5)
    assert np.allclose(shift[..., 1], 0, atol=1e-6)


def test_a_model_with_more_inputs_starts_from_a_trained_one():
    first = model()
    grown = WorldModel(replace(first.config, warp_depths_m=(0.3,)))
    grown.adopt(first)
    rng = np.random.default_rng(0)
    context = Context(
        current=torch.randn(2, 2, 3, 2, 2),
        memory=torch.randn(2, 3, 2, 3, 2, 2),
        valid=torch.ones(2, 3, dtype=torch.bool),
        poses=rng.uniform(0.1, 0.4, (2, 8, 4)).astype(np.float32),
        level=torch.full((2,), 0.1),
    )
    noise = torch.randn(2, 4, 2, 3, 2, 2)
    sigma = torch.tensor([0.3, 2.0])
    answers = [m.eval().denoise(m.prepare(context), noise, sigma) for m in (first, grown)]
    assert torch.allclose(*answers, atol=1e-5)
    with pytest.raises(ConfigError, match="3 input channels more"):
        first.adopt(grown)


def test_each_frame_is_shown_the_nearest_memory_as_its_camera_must_see_it():
    """Two remembered frames at x = -0.2 and 0.2; the hand goes to 0.2 and finds the second one."""
    config = replace(
        model().config, memory_slots=2, latent_size=(4, 4), warp_depths_m=(0.3,), warp_memory=True
    )
    made = WorldModel(config)
    x = np.array([[-0.2, 0.2, 0.0, 0.1, 0.2, 0.2, -0.15]], np.float32)  # 2 + 1 + 4 frames
    poses = np.stack([x, np.full_like(x, 0.6), np.full_like(x, 0.2), np.ones_like(x)], -1)
    torch.manual_seed(0)
    memory = torch.randn(1, 2, 2, 3, 4, 4)
    context = Context(
        current=torch.randn(1, 2, 3, 4, 4),
        memory=memory,
        valid=torch.ones(1, 2, dtype=torch.bool),
        poses=poses,
        level=torch.zeros(1),
    )
    assert nearest_memory(poses, 2, np.ones((1, 2), bool)).tolist() == [[0, 1, 0, 1, 1, 1, 0]]
    shown = made.prepare(context)["fixed"][:, :, :, -3:]  # (B, T, V, C, h, w)
    for frame, slot in ((4, 1), (5, 1)):  # the very same pose: the picture itself, in every view
        torch.testing.assert_close(shown[0, frame], memory[0, slot], atol=1e-5, rtol=0)
    torch.testing.assert_close(shown[0, 6, 0], memory[0, 0, 0])  # a fixed camera sees it unmoved
    assert not torch.allclose(shown[0, 6, 1], memory[0, 0, 1])  # one on the hand sees it shifted
    nothing = replace(context, valid=torch.zeros(1, 2, dtype=torch.bool))
    assert made.prepare(nothing)["fixed"][:, :, :, -3:].abs().max() == 0
