"""Which frames of an episode are history, which are present and which are future.

A window at frame t of an episode with n frames: the present is t, the future t+1 .. t+F, the past
0 .. t-1, of which a memory strategy picks a few. ``t`` runs over every frame with a whole future.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldeval.errors import DataError


def window_starts(lengths: Sequence[int], future: int) -> np.ndarray:
    """All (episode, t) pairs with ``future`` frames after t; (N, 2) int64.

    Raises DataError if no episode is long enough.
    """
    rows = [(episode, t) for episode, n in enumerate(lengths) for t in range(n - future)]
    if not rows:
        raise DataError(
            f"no episode is long enough for a window: the longest has {max(lengths, default=0)} "
            f"frames, expected more than {future}"
        )
    return np.asarray(rows, np.int64)
