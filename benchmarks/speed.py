"""How fast the embedded world imagines, and what each way of computing buys.

    .venv/bin/python benchmarks/speed.py [--world checkpoints/world-model] [--chunks 50]
    .venv/bin/python benchmarks/speed.py --ways [--chunks 6]

The first prints one line per batch size: three-view frames per second with encoding of the start,
sampling and decoding, the number of function evaluations, and resident memory after 10 and after
all chunks. The second imagines the same chunks in every way, each in a process of its own, at the
first of --batches; prints a Markdown table of frames a second by the clock (of use on a quiet
machine only), frames a second of computing, the seconds of the first chunk (compiling), peak
memory, and by how much the frames differ from those of one thread. --out writes either as JSON.
"""

from __future__ import annotations

import worldeval  # noqa: F401 - before torch: its idle threads then wait, not spin

# isort: split
import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch

from worldeval.world_model import autoencoder as codecs
from worldeval.world_model import model as models
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.backbone import stages
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import WorldModel

WAYS = {
    "one": "one thread",
    "parts": "two threads, each with its part of the batch (the default)",
    "layers": "two threads inside of each layer",
    "processes": "two processes of one thread",
    "bfloat16": "one thread, bfloat16 units (autocast)",
    "compiled": "one thread, compiled stages (torch.compile)",
    "contiguous": "one thread, weights and images not channels-last",
}


def opened(world: Path) -> FrameRollouts:
    return FrameRollouts(WorldModel.load(world), Autoencoder.load(world.parent / "autoencoder"))


def begun(rollouts: FrameRollouts, batch: int) -> np.ndarray:
    """Smooth random frames as a start; the poses (B, P) in the middle of the workspace."""
    config, rng = rollouts.model.config, np.random.default_rng(0)
    size = rollouts.autoencoder.config.image_size
    coarse = rng.integers(0, 255, (batch * len(config.views), 6, 6, 3), dtype=np.uint8)
    frames = np.stack([cv2.resize(image, size[::-1]) for image in coarse])
    low, high = np.asarray(config.pose_low), np.asarray(config.pose_high)
    pose = np.broadcast_to((low + high) / 2, (batch, len(low))).astype(np.float32)
    frames = frames.reshape(batch, len(config.views), *size, 3)
    rollouts.reset(frames, pose, range(batch))
    return pose


