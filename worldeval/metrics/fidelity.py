"""How close imagined frames come to what really followed: PSNR and SSIM per chunk and view.

Enters: frames (T, V, H, W, C), uint8 or floats in [0, 1], of a recorded episode and of its
imagined replays; no model. Leaves: one row per episode, variant, chunk and view, and a report that
asks whether the *own* actions predict better than *shuffled* and *zero* ones and better than
repeating the first frame. A model whose own actions do not win ignores them, however sharp its
pictures are.

PSNR = 10 log10(1 / MSE) with the MSE pooled over the frames of a row (so that one identical frame
does not make a chunk infinite); SSIM is that of Wang et al. 2004 (Gaussian window, sigma 1.5).
Implementations differ in the third digit, so ``METRICS`` records ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from worldeval.data.video import to_model
from worldeval.errors import ConfigError, DataError, MismatchError, MissingDependencyError
from worldeval.metrics.psnr import psnr_of_mse

PSNR_CAP_DB = 100.0  # stands for infinity in means; an 8-bit image with any error is far below
REPEAT_FIRST = "repeat-first"
_SSIM_OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def metric_versions() -> dict[str, str]:
    """Which implementation computed the numbers, to be written beside them."""
    try:
        skimage = version("scikit-image")
    except PackageNotFoundError:
        skimage = "not installed"
    options = ", ".join(f"{name}={value}" for name, value in _SSIM_OPTIONS.items())
    return {
        "psnr": f"worldeval: 10 log10(1/MSE), MSE pooled over the row, mean capped at "
        f"{PSNR_CAP_DB:g} dB",
        "ssim": f"scikit-image {skimage} structural_similarity({options}, data_range=1)",
    }


def psnr_db(truth: np.ndarray, imagined: np.ndarray) -> float:
    """PSNR in dB over all pixels of two equally shaped arrays; inf where they are identical."""
    return float(psnr_of_mse(_mse(_unit(truth), _unit(imagined))))


def ssim(truth: np.ndarray, imagined: np.ndarray) -> float:
    """Mean SSIM of images (..., H, W, C)."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingDependencyError(
            "SSIM needs scikit-image, which is not installed; run `pip install scikit-image`"
        ) from error
    first, second = _unit(truth), _unit(imagined)
    _same_shape(first, second)
    pairs = zip(
        first.reshape(-1, *first.shape[-3:]), second.reshape(-1, *second.shape[-3:]), strict=True
    )
    values = [
        structural_similarity(a, b, data_range=1.0, channel_axis=-1, **_SSIM_OPTIONS)
        for a, b in pairs
    ]
    return float(np.mean(values))


def compare_frames(
    truth: np.ndarray,
    imagined: np.ndarray,
    *,
    views: Sequence[str],
    frames_per_chunk: int,
    with_ssim: bool = True,
) -> pd.DataFrame:
    """One row per chunk and view: chunk, view, frames, mse, psnr_db, ssim.

    truth, imagined: (T, V, H, W, C) *without* the start frame, which is given to the model and
    would flatter it. The last chunk may be shorter.
    """
    if frames_per_chunk < 1:
        raise ConfigError(f"frames_per_chunk is {frames_per_chunk!r}, expected at least 1")
    _same_shape(truth, imagined)
    if truth.ndim != 5 or truth.shape[1] != len(views) or not len(truth):
        raise MismatchError(
            f"frames have shape {truth.shape}, expected (T, {len(views)}, H, W, C) with T > 0 for "
            f"the views {tuple(views)}"
        )
    truth, imagined = _unit(truth), _unit(imagined)
    rows = []
    for chunk, start in enumerate(range(0, len(truth), frames_per_chunk)):
        span = slice(start, start + frames_per_chunk)
        for index, view in enumerate(views):
            a, b = truth[span, index], imagined[span, index]
            mse = _mse(a, b)
            rows.append(
                {
                    "chunk": chunk,
                    "view": view,
                    "frames": len(a),
                    "mse": mse,
                    "psnr_db": float(psnr_of_mse(mse)),
                    "ssim": ssim(a, b) if with_ssim else np.nan,
                }
            )
    return pd.DataFrame(rows)


def repeat_first(start: np.ndarray, frames: int) -> np.ndarray:
    """The baseline that nothing ever moves: start frame (V, H, W, C) ``frames`` times."""
    return np.repeat(start[None], frames, axis=0)


