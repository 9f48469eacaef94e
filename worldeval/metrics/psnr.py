"""Peak signal-to-noise ratio: the one definition. numpy only.

In: mean squared errors. Out: dB, 10 log10(peak^2 / MSE), larger is closer; inf where nothing errs.
Over which pixels an error is averaged before the logarithm is the caller's choice, and says what
its figure means: one error pooled over frames, or a mean of the dB of single frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def psnr_of_mse(mse: Any, *, peak: float = 1.0, most: float = np.inf) -> Any:
    """dB of mean squared errors (a number, or an array of any shape), in that shape.

    peak: the range of the pixels: 1 for [0, 1], 2 for [-1, 1], 255 for uint8.
    most: dB that stand for anything better, so that one identical frame does not make a mean inf.
    """
    with np.errstate(divide="ignore"):
        value = -10 * np.log10(np.asarray(mse, np.float64) / peak**2)
    return np.minimum(value, most)[()]
