"""More clips from few recordings: other orders of their frames, views exchanged and moved.

In: the length of an episode, a moment in it, and the latents (T, V, C, h, w) of a clip. Out: which
frames a clip has, and its latents changed. All chance comes from a generator that is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What else a recording vouches for, where there are few of them.

    backward: share of clips that run backwards: the way of an arm, reversed, is a way of an arm.
    fast: share of clips of every other frame, where the episode is long enough.
    exchangeable: views whose order means nothing, such as uncalibrated cameras around a table.
    shift: views are moved by up to so many latent pixels, each by its own, edges repeated.
    """

    backward: float = 0.0
    fast: float = 0.0
    exchangeable: tuple[int, ...] = ()
    shift: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.backward <= 1 and 0 <= self.fast <= 1) or self.shift < 0:
            raise ConfigError(
                f"augmentation: backward {self.backward} and fast {self.fast} are shares from 0 to "
                f"1, shift {self.shift} is at least 0"
            )

    @property
    def changes(self) -> bool:
        """Whether it does anything at all."""
        return bool(self.backward or self.fast or self.exchangeable or self.shift)

    def track(self, rng: np.random.Generator, length: int, now: int, future: int) -> np.ndarray:
        """Frames of an episode in the order in which a clip sees them; ``future`` end it."""
        backward, fast = rng.random() < self.backward, rng.random() < self.fast
        stride = 2 if fast and now + 2 * future < length else 1
        track = np.arange(now % stride, now + stride * future + 1, stride)
        return length - 1 - track if backward else track

    def move(self, rng: np.random.Generator, clip: np.ndarray) -> np.ndarray:
        """Latents (T, V, C, h, w) of a clip with views exchanged and moved."""
        order = np.arange(clip.shape[1])
        order[list(self.exchangeable)] = rng.permutation(list(self.exchangeable))
        steps = rng.integers(-self.shift, self.shift + 1, size=(len(order), 2))
        h, w = clip.shape[-2:]
        moved = np.empty_like(clip)
        for view, (source, (dy, dx)) in enumerate(zip(order, steps, strict=True)):
            rows = np.clip(np.arange(h) + dy, 0, h - 1)
            columns = np.clip(np.arange(w) + dx, 0, w - 1)
            moved[:, view] = clip[:, source][..., rows[:, None], columns]
        return moved
