"""How fast the embedded world imagines: three-view frames per second, by batch, with memory use.

    .venv/bin/python benchmarks/speed.py [--world checkpoints/world-model] [--chunks 50]

Prints one line per batch size: rate with encoding of the start, sampling and decoding, the number
of function evaluations, and resident memory after 10 and after all chunks. Writes JSON with --out.
"""

from __future__ import annotations

import worldeval  # noqa: F401 - before torch: its idle threads then wait, not spin

# isort: split
import argparse
import json
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import WorldModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, default=Path("checkpoints/world-model"))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = WorldModel.load(options.world)
    frame_rollouts = FrameRollouts(model, Autoencoder.load(options.world.parent / "autoencoder"))
    size = frame_rollouts.autoencoder.config.image_size
    rows = []
    print(f"{'batch':>5} {'frames/s':>9} {'NFE':>4} {'MiB at 10':>10} {'MiB at end':>10}")
    for batch in options.batches:
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 255, (batch, len(model.config.views), *size, 3), dtype=np.uint8)
        low, high = np.asarray(model.config.pose_low), np.asarray(model.config.pose_high)
        pose = np.broadcast_to((low + high) / 2, (batch, len(low))).astype(np.float32)
        frame_rollouts.reset(frames, pose, range(batch))
        process = psutil.Process()
        at_ten = 0.0
        frame_rollouts.step(np.repeat(pose[:, None], model.config.future, 1), range(batch))
        began = time.perf_counter()
        for chunk in range(options.chunks):
            drift = rng.normal(0, 0.01, (batch, model.config.future, len(low)))
            frame_rollouts.step((pose[:, None] + drift).astype(np.float32), range(batch))
            if chunk == 9:
                at_ten = process.memory_info().rss / 2**20
        seconds = time.perf_counter() - began
        row = {
            "batch": batch,
            "frames_per_s": batch * options.chunks * model.config.future / seconds,
            "nfe": frame_rollouts.rollouts.sampler.evaluations,
            "solver": frame_rollouts.rollouts.sampler.solver,
            "threads": options.threads,
            "views": len(model.config.views),
            "mib_at_10_chunks": at_ten,
            "mib_at_end": process.memory_info().rss / 2**20,
            "chunks": options.chunks,
            "torch": torch.__version__,
        }
        rows.append(row)
        print(
            f"{batch:5d} {row['frames_per_s']:9.1f} {row['nfe']:4d} {at_ten:10.0f} "
            f"{row['mib_at_end']:10.0f}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