class ReplayReport:
    """Collects replays of recorded episodes under several actions and compares them.

    >>> report = ReplayReport(views=robot.views, frames_per_chunk=robot.frames_per_chunk)
    >>> report.add("k", start=frames[0], truth=frames[1:], imagined={"own": a, "shuffled": b})
    >>> print(report.to_markdown())
    """

    def __init__(
        self, *, views: Sequence[str], frames_per_chunk: int, with_ssim: bool = True
    ) -> None:
        self.views = tuple(views)
        self.frames_per_chunk = frames_per_chunk
        self.with_ssim = with_ssim
        self._parts: list[pd.DataFrame] = []
        self._keys: set[str] = set()

    def add(
        self,
        key: str,
        *,
        start: np.ndarray,
        truth: np.ndarray,
        imagined: Mapping[str, np.ndarray],
        task: str = "",
    ) -> None:
        """Compare the variants of one episode (frames without start); adds ``repeat-first``."""
        if key in self._keys:
            raise DataError(f"episode {key!r} was added twice; add each episode once")
        if REPEAT_FIRST in imagined:
            raise ConfigError(f"{REPEAT_FIRST!r} is added by the report itself; leave it out")
        variants = {**imagined, REPEAT_FIRST: repeat_first(start, len(truth))}
        compared = [
            compare_frames(
                truth,
                frames,
                views=self.views,
                frames_per_chunk=self.frames_per_chunk,
                with_ssim=self.with_ssim,
            ).assign(key=key, task=task, variant=variant)
            for variant, frames in variants.items()
        ]
        self._parts.extend(compared)  # only after all succeeded: never half an episode
        self._keys.add(key)

    @property
    def rows(self) -> pd.DataFrame:
        """All rows: key, task, variant, chunk, view, frames, mse, psnr_db, ssim."""
        columns = ["key", "task", "variant", "chunk", "view", "frames", "mse", "psnr_db", "ssim"]
        if not self._parts:
            return pd.DataFrame(columns=columns)
        return pd.concat(self._parts, ignore_index=True)[columns]

    def table(self, by: Sequence[str] = ("variant",)) -> pd.DataFrame:
        """Mean over rows by variant, chunk, view or task: episodes, psnr_db, ssim, mse.

        Infinite rows count as ``PSNR_CAP_DB`` and are counted in ``identical``.
        """
        rows = self.rows.assign(identical=lambda r: np.isinf(r["psnr_db"].astype(float)))
        rows["psnr_db"] = rows["psnr_db"].astype(float).clip(upper=PSNR_CAP_DB)
        grouped = rows.groupby(list(by), sort=False, as_index=False)
        return grouped.agg(
            episodes=("key", "nunique"),
            psnr_db=("psnr_db", "mean"),
            ssim=("ssim", "mean"),
            mse=("mse", "mean"),
            identical=("identical", "sum"),
        )

    def winners(self) -> dict[str, Any]:
        """Per episode, the variant of lowest pooled MSE, and how often "own" beats each other.

        Returns {"episodes": n, "fractions": {variant: share of episodes it wins outright},
        "tied": episodes without a single winner, "own_beats": {variant: {"wins", "ties",
        "episodes", "fraction"}}}; a tie is never a win.
        """
        rows = self.rows
        if rows.empty:
            return {"episodes": 0, "fractions": {}, "tied": 0, "own_beats": {}}
        rows = rows.assign(error=rows["mse"] * rows["frames"])
        pooled = rows.pivot_table(index="key", columns="variant", values="error", aggfunc="sum")
        best = pooled.min(axis=1)
        is_best = pooled.eq(best, axis=0)
        single = is_best.sum(axis=1) == 1
        beats = {}
        for variant in pooled.columns if "own" in pooled.columns else ():
            if variant == "own":
                continue
            both = pooled[["own", variant]].dropna()
            wins = int((both["own"] < both[variant]).sum())
            beats[str(variant)] = {
                "wins": wins,
                "ties": int((both["own"] == both[variant]).sum()),
                "episodes": len(both),
                "fraction": wins / len(both) if len(both) else float("nan"),
            }
        return {
            "episodes": len(pooled),
            "fractions": {
                str(name): float((is_best[name] & single).mean()) for name in pooled.columns
            },
            "tied": int((~single).sum()),
            "own_beats": beats,
        }

    def to_markdown(self) -> str:
        """Tables by variant and by variant and chunk, the winners, and the implementations."""
        parts = [_markdown(self.table()), _markdown(self.table(("variant", "chunk")))]
        parts += [
            f"- own actions beat {name}: {beat['wins']} of {beat['episodes']} episodes "
            f"({beat['ties']} ties)"
            for name, beat in self.winners()["own_beats"].items()
        ]
        parts += [f"- {name}: {text}" for name, text in metric_versions().items()]
        return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Everything a report page needs, JSON-able (no infinities; NaN is null)."""

        def records(*by: str) -> list[dict[str, Any]]:
            table = self.table(by).astype(object)
            return table.where(table.notna(), None).to_dict("records")

        return {
            "metrics": metric_versions(),
            "variants": records("variant"),
            "chunks": records("variant", "chunk"),
            "views": records("variant", "view"),
            "winners": self.winners(),
        }


def _unit(frames: np.ndarray) -> np.ndarray:
    """Frames as floats in [0, 1]; floats are taken as being so already."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return np.moveaxis(to_model(frames), -3, -1) * 0.5 + 0.5
    if not np.issubdtype(frames.dtype, np.floating):
        raise DataError(f"frames are {frames.dtype}, expected uint8 or floats in [0, 1]")
    return frames


def _same_shape(truth: np.ndarray, imagined: np.ndarray) -> None:
    if truth.shape != imagined.shape:
        raise MismatchError(
            f"true frames have shape {truth.shape} and imagined ones {imagined.shape}, expected "
            "equal shapes; compare the same frames of the same episode"
        )


def _mse(first: np.ndarray, second: np.ndarray) -> float:
    _same_shape(first, second)
    return float(np.mean((first.astype(np.float64) - second) ** 2))


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
