"""The decoder of given latents: what the start frame adds, what it refuses, and that it learns."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from worldeval.errors import CheckpointError, ConfigError, DataError, MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.few_recordings.decoder import LatentDecoder, LatentDecoderConfig, moved
from worldeval.world_model.few_recordings.decoder_training import (
    DecoderTrainConfig,
    LatentVideos,
    decoder_quality,
    train_decoder,
)

SMALL = LatentDecoderConfig(
    widths=(16, 8, 8), gate_width=8, latent_channels=3, latent_size=(2, 4), latents="averages"
)


@pytest.fixture
def decoder() -> LatentDecoder:
    torch.manual_seed(0)
    return LatentDecoder(SMALL).eval().requires_grad_(False)


def hold_gate(decoder: LatentDecoder, logit: float) -> None:
    last = decoder.gate[-2]
    last.weight.zero_()
    last.bias.fill_(logit)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (B 2, T 3, V 2, C, h, w), and start latents and pixels of the batch's rollouts."""
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, 2, 3, 2, 4, generator=g),
        torch.randn(2, 2, 3, 2, 4, generator=g),
        torch.rand(2, 2, 3, 16, 32, generator=g) * 2 - 1,
    )


def test_a_place_at_rest_is_the_start_frame_itself_where_the_gate_is_open(decoder):
    _, start, video = scene()
    hold_gate(decoder, 30.0)
    still = start[:, None].expand(2, 3, 2, 3, 2, 4)
    assert torch.allclose(
        decoder.decode_beside(still, start, video),
        video[:, None].expand(2, 3, -1, -1, -1, -1),
        atol=1e-5,
    )


def test_behind_a_shut_gate_it_is_the_decoder_alone(decoder):
    latents, start, video = scene()
    hold_gate(decoder, -40.0)
    assert torch.allclose(decoder.decode_beside(latents, start, video), decoder.decode(latents))


def test_rollouts_frames_and_views_do_not_mix(decoder):
    latents, start, video = scene()
    whole = decoder.decode_beside(latents, start, video)
    for b, t, v in ((0, 0, 0), (1, 2, 1), (0, 1, 1)):
        alone = decoder.decode_beside(
            latents[b : b + 1, t : t + 1, v : v + 1],
            start[b : b + 1, v : v + 1],
            video[b : b + 1, v : v + 1],
        )
        assert torch.allclose(whole[b, t, v], alone[0, 0, 0], atol=1e-5)


def test_start_latents_of_other_rollouts_and_frames_are_refused(decoder):
    latents, start, video = scene()
    with pytest.raises(MismatchError, match=r"start latents are \(1, 2, 3, 2, 4\)"):
        decoder.decode_beside(latents, start[:1], video)
    with pytest.raises(MismatchError, match="cannot be encoded by a decoder of 'averages' latents"):
        decoder.encode(video)


def test_what_was_saved_decodes_alike_and_is_no_autoencoder(decoder, tmp_path):
    latents, start, video = scene()
    decoder.save(tmp_path)
    again = LatentDecoder.load(tmp_path)
    assert again.config == SMALL
    assert torch.equal(
        again.decode_beside(latents, start, video), decoder.decode_beside(latents, start, video)
    )
    with pytest.raises(CheckpointError, match="latent-decoder"):
        Autoencoder.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "quoted"),
    [
        ({"widths": (12, 8, 8)}, "12"),
        ({"gate_width": 0}, "gate_width 0"),
        ({"latent_size": (0, 4)}, "0, 4"),
    ],
)
def test_impossible_sizes_are_named(settings, quoted):
    with pytest.raises(ConfigError, match=quoted):
        LatentDecoderConfig(**settings)


def averages(episodes: int = 3, frames: int = 6) -> LatentVideos:
    """Flat noise on a textured ground; its latents are the averages of 8x8 pixels."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 60, (1, 2, 16, 32, 3))
    coarse = rng.integers(40, 200, (episodes * frames, 2, 2, 4, 3))
    video = (ground + np.kron(coarse, np.ones((1, 1, 8, 8, 1)))).astype(np.uint8)
    pixels = torch.from_numpy(video).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    latents = F.avg_pool2d(pixels.flatten(0, 1), 8).unflatten(0, (-1, 2))
    return LatentVideos(
        frames=video, latents=latents.numpy(), first=np.arange(0, len(video) + 1, frames)
    )


def test_it_learns_to_decode_and_keeps_the_best(tmp_path):
    videos = averages()
    config = DecoderTrainConfig(
        model=SMALL,
        crop=(2, 2),
        loop=LoopConfig(
            steps=60,
            batch=16,
            learning_rate=1e-2,
            warmup=1,
            threads=1,
            ema=0.9,
            report_every=20,
            validate_every=20,
        ),
    )
    held_out = videos.episodes([2])
    torch.manual_seed(0)
    before = decoder_quality(LatentDecoder(SMALL), held_out, every=1)
    train_decoder(config, videos.episodes([0, 1]), held_out, tmp_path)
    after = decoder_quality(LatentDecoder.load(tmp_path), held_out, every=1)
    assert after["psnr_alone"] > before["psnr_alone"] + 3
    rows = [
        json.loads(x) for x in (tmp_path / "training" / "metrics.jsonl").read_text().splitlines()
    ]
    measured = [row["psnr_beside"] for row in rows if "psnr_beside" in row]
    card = json.loads((tmp_path / "config.json").read_text())["card"]
    assert card["held_out"]["psnr_beside"] == max(measured)


def test_frames_without_latents_and_latents_of_another_size_are_refused():
    videos = averages()
    with pytest.raises(DataError, match="18 frames, 17 latents"):
        LatentVideos(frames=videos.frames, latents=videos.latents[1:], first=videos.first)
    with pytest.raises(DataError, match=r"frames are \(16, 32\).*\(16, 24\)"):
        LatentVideos(frames=videos.frames, latents=videos.latents[..., :3], first=videos.first)


def test_the_start_of_a_frame_is_its_own_episode_s():
    videos = averages(episodes=3, frames=6).episodes([2, 0])
    assert videos.start_of(np.array([0, 5, 6, 11])).tolist() == [0, 0, 6, 6]


def test_a_change_below_rest_is_none_and_from_twice_that_on_all_is_shown():
    """Views have their own limits: the first shows the start frame, the second what is decoded."""
    torch.manual_seed(0)
    unsure = LatentDecoder(replace(SMALL, rest=(0.2, 0.05))).eval().requires_grad_(False)
    _, start, video = scene()
    latents = start[:, None] + 0.1  # a change of root mean square 0.1 at every place
    sure = LatentDecoder(SMALL).eval().requires_grad_(False)
    sure.load_state_dict(unsure.state_dict())
    shown = unsure.decode_beside(latents, start, video)
    assert torch.equal(shown[:, 0, 0], video[:, 0])
    assert torch.allclose(
        shown[:, 0, 1], sure.decode_beside(latents, start, video)[:, 0, 1], atol=1e-5
    )
    half = moved(torch.full((1, 1, 1, 3, 2, 4), 0.3), (0.2,))
    assert torch.allclose(half, torch.full((1, 1, 1, 1, 16, 32), 0.5), atol=1e-5)
    with pytest.raises(MismatchError, match="2 views, rest is set for 1"):
        LatentDecoder(replace(SMALL, rest=(0.2,))).decode_beside(latents, start, video)
    with pytest.raises(ConfigError, match=r"rest is \(-1\.0,\)"):
        replace(SMALL, rest=(-1.0,))
