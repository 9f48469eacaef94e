"""Does memory matter? Out-and-back motions replayed with each retrieval strategy.

    worldeval record --out runs/memory/recorded --mix memory 1.0 --split validation ...
    .venv/bin/python benchmarks/memory.py runs/memory/recorded

The hand leaves, so the wrist view loses the object, and comes back. Per strategy: PSNR of the wrist
view (and of all views) over the last two chunks, when the hand is back. Differences are paired by
episode; the interval is a bootstrap over episodes. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.metrics.fidelity import psnr_db
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import WorldModel


def returned_psnr(
    frame_rollouts: FrameRollouts, frames: np.ndarray, poses: np.ndarray
) -> np.ndarray:
    """(E, V + 1) PSNR in dB of the last two chunks: each view, then all together."""
    future = frame_rollouts.model.config.future
    frame_rollouts.reset(frames[:, 0], poses[:, 0], range(len(frames)))
    rows = range(len(frames))
    parts = [
        frame_rollouts.step(poses[:, 1 + t : 1 + t + future], rows)[0]
        for t in range(0, frames.shape[1] - future, future)
    ]
    imagined = np.concatenate(parts, axis=1)[:, -2 * future :]
    true = frames[:, 1 : 1 + future * len(parts)][:, -2 * future :]
    return np.array(
        [
            [psnr_db(t[:, v], i[:, v]) for v in range(t.shape[1])] + [psnr_db(t, i)]
            for t, i in zip(true, imagined, strict=True)
        ]
    )


def interval(differences: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = rng.integers(len(differences), size=(2000, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--world", type=Path, default=Path("checkpoints/world-model"))
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    store = EpisodeStore.open(options.store)
    episodes = [store.episode(i) for i in range(min(len(store), options.episodes))]
    frames = np.stack([e.frames for e in episodes])
    poses = np.stack([e.poses for e in episodes])
    model = WorldModel.load(options.world)
    autoencoder = Autoencoder.load(options.world.parent / "autoencoder")
    wrist = model.config.views.index("wrist")
    found = {
        name: returned_psnr(FrameRollouts(model, autoencoder, memory=name), frames, poses)
        for name in ("none", "strided", "pose")
    }
    print(f"{len(episodes)} episodes, PSNR in dB over the last two chunks\n")
    print("| strategy | wrist | all views | pose minus it, wrist (95 %) |")
    print("|---|---|---|---|")
    rows = []
    for name, values in found.items():
        gain = found["pose"][:, wrist] - values[:, wrist]
        low, high = interval(gain)
        rows.append(
            {
                "strategy": name,
                "wrist_db": float(values[:, wrist].mean()),
                "all_db": float(values[:, -1].mean()),
                "pose_gain_db": float(gain.mean()),
                "low": low,
                "high": high,
                "episodes": len(episodes),
            }
        )
        print(
            f"| {name} | {rows[-1]['wrist_db']:.2f} | {rows[-1]['all_db']:.2f} | "
            f"{gain.mean():+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
