"""PSNR has one definition, of whatever range of pixels."""

import math

import numpy as np
import pytest

from worldeval.metrics.psnr import psnr_of_mse


@pytest.mark.parametrize("peak", [1, 2, 255])
def test_decibels_do_not_depend_on_the_unit_of_the_pixels(peak: float) -> None:
    assert psnr_of_mse((0.1 * peak) ** 2, peak=peak) == pytest.approx(20)


def test_identical_frames_are_infinitely_close_unless_a_mean_is_taken() -> None:
    assert math.isinf(psnr_of_mse(0.0))
    assert psnr_of_mse(np.array([0.0, 0.01]), most=50).tolist() == pytest.approx([50, 20])
    assert math.isnan(psnr_of_mse(float("nan"), most=50))
