"""Seconds and PSNR from a LeRobot dataset of any robot to imagined replays, by the command line.

    python benchmarks/lerobot_robot.py --source DATASET --validation DATASET --out FOLDER

Replays are of episodes that nothing was trained on, with their own actions, with another episode's
and with none, against the first frame repeated. Seconds are of processor time, since clocks say
little where others compute beside it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-size", type=int, nargs=2, default=(32, 48))
    parser.add_argument("--steps", type=int, nargs=2, default=(800, 1200))
    given = parser.parse_args()
    out, (height, width) = given.out, given.image_size
    store, held_out, world = out / "store", out / "validation", out / "world-model"
    coding, denoising = given.steps
    size, threads = f"{height} {width}", "--loop.threads 1 --loop.device cpu"
    verbs = (
        f"prepare --source {given.source} --out {store} --image-size {size} --workers 1",
        f"prepare --source {given.validation} --robot {store / 'robot.toml'} --out {held_out} "
        f"--image-size {size} --workers 1",
        f"train autoencoder --store {store} --out {out / 'autoencoder'} --model.image-size {size} "
        f"--model.widths 16 32 48 --loop.steps {coding} --loop.batch 16 {threads}",
        f"train world-model --store {store} --autoencoder {out / 'autoencoder'} --out {world} "
        f"--backbone.widths 32 64 --loop.steps {denoising} --loop.batch 8 {threads}",
        f"replay --store {held_out} --world-model {world} --chunks 4 --threads 1 "
        f"--device cpu --out {out / 'replay'}",
    )
    print("| verb | processor seconds |\n|---|---|", flush=True)
    for words in verbs:
        before = processor_seconds()
        subprocess.run(
            [sys.executable, "-m", "worldeval", *words.split()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        name = words.split(" --")[0]
        print(f"| {name} | {processor_seconds() - before:.0f} |", flush=True)
    print("\n" + (out / "replay/replay.md").read_text(encoding="utf-8").split("\n\n")[0])


if __name__ == "__main__":
    main()
