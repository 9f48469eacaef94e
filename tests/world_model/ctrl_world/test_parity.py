"""Parity with the published code: every row of the given case (its README names them).

The case is read from WORLDEVAL_PARITY_CASE and the release from WORLDEVAL_PARITY_RELEASE; without
them both are ``shared/parity/case_a`` beside this checkout. Sizes, counts and sampler settings are
all read from the case.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldeval.motion.panda import forward, pose_from_matrix
from worldeval.policies.joint_adapter import LearnedAdapter
from worldeval.world_model.ctrl_world.autoencoder import SvdAutoencoder
from worldeval.world_model.ctrl_world.backbone import EXACT, PUBLISHED, run_unet
from worldeval.world_model.ctrl_world.config import CtrlWorldConfig, GuidanceConfig
from worldeval.world_model.ctrl_world.importing import import_ctrl_world
from worldeval.world_model.ctrl_world.model import CtrlWorld, LossDraws, split_views, stack_views
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.memory import PublishedOffsets
from worldeval.world_model.model import Context

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "parity" / "case_a"
CASE = Path(os.environ.get("WORLDEVAL_PARITY_CASE", BESIDE))
RELEASE = Path(
    os.environ.get(
        "WORLDEVAL_PARITY_RELEASE", CASE if (CASE / "checkpoint.pt").is_file() else BESIDE
    )
)
ADAPTER = "action_adapter.pth"
TOLERANCE = 1e-5
REPLAY_TOLERANCE = 1e-4

pytestmark = [
    pytest.mark.skipif(
        not (CASE / "expected.safetensors").is_file(),
        reason=f"no parity case at {CASE} (set WORLDEVAL_PARITY_CASE)",
    ),
    pytest.mark.skipif(
        not (RELEASE / "checkpoint.pt").is_file(),
        reason=f"no release at {RELEASE} (set WORLDEVAL_PARITY_RELEASE)",
    ),
]


def error(found: torch.Tensor | np.ndarray, expected: torch.Tensor) -> float:
    """Norm of the difference over norm."""
    found, expected = torch.as_tensor(found).double(), expected.double()
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def case() -> dict:
    return json.loads((CASE / "case.json").read_text())


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(CASE / "expected.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The release, imported."""
    out = tmp_path_factory.mktemp("parity") / "model"
    return import_ctrl_world(RELEASE / "svd", RELEASE / "clip", RELEASE / "checkpoint.pt", out)


@pytest.fixture(scope="module")
def model(folder) -> CtrlWorld:
    return CtrlWorld.load(folder)


@pytest.fixture(scope="module")
def autoencoder(folder) -> SvdAutoencoder:
    return SvdAutoencoder.load(folder)


@pytest.fixture(params=["alone", "together"])
def rows(request, expected) -> list[slice]:
    """Each row of the batch alone, and the whole batch at once."""
    count = len(expected["action"])
    if request.param == "together":
        return [slice(0, count)]
    return [slice(i, i + 1) for i in range(count)]


