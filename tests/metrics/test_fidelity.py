import json
import math

import numpy as np
import pytest

from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.metrics.fidelity import (
    PSNR_CAP_DB,
    ReplayReport,
    compare_frames,
    metric_versions,
    psnr_db,
    repeat_first,
    ssim,
)

VIEWS = ("left", "wrist")


def grey(frames: int, value: float) -> np.ndarray:
    return np.full((frames, 2, 16, 16, 3), value, np.float32)


def test_a_constant_error_of_a_tenth_is_20_db() -> None:
    assert psnr_db(grey(3, 0.4), grey(3, 0.5)) == pytest.approx(20.0, abs=1e-4)


def test_one_grey_level_of_uint8_is_48_13_db() -> None:
    first = np.full((4, 4, 3), 100, np.uint8)
    assert psnr_db(first, first + np.uint8(1)) == pytest.approx(20 * math.log10(255), abs=1e-3)


def test_identical_images_are_infinite_and_perfect() -> None:
    noise = np.random.default_rng(0).random((2, 16, 16, 3))
    assert psnr_db(noise, noise) == math.inf
    assert ssim(noise, noise) == pytest.approx(1.0)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    """Without variance SSIM is (2ab + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2 (Wang 2004)."""
    expected = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    assert ssim(grey(1, 0.3), grey(1, 0.6)) == pytest.approx(expected, abs=1e-6)


def test_ssim_reference_of_a_ramp_against_its_inverse() -> None:
    """16x16 ramp: the Gaussian form gives -0.826 in skimage (facts/statistics.md, section 7)."""
    ramp = np.linspace(0, 1, 256).reshape(1, 16, 16, 1)
    assert psnr_db(ramp, 1 - ramp) == pytest.approx(4.7373, abs=1e-4)
    assert ssim(ramp, 1 - ramp) == pytest.approx(RAMP, abs=1e-3)


RAMP = -0.826


def test_chunks_and_views_are_grouped_right() -> None:
    truth, imagined = grey(6, 0.5), grey(6, 0.5)
    imagined[4:, 1] += 0.1  # an error in the second chunk of the second view alone
    rows = compare_frames(truth, imagined, views=VIEWS, frames_per_chunk=4)
    assert rows["frames"].tolist() == [4, 4, 2, 2]
    table = rows.set_index(["chunk", "view"])["psnr_db"]
    assert table[1, "wrist"] == pytest.approx(20.0, abs=1e-4)
    assert all(table[place] == math.inf for place in [(0, "left"), (0, "wrist"), (1, "left")])


def test_errors_are_pooled_before_the_logarithm() -> None:
    """Half the frames off by 0.1: MSE 0.005, 23.01 dB; a mean of dB would be infinite."""
    truth, imagined = grey(2, 0.5), grey(2, 0.5)
    imagined[1] += 0.1
    rows = compare_frames(truth, imagined, views=VIEWS, frames_per_chunk=2, with_ssim=False)
    assert rows["psnr_db"].tolist() == pytest.approx([23.0103] * 2, abs=1e-3)


def report_of(errors: list[dict[str, float]]) -> ReplayReport:
    report = ReplayReport(views=VIEWS, frames_per_chunk=2, with_ssim=False)
    for index, variants in enumerate(errors):
        report.add(
            f"episode {index}", task="t", start=grey(1, 0.9)[0], truth=grey(4, 0.4),
            imagined={name: grey(4, 0.4 + error) for name, error in variants.items()},
        )  # fmt: skip
    return report


def test_winners_and_ties() -> None:
    report = report_of(
        [
            {"own": 0.1, "shuffled": 0.2, "zero": 0.3},
            {"own": 0.1, "shuffled": 0.05, "zero": 0.3},
            {"own": 0.1, "shuffled": 0.1, "zero": 0.3},
        ]
    )
    winners = report.winners()
    assert winners["episodes"] == 3 and winners["tied"] == 1
    assert winners["fractions"] == {
        "own": pytest.approx(1 / 3), "shuffled": pytest.approx(1 / 3), "zero": 0.0,
        "repeat-first": 0.0,
    }  # fmt: skip
    assert winners["own_beats"]["shuffled"] == {
        "wins": 1, "ties": 1, "episodes": 3, "fraction": pytest.approx(1 / 3),
    }  # fmt: skip
    assert winners["own_beats"]["repeat-first"]["wins"] == 3  # it is off by 0.5


def test_tables_cap_infinity_and_count_it() -> None:
    report = report_of([{"own": 0.0}, {"own": 0.1}])
    table = report.table().set_index("variant")
    assert table.loc["own", "psnr_db"] == pytest.approx((PSNR_CAP_DB + 20) / 2, abs=1e-3)
    assert table.loc["own", "identical"] == 4 and table.loc["own", "episodes"] == 2
    assert table.loc["repeat-first", "psnr_db"] == pytest.approx(-20 * math.log10(0.5), abs=1e-3)
    chunks = report.table(("variant", "chunk"))
    assert len(chunks) == 4
    text = report.to_markdown()
    assert "own actions beat repeat-first: 2 of 2" in text and "scikit-image" in text
    json.dumps(report.to_json(), allow_nan=False)


def test_the_baseline_repeats_the_start() -> None:
    start = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3), np.uint8)
    frames = repeat_first(start, 3)
    assert frames.shape == (3, 2, 4, 4, 3) and (frames == start).all()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(MismatchError, match="equal shapes"):
        compare_frames(grey(3, 0), grey(4, 0), views=VIEWS, frames_per_chunk=4)
    with pytest.raises(MismatchError, match="T, 1, H"):
        compare_frames(grey(3, 0), grey(3, 0), views=("left",), frames_per_chunk=4)
    with pytest.raises(ConfigError, match="frames_per_chunk is 0"):
        compare_frames(grey(3, 0), grey(3, 0), views=VIEWS, frames_per_chunk=0)
    with pytest.raises(DataError, match="int64"):
        psnr_db(np.zeros((2, 2, 3), np.int64), np.zeros((2, 2, 3), np.int64))
    report = report_of([{"own": 0.1}])
    with pytest.raises(DataError, match="added twice"):
        report.add("episode 0", start=grey(1, 0)[0], truth=grey(4, 0), imagined={})


def test_versions_are_recorded() -> None:
    assert "structural_similarity" in metric_versions()["ssim"]
