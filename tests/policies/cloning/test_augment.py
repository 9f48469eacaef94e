from __future__ import annotations

import numpy as np
import torch

from worldeval.policies.cloning.augment import blur, jitter, shift


def test_shift_moves_whole_images_and_repeats_edges() -> None:
    columns = np.arange(12, dtype=np.uint8)[None, :, None]
    rows = 12 * np.arange(8, dtype=np.uint8)[:, None, None]
    frames = np.broadcast_to(rows + columns, (40, 2, 8, 12, 3)).copy()
    moved = shift(frames, np.random.default_rng(0), 3)
    dx = moved[:, :, 4, 6, 0].astype(int) - frames[:, :, 4, 6, 0]
    down, right = np.divmod(dx + 12 * 3 + 3, 12)
    assert set(np.unique(down - 3)) == set(np.unique(right - 3)) == set(range(-3, 4))
    for b, v in np.ndindex(40, 2):
        y = np.clip(np.arange(8) + down[b, v] - 3, 0, 7)
        x = np.clip(np.arange(12) + right[b, v] - 3, 0, 11)
        np.testing.assert_array_equal(moved[b, v], frames[b, v][np.ix_(y, x)])
    assert shift(frames, np.random.default_rng(0), 0) is frames


def test_jitter_is_affine_and_the_same_for_all_views() -> None:
    images = torch.linspace(-1, 1, 4 * 2 * 3 * 8 * 8).view(4, 2, 3, 8, 8)
    lit = jitter(images, np.random.default_rng(0), 0.2)
    gain = (lit[..., 1] - lit[..., 0]) / (images[..., 1] - images[..., 0])  # (B, V, C, H)
    torch.testing.assert_close(gain, gain[:, :1, :, :1].expand_as(gain), rtol=1e-2, atol=1e-2)
    assert 0.6 < gain.min() < 0.95 < 1.05 < gain.max() < 1.45
    assert jitter(images, np.random.default_rng(0), 0.0) is images


def test_blur_keeps_flat_images_and_the_mean_and_softens_a_share() -> None:
    flat = torch.full((6, 2, 3, 8, 8), 0.25)
    torch.testing.assert_close(blur(flat, np.random.default_rng(0), 1.0), flat)
    noise = torch.randn(400, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    soft = blur(noise, np.random.default_rng(0), 0.25)
    changed = (soft != noise).flatten(1).any(1)
    assert 0.17 < changed.float().mean() < 0.33
    assert soft[changed].std() < 0.8 * noise[changed].std()
    torch.testing.assert_close(soft[~changed], noise[~changed])
