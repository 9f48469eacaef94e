"""How much colour H.264's 4:2:0 costs at 64 px, against PNG, which costs nothing.

Prints a table of PSNR and size per frame, on drawn scenes (a table, coloured blocks, a thin
gripper) or on the frames of a lossless episode store::

    python benchmarks/chroma.py [STORE] [--episodes N]

4:2:0 keeps one colour for four pixels, so the loss is at the edges of coloured things, which at
64 px is where the small objects are. The row "4:2:0 alone" averages colour over 2x2 pixels and
codes nothing: no setting of a 4:2:0 coder can be better than that.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import encode_png, read_mp4, write_mp4
from worldeval.metrics.psnr import psnr_of_mse

# ITU-R BT.601, by which the mp4 files are tagged.
RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def drawn_scenes(episodes: int, length: int = 41, size: int = 64) -> list[np.ndarray]:
    """Episodes (T, H, W, 3) of coloured things that move over a table."""
    rows, columns = np.mgrid[:size, :size]
    made = []
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        table = np.stack(
            [
                150 + 12 * np.sin(columns / 3 + rows / 17),
                110 + 9 * np.sin(rows / 11),
                70 + 0.3 * rows,
            ],
            axis=-1,
        )
        colours = rng.choice([(220, 30, 40), (30, 160, 60), (40, 70, 220), (240, 200, 30)], 3)
        starts, speeds = rng.uniform(8, 48, (3, 2)), rng.uniform(-0.8, 0.8, (3, 2))
        frames = np.empty((length, size, size, 3), np.uint8)
        for t in range(length):
            picture = table.copy()
            for colour, start, speed in zip(colours, starts, speeds, strict=True):
                top, left = np.clip(start + t * speed, 0, size - 7).astype(int)
                picture[top : top + 6, left : left + 6] = colour
            hand = int(20 + 15 * np.sin(t / 7))
            picture[: 20 + t // 4, hand : hand + 2] = (200, 20, 20)
            frames[t] = np.clip(picture + rng.normal(0, 1.5, picture.shape), 0, 255)
        made.append(frames)
    return made


def stored_frames(root: str, episodes: int) -> list[np.ndarray]:
    """Frames of each view of episodes spread over a store, as videos of their own."""
    store = EpisodeStore.open(root)
    if store.layout.images != "lossless":
        raise SystemExit(f"{root} holds H.264 already; give a store made with images='lossless'")
    chosen = np.unique(np.linspace(0, len(store) - 1, episodes).astype(int))
    return [frames for i in chosen for frames in store.frames(int(i)).transpose(1, 0, 2, 3, 4)]


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all pixels and colours, in dB; infinite if equal."""
    return float(psnr_of_mse(np.mean((one.astype(np.float64) - other) ** 2), peak=255))


def colour_averaged(frames: np.ndarray) -> np.ndarray:
    """Frames whose colour (not brightness) is the mean of each 2x2 pixels."""
    yuv = frames @ RGB_TO_YUV.T
    t, h, w, _ = yuv.shape
    mean = yuv[..., 1:].reshape(t, h // 2, 2, w // 2, 2, 2).mean((2, 4))
    yuv[..., 1:] = mean.repeat(2, axis=1).repeat(2, axis=2)
    return np.clip(np.rint(yuv @ np.linalg.inv(RGB_TO_YUV).T), 0, 255).astype(np.uint8)


def edges(frames: np.ndarray) -> np.ndarray:
    """(T, H, W) bool: the tenth of the pixels whose colour changes most to the right or below."""
    colour = (frames @ RGB_TO_YUV.T)[..., 1:]
    change = np.abs(np.diff(colour, axis=1, append=colour[:, -1:])).sum(-1)
    change += np.abs(np.diff(colour, axis=2, append=colour[:, :, -1:])).sum(-1)
    return change >= np.quantile(change, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store", nargs="?", help="a lossless episode store; drawn scenes without")
    parser.add_argument("--episodes", type=int, default=8)
    arguments = parser.parse_args()
    videos = (
        stored_frames(arguments.store, arguments.episodes)
        if arguments.store
        else drawn_scenes(arguments.episodes)
    )
    frames_total = sum(len(frames) for frames in videos)
    height, width = videos[0].shape[1:3]
    print(f"{frames_total} frames of {height}x{width} px from {arguments.store or 'drawn scenes'}")
    print(f"{'':24}{'PSNR dB':>9}{'at colour edges':>17}{'bytes per frame':>15}")

    def row(name: str, decoded: list[np.ndarray], size: float | None) -> None:
        pairs = list(zip(videos, decoded, strict=True))
        whole = psnr_db(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
        masks = [edges(original) for original in videos]
        hard = psnr_db(
            np.concatenate([a[m] for (a, _), m in zip(pairs, masks, strict=True)]),
            np.concatenate([b[m] for (_, b), m in zip(pairs, masks, strict=True)]),
        )
        weight = "" if size is None else f"{size / frames_total:.0f}"
        print(f"{name:24}{whole:9.2f}{hard:17.2f}{weight:>15}")

    row("PNG", videos, sum(len(encode_png(frame)) for frames in videos for frame in frames))
    row("4:2:0 alone", [colour_averaged(frames) for frames in videos], None)
    with tempfile.TemporaryDirectory() as folder:
        for crf in (0, 18, 23):
            decoded, size = [], 0
            for number, frames in enumerate(videos):
                path = Path(folder) / f"{number}.mp4"
                write_mp4(path, frames, 10, crf=crf)
                decoded.append(read_mp4(path))
                size += path.stat().st_size
            row(f"H.264 4:2:0 crf {crf}", decoded, size)


if __name__ == "__main__":
    main()