def step(rollouts: FrameRollouts, pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The next chunk of all, along small random motions."""
    drift = rng.normal(0, 0.01, (len(pose), rollouts.model.config.future, pose.shape[1]))
    return rollouts.step((pose[:, None] + drift).astype(np.float32), range(len(pose)))[0]


def by_batch(options: argparse.Namespace) -> list[dict[str, Any]]:
    torch.set_num_threads(options.threads)
    rollouts, process, rows = opened(options.world), psutil.Process(), []
    print(f"{'batch':>5} {'frames/s':>9} {'NFE':>4} {'MiB at 10':>10} {'MiB at end':>10}")
    for batch in options.batches:
        pose, rng = begun(rollouts, batch), np.random.default_rng(1)
        step(rollouts, pose, rng)
        at_ten, began = 0.0, time.perf_counter()
        for chunk in range(options.chunks):
            step(rollouts, pose, rng)
            if chunk == 9:
                at_ten = process.memory_info().rss / 2**20
        seconds = time.perf_counter() - began
        row = {
            "batch": batch,
            "frames_per_s": batch * options.chunks * rollouts.model.config.future / seconds,
            "nfe": rollouts.rollouts.sampler.evaluations,
            "solver": rollouts.rollouts.sampler.solver,
            "threads": options.threads,
            "views": len(rollouts.model.config.views),
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
    return rows


def one_way(options: argparse.Namespace) -> dict[str, Any]:
    """Imagine in one way, in this process. Keeps the last frames in ``options.frames``."""
    way = options.way
    torch.set_num_threads(2 if way in ("parts", "layers") else 1)
    if way == "layers":
        models.side_by_side = codecs.side_by_side = in_one_piece
    rollouts = opened(options.world)
    network = rollouts.model.backbone
    if way == "contiguous":
        network.to(memory_format=torch.contiguous_format)
        rollouts.autoencoder.to(memory_format=torch.contiguous_format)
        for module in (*network.modules(), *rollouts.autoencoder.modules()):
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    if way == "compiled":
        for level in (network.down, network.middle, network.up):
            for stage in stages(level):
                for part in (stage.spatial, stage.temporal, stage.attention):
                    if part is not None:
                        part.compile()
        rollouts.autoencoder.decoder.compile()
    exact = nullcontext()
    if way == "bfloat16":
        exact, decode = torch.autocast("cpu", torch.bfloat16), rollouts.autoencoder.decode
        rollouts.autoencoder.decode = lambda latents: decode(latents).float()
    pose, rng = begun(rollouts, options.batches[0]), np.random.default_rng(1)
    with exact:
        began = time.perf_counter()
        frames = step(rollouts, pose, rng)
        first_s = time.perf_counter() - began
        np.save(options.frames, frames)  # of the first chunk: errors have not grown yet
        clock, computing, least = time.perf_counter(), computed_s(), []
        for _ in range(options.chunks):
            before = computed_s()
            frames = step(rollouts, pose, rng)
            least.append(computed_s() - before)
    count = options.chunks * len(pose) * rollouts.model.config.future
    return {
        "frames_per_s": count / (time.perf_counter() - clock),
        "frames_per_computing_s": count / (computed_s() - computing),
        "best_frames_per_computing_s": count / options.chunks / min(least),
        "first_chunk_s": first_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sha256": hashlib.sha256(frames.tobytes()).hexdigest()[:12],
    }


def in_one_piece(work: Any, rows: int, device: Any = "cpu") -> torch.Tensor:
    with torch.inference_mode():
        return work(slice(0, rows))


def computed_s() -> float:
    return time.process_time()


def in_processes(
    options: argparse.Namespace, way: str, folder: Path, count: int = 1
) -> dict[str, Any]:
    """``one_way`` in processes of their own, on a core each where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, __file__, "--world", options.world, "--chunks", options.chunks]
    command += ["--batches", options.batches[0], "--way", way]
    running = []
    for number in range(count):
        frames = folder / f"{way}-{number}.npy"
        words = [str(word) for word in [*command, "--frames", frames]]
        if count > 1:
            words = ["taskset", "-c", str(cores[number % len(cores)]), *words]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{way!r} ended without figures; what it said stands above")
    rows = [json.loads(text.splitlines()[-1]) for text in said]
    return {
        **rows[0],
        "frames_per_s": sum(row["frames_per_s"] for row in rows),
        "peak_mib": sum(row["peak_mib"] for row in rows),
    }


def by_way(options: argparse.Namespace) -> list[dict[str, Any]]:
    print(
        "| way | frames/s | frames per s of computing, mean (best) | first chunk, s | MiB | "
        "pixels that differ (most) |\n|---|---|---|---|---|---|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for way in options.only or WAYS:
            processes = 2 if way == "processes" else 1
            row = in_processes(options, "one" if processes > 1 else way, folder, processes)
            found = np.load(folder / f"{'one' if processes > 1 else way}-0.npy").astype(int)
            reference = folder / "one-0.npy"
            apart = np.abs(found - np.load(reference)) if reference.exists() else found * 0
            rows.append(
                {"way": way, **row, "differ": float((apart > 0).mean()), "most": int(apart.max())}
            )
            print(
                f"| {WAYS[way]} | {row['frames_per_s']:.1f} | {row['frames_per_computing_s']:.1f} "
                f"({row['best_frames_per_computing_s']:.1f}) | {row['first_chunk_s']:.1f} | "
                f"{row['peak_mib']:.0f} | {rows[-1]['differ']:.2%} ({rows[-1]['most']}) |",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, default=Path("checkpoints/world-model"))
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", action="store_true", help="what each way of computing buys")
    parser.add_argument("--only", nargs="+", choices=list(WAYS), help="of the ways, these")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    several = options.ways or options.way
    options.batches = options.batches or ([16] if several else [1, 4, 8, 16])
    options.chunks = options.chunks or (6 if several else 50)
    if options.way:
        print(json.dumps(one_way(options)))
        return
    rows = by_way(options) if options.ways else by_batch(options)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