def fitted(config: CtrlWorldConfig, latents: torch.Tensor, **settings) -> CtrlWorldConfig:
    """The configuration for stacked latents (..., C, H, W), with poses that are normalised."""
    height, width = latents.shape[-2:]
    views = config.views if height % len(config.views) == 0 else config.views[:1]
    bounds = {"pose_low": (-1.0,) * 7, "pose_high": (1.0,) * 7} | settings
    return replace(config, views=views, latent_size=(height // len(views), width), **bounds)


def context(config, current, memory, poses, texts) -> Context:
    """Stacked latents current (B, C, H, W) and memory (B, M, C, H, W) as a context."""
    return Context(
        current=split_views(current, len(config.views)),
        memory=split_views(memory, len(config.views)),
        valid=torch.ones(memory.shape[:2], dtype=torch.bool),
        poses=poses.numpy(),
        level=torch.zeros(len(current)),
        instructions=texts,
    )


def test_action_tokens(model, case, expected, rows) -> None:
    for r in rows:
        text = model.text_encoder.embed(case["texts"][r])
        tokens = model.action_encoder(expected["action"][r], text)
        assert error(tokens, expected["action_hidden"][r]) < TOLERANCE
        without = model.action_encoder(expected["action"][r])
        assert error(without, expected["action_hidden_no_text"][r]) < TOLERANCE


@pytest.mark.parametrize("execution", [PUBLISHED, EXACT], ids=["published", "exact"])
def test_backbone(model, expected, rows, execution) -> None:
    for r in rows:
        inputs = ("unet_in", "unet_c_noise", "action_hidden", "unet_time_ids")
        with torch.no_grad():
            out = run_unet(model.unet, *(expected[name][r] for name in inputs), execution)
        assert error(out, expected["unet_out"][r]) < TOLERANCE


def test_autoencoder(autoencoder, expected) -> None:
    """The images are one video of one view, so it is decoded alike with views apart."""
    images = expected["vae_image"]
    one = torch.cat([autoencoder.encode(image[None]) for image in images])
    many = autoencoder.encode(images)
    for mode in (one, many):
        assert error(mode, expected["vae_mode"]) < TOLERANCE
    autoencoder.config = autoencoder.config.with_preset("improved")
    video = expected["vae_mode"][None, :, None]  # (B, T, V, C, h, w)
    assert error(autoencoder.decode(video)[0, :, 0], expected["vae_decoded"]) < TOLERANCE
    several = autoencoder.decode(video.expand(2, -1, 3, -1, -1, -1))
    for decoded in several.transpose(1, 2).flatten(0, 1):
        assert error(decoded, expected["vae_decoded"]) < TOLERANCE


def test_sampler(model, case, expected, rows) -> None:
    base = CtrlWorldConfig.published(unet={}, vae={}, text_encoder={})
    model.config = fitted(replace(base, unet=model.config.unet), expected["current"])
    for settings in case["sampled"]:
        steps, high = settings["steps"], settings["guidance"]
        wanted = expected[f"sampled_steps{steps}_g{high:g}"]
        for r in rows:
            found = model.sample_clip(
                context(
                    model.config,
                    expected["current"][r],
                    expected["history"][r],
                    expected["action"][r],
                    case["texts"][r],
                ),
                split_views(expected["noise"][r], len(model.config.views)),
                replace(base.sampler, steps=steps),
                GuidanceConfig(low=1.0, high=high),
            )
            assert error(stack_views(found), wanted[r]) < TOLERANCE


def test_training_loss(model, case, expected, rows) -> None:
    """Clips alone have each a loss, whose mean is that of the batch."""
    latents = expected["train_latents"]
    model.config = fitted(model.config, latents)
    m, v = model.config.memory_slots, len(model.config.views)
    draw = {n.removeprefix("train_draw_"): t for n, t in expected.items() if "train_draw" in n}
    draws = LossDraws(
        current=draw["sigma_current"].flatten(),
        keep=draw["keep"].flatten(),
        sigma=draw["sigma"].flatten(),
        history=draw["sigma_history"].flatten(1),
        noise=split_views(draw["noise"][:, m:], v),
        current_noise=split_views(draw["noise_current"], v),
        history_noise=split_views(draw["noise_history"], v),
    )
    losses, views = [], []
    for r in rows:
        given = context(
            model.config, latents[r, m], latents[r, :m], expected["action"][r], case["texts"][r]
        )
        with torch.no_grad():
            loss, per_view = model.clip_loss(
                given, split_views(latents[r, m + 1 :], v), draws.rows(r)
            )
        losses.append(loss)
        views.append(per_view.mean())
    assert error(torch.stack(losses).mean(), expected["train_loss"]) < TOLERANCE
    assert error(torch.stack(views).mean(), expected["train_loss"]) < TOLERANCE


class KnownStart:
    """An autoencoder for a start whose latents are known, and whose frames nobody looks at."""

    lead_frames = 0
    beside_start = False

    def encode(self, video):
        raise AssertionError("the start's latents are given")

    def decode(self, latents):
        return torch.zeros(*latents.shape[:3], 3, 8, 8)

    def to(self, device):
        return self


@pytest.mark.parametrize("batch", [1, 2])
def test_autoregressive_replay(model, case, expected, monkeypatch, batch) -> None:
    """Through the frame rollouts and their memory, as ``worldeval replay`` runs it."""
    wanted = expected["replay_latents"]  # (interactions, F+1, C, H, W)
    first, poses = expected["replay_first"], expected["replay_poses"].numpy()
    low, high = (tuple(expected[f"pose_p{p}"].tolist()) for p in ("01", "99"))
    steps, weight = case["replay_steps"], case["replay_guidance"]
    model.config = replace(
        fitted(model.config, first, pose_low=low, pose_high=high),
        sampler=replace(model.config.sampler, steps=steps),
        guidance=GuidanceConfig(low=1.0, high=weight),
    )
    future, v = model.config.future, len(model.config.views)
    frame_rollouts = FrameRollouts(
        model, KnownStart(), memory=PublishedOffsets(offsets=tuple(case["history_offsets"]))
    )
    frame_rollouts.reset(
        np.zeros((batch, v, 8, 8, 3), np.uint8),
        np.repeat(poses[:1], batch, axis=0),
        seeds=range(batch),
        instructions=[case["replay_text"]] * batch,
        latents=split_views(first, v).repeat(batch, 1, 1, 1, 1).numpy(),
    )
    sampled = []
    sample_clip = CtrlWorld.sample_clip

    def remembered(self, *args):
        sampled.append(sample_clip(self, *args))
        return sampled[-1]

    monkeypatch.setattr(CtrlWorld, "sample_clip", remembered)
    for i, latents in enumerate(wanted):
        noise = split_views(expected[f"replay_noise_{i}"], v).repeat(batch, *[1] * 5)
        monkeypatch.setattr(CtrlWorld, "unit_noise", lambda self, generators, n=noise: n)
        ahead = poses[future * i + 1 : future * (i + 1) + 1]
        frame_rollouts.step(np.repeat(ahead[None], batch, axis=0), range(batch))
        for row in stack_views(sampled[-1]):
            assert error(row, latents) < REPLAY_TOLERANCE


def test_panda_kinematics(expected) -> None:
    joints = expected["fk_joints"].numpy()
    for found in (forward(joints), np.stack([forward(row) for row in joints])):
        assert error(found, expected["fk_matrix"]) < TOLERANCE
        assert error(pose_from_matrix(found), expected["fk_pose"]) < TOLERANCE


def test_joint_velocity_adapter(expected) -> None:
    places = [folder / ADAPTER for folder in (CASE, RELEASE, CASE.parent, RELEASE.parent)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        pytest.skip(f"no {ADAPTER} in or beside {CASE} or {RELEASE}")
    adapter = LearnedAdapter.load(path)
    joints, velocity = expected["fk_joints"][:1].numpy(), expected["adapter_velocity"][None].numpy()
    for batch in (1, 3):
        found = adapter.joints(joints.repeat(batch, axis=0), velocity.repeat(batch, axis=0))
        for row in found:
            assert error(row, expected["adapter_joints"]) < TOLERANCE
