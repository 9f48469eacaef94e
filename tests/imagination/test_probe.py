from __future__ import annotations

import numpy as np
import pytest

from worldeval.errors import DataError
from worldeval.imagination.probe import Motion, probe_motion, to_markdown

NAMES = ("x", "y", "z")


def motion(gain: object, frames: int = 400, noise: float = 0.0, seed: int = 0) -> Motion:
    """An arm that goes ``gain`` of what is commanded, in ten chunks."""
    rng = np.random.default_rng(seed)
    commanded = rng.normal(size=(frames, 3))
    read = commanded * np.asarray(gain) + noise * rng.normal(size=(frames, 3))
    return Motion(commanded=commanded, read=read, chunk=np.arange(frames) * 10 // frames)


def test_half_the_way_is_a_gain_of_one_half_though_the_network_reads_too_little():
    """The network reads 0.8 of every motion: of true frames as of imagined ones."""
    found = probe_motion("own", motion(0.8 * 0.5), motion(0.8), NAMES)
    assert found.gain == pytest.approx({"x": 0.5, "y": 0.5, "z": 0.5})
    assert found.drift == pytest.approx([0.5] * 10)


def test_each_axis_has_its_own_gain_and_noise_does_not_change_it():
    gains = np.array([1.0, 0.0, -1.0])
    found = probe_motion("own", motion(gains, 20000, noise=0.3), motion(1, noise=0.1), NAMES)
    assert list(found.gain.values()) == pytest.approx(gains, abs=0.02)


def test_what_obeys_nothing_has_no_gain_and_an_error_above_one():
    own = motion(1)
    other = Motion(commanded=motion(1, seed=1).commanded, read=own.read, chunk=own.chunk)
    found = probe_motion("another", other, own, NAMES)
    assert max(abs(gain or 0) for gain in found.gain.values()) < 0.2
    assert np.mean(found.drift) == pytest.approx(2**0.5, abs=0.1)


def test_drift_tells_when_the_arm_stops_to_obey():
    fades = motion(1)
    read = fades.read * (fades.chunk < 5)[:, None]
    found = probe_motion(
        "own", Motion(commanded=fades.commanded, read=read, chunk=fades.chunk), motion(1), NAMES
    )
    assert found.drift == pytest.approx([0] * 5 + [1] * 5)
    assert to_markdown([found]).splitlines()[2].endswith("| 0.00 | 1.00 | 1.00 |")


def test_axes_that_do_not_move_or_cannot_be_read_are_unknown():
    still = motion(1)
    still.commanded[:, 1] = 0
    found = probe_motion("own", still, motion(np.array([1, 1, 0.01])), NAMES)
    assert found.gain["x"] == pytest.approx(1) and found.gain["y"] is found.gain["z"] is None
    nothing = Motion(commanded=np.zeros((4, 3)), read=np.ones((4, 3)), chunk=np.zeros(4, int))
    assert probe_motion("own", nothing, motion(1), NAMES).drift == (None,)
    assert "–" in to_markdown([found])


def test_shapes_must_agree():
    with pytest.raises(DataError, match=r"expected \(N, P\)"):
        Motion(commanded=np.zeros((4, 3)), read=np.zeros((4, 2)), chunk=np.zeros(4))
