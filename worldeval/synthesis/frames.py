"""Where imagined frames look wrong: flicker, and collapse into blur.

Enters: the frames of a rollout. Leaves: two numbers per frame, and for many rollouts the share of
frames with artefacts. Fixed cameras see a scene change slowly and stay as sharp as they began, so
what is far from the other frames of the same pool is an artefact, whatever the policy did.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FAR = 10.0
"""Robust standard deviations beyond which a frame is an artefact."""
SHARPNESS_LEFT = 0.35
"""Share of the first imagined frame's sharpness below which a frame is one, whatever others do."""
LEAST_CHANGE = 4.0
"""Of 255: smaller changes between frames are never flicker."""


def changes(frames: np.ndarray) -> np.ndarray:
    """Frames (T+1, V, H, W, 3) uint8 -> (T,) largest mean change of a view since the frame before,
    of 255; ten times as much where it goes back with the next frame, which no motion does."""
    shown = frames.astype(np.float32)
    moving = np.abs(np.diff(shown, axis=0)).mean((2, 3, 4))
    if len(moving) > 1:
        over_two = np.abs(shown[2:] - shown[:-2]).mean((2, 3, 4))
        back = np.minimum(moving[:-1], moving[1:]) - over_two
        moving[:-1] += 9 * np.maximum(back, 0)
    return moving.max(1) if len(moving) else np.zeros(0, np.float32)


def sharpness(frames: np.ndarray) -> np.ndarray:
    """(T+1, V, H, W, 3) uint8 -> (T,) sharpness of each frame but the first, in shares of that of
    the first imagined one; the least over views. Sharpness is the mean square of the difference
    between neighbouring pixels. The first frame may be recorded, which no imagined one equals."""
    grey = frames[1:].astype(np.float32).mean(-1)
    across, down = np.diff(grey, axis=3), np.diff(grey, axis=2)
    sharp = (across**2).mean((2, 3)) + (down**2).mean((2, 3))
    return (sharp / np.maximum(sharp[:1], 1e-6)).min(1) if len(sharp) else np.zeros(0, np.float32)


def artefact_shares(
    moved: Mapping[str, np.ndarray], sharp: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Key -> share of its frames with artefacts. moved, sharp: ``changes`` and ``sharpness`` of
    every rollout of the pool."""
    pool = np.concatenate([*moved.values(), np.zeros(0)])
    middle = float(np.median(pool)) if len(pool) else 0.0
    spread = 1.4826 * float(np.median(np.abs(pool - middle))) if len(pool) else 0.0
    most = max(middle + FAR * spread, LEAST_CHANGE)
    shares = {}
    for key, jumps in moved.items():
        wrong = jumps > most
        wrong |= sharp[key] < SHARPNESS_LEFT
        shares[key] = float(wrong.mean()) if len(wrong) else 0.0
    return shares
