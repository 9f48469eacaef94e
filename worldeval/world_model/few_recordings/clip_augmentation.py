"""More clips from few recordings: other orders of their frames, views exchanged and moved.

In: the length of an episode, a moment in it, the latents (T, V, C, h, w) and poses (T, P) of a
clip. Out: which frames a clip has, and both of them changed. All randomness comes from a generator
that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What else a recording vouches for, where there are few of them."""

    backward: float = 0.0
    """Share of clips that run backwards: an arm's path, reversed, is a path of an arm."""
    fast: float = 0.0
    """Share of clips of every other frame, where the episode is long enough."""
    exchangeable: tuple[int, ...] = ()
    """Views whose order means nothing, such as uncalibrated cameras around a table."""
    shift: int = 0
    """Each view is moved by up to so many latent pixels, edges repeated."""
    tint: float = 0.0
    """Spread of a factor (around 1) and of an offset of each channel of each view."""
    turn: bool = False
    """Turn poses about the vertical axis by any angle and set them elsewhere (within 0.3 m), as
    if the robot stood so; where cameras are uncalibrated, their views know nothing of that."""

    def __post_init__(self) -> None:
        if not (0 <= self.backward <= 1 and 0 <= self.fast <= 1) or (
            min(self.shift, self.tint) < 0
        ):
            raise ConfigError(
                f"augmentation: backward {self.backward} and fast {self.fast} are shares from 0 to "
                f"1, shift {self.shift} and tint {self.tint} at least 0"
            )

    @property
    def changes(self) -> bool:
        """Whether it does anything at all."""
        return self != Augmentation()

    def track(self, rng: np.random.Generator, length: int, now: int, future: int) -> np.ndarray:
        """Frames of an episode in the order in which a clip sees them; ``future`` end it."""
        backward, fast = rng.random() < self.backward, rng.random() < self.fast
        stride = 2 if fast and now + 2 * future < length else 1
        track = np.arange(now % stride, now + stride * future + 1, stride)
        return length - 1 - track if backward else track

    def move(self, rng: np.random.Generator, clip: np.ndarray) -> np.ndarray:
        """Latents (T, V, C, h, w) of a clip with views exchanged, moved and tinted."""
        order = np.arange(clip.shape[1])
        order[list(self.exchangeable)] = rng.permutation(list(self.exchangeable))
        steps = rng.integers(-self.shift, self.shift + 1, size=(len(order), 2))
        h, w = clip.shape[-2:]
        moved = np.empty_like(clip)
        for view, (source, (dy, dx)) in enumerate(zip(order, steps, strict=True)):
            rows = np.clip(np.arange(h) + dy, 0, h - 1)
            columns = np.clip(np.arange(w) + dx, 0, w - 1)
            moved[:, view] = clip[:, source][..., rows[:, None], columns]
        factor, offset = rng.normal(0, self.tint, size=(2, *clip.shape[1:3], 1, 1))
        return (moved * (1 + factor) + offset).astype(clip.dtype) if self.tint else moved

    def stand(
        self, rng: np.random.Generator, poses: np.ndarray, angles: Sequence[int]
    ) -> np.ndarray:
        """Physical poses (T, P) of a clip, whose first three numbers are metres, turned.

        angles: the places of roll, pitch and yaw; turning about the vertical axis adds to yaw.
        """
        turn, away = rng.uniform(-np.pi, np.pi), rng.uniform(-0.3, 0.3, size=2)
        if not self.turn:
            return poses
        turned = poses.copy()
        about, yaw = poses[:, :2].mean(axis=0), angles[2]
        c, s = np.cos(turn), np.sin(turn)
        turned[:, :2] = (poses[:, :2] - about) @ np.array([[c, s], [-s, c]]) + about + away
        turned[:, yaw] = (poses[:, yaw] + turn + np.pi) % (2 * np.pi) - np.pi
        return turned
