"""Replays in latents: they follow the poses, start from the truth, and measure what they should."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from worldeval.errors import DataError
from worldeval.world_model.clips import FrameTable
from worldeval.world_model.few_recordings.own_replays import (
    measure_trust,
    own_replays,
    replay_gain,
    replay_latents,
)
from worldeval.world_model.model import Context, WorldModelConfig

from ..test_model import robot

SHAPE = (2, 3, 2, 2)  # V C h w


@dataclass
class Counting:
    """Imagines frames whose latents go on counting from the current one, ``pace`` a frame."""

    config: WorldModelConfig
    pace: float

    def parameters(self):
        yield torch.zeros(1)

    def imagine(self, context: Context, generators, sampler=None) -> torch.Tensor:
        steps = torch.arange(1, 1 + self.config.future, dtype=torch.float32)
        change = self.pace * steps[None, :, None, None, None, None]
        if self.config.trust:
            change = change * torch.tensor(self.config.trust)[:, None, None, None]
        return context.current[:, None] + change


def counting(pace: float) -> Counting:
    config = WorldModelConfig.for_robot(
        robot(2), latent_channels=3, latent_size=(2, 2), conditioning_noise=0.0, memory="strided"
    )
    return Counting(config, pace)


def table(*lengths: int) -> tuple[FrameTable, np.ndarray]:
    """Episodes whose latents count frames: 100 in the first frame of the second, and so on."""
    counted = np.concatenate([100 * e + np.arange(n) for e, n in enumerate(lengths)])
    made = FrameTable(
        frames=np.empty((sum(lengths), 0), np.uint8),
        poses=np.zeros((sum(lengths), 4), np.float32),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        keys=[f"e{i}" for i in range(len(lengths))],
        start_ids=[f"e{i}" for i in range(len(lengths))],
    )
    latents = np.broadcast_to(counted[:, None, None, None, None], (len(counted), *SHAPE))
    return made, latents.astype(np.float16)


def test_a_replay_goes_on_from_its_own_frames():
    episodes, latents = table(13, 9)
    starts = np.array([[0, 2], [1, 0]])
    replays = replay_latents(counting(pace=2), episodes, latents, starts, chunks=2)
    assert replays.shape == (2, 9, *SHAPE)
    assert np.allclose(replays[0, :, 0, 0, 0, 0], 2 + 2 * np.arange(9))
    assert np.allclose(replays[1, :, 1, 2, 1, 1], 100 + 2 * np.arange(9))


def test_own_replays_set_out_from_true_frames_and_never_cross_an_episode_s_border():
    episodes, latents = table(21, 9)
    own = own_replays(counting(pace=3), episodes, latents, frames=8, seed=5)
    for e, length in enumerate((21, 9)):
        seen = own[e][:, 0, 0, 0, 0] - 100 * e
        assert len(seen) == length and seen[0] == 0
        true = seen == np.arange(length)
        ahead = np.diff(seen)
        assert (ahead[~true[1:]] == 3).all(), "imagined frames follow those before them"
        assert np.diff(np.flatnonzero(true)).max(initial=0) <= 8
    other = own_replays(counting(pace=3), episodes, latents, frames=8, seed=6)
    assert not np.array_equal(own[0], other[0]), "another seed sets out elsewhere"


def test_gain_is_nil_for_a_still_world_and_high_for_a_true_one():
    episodes, latents = table(13)
    assert np.allclose(replay_gain(counting(0), episodes, latents, chunks=2), 0)
    assert (replay_gain(counting(1), episodes, latents, chunks=2) > 20).all()
    assert (replay_gain(counting(-1), episodes, latents, chunks=2) < -5).all()


def test_a_model_that_goes_too_far_is_trusted_less():
    episodes, latents = table(40)
    fast = counting(pace=2.5)
    trust, row = measure_trust(fast, episodes, latents)
    assert trust == (0.4, 0.4) and fast.config.trust == ()
    assert row["gain_db"] > 20 and row["trust_top"] == 0.4
    fast.config = replace(fast.config, trust=trust)
    assert np.allclose(row["gain_db"], replay_gain(fast, episodes, latents).mean())


def test_episodes_too_short_to_be_replayed_are_named():
    episodes, latents = table(12)
    with pytest.raises(DataError, match="replay of 32 frames, the longest has 12"):
        measure_trust(counting(1), episodes, latents)


def test_views_that_differ_in_nothing_are_trusted_alike():
    """One view goes 1.25 times too far and one 2.5 times: together they are worth one trust."""
    episodes, latents = table(40)
    uneven = counting(pace=1.25)
    imagine = uneven.imagine
    factor = torch.tensor([1.0, 2.0])[:, None, None, None]
    uneven.imagine = lambda context, generators, sampler=None: (
        context.current[:, None]
        + factor * (imagine(context, generators) - context.current[:, None])
    )
    apart, best = measure_trust(uneven, episodes, latents)
    assert apart == (0.8, 0.4)
    together, row = measure_trust(uneven, episodes, latents, exchangeable=(0, 1))
    assert together[0] == together[1]
    assert row["gain_db"] < best["gain_db"]
