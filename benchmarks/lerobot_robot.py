"""Seconds and PSNR from a LeRobot dataset of any robot to imagined replays, by the command line.

    python benchmarks/lerobot_robot.py --source DATASET --out FOLDER

The table has the PSNR of replays of the episodes trained on (what is fitted, not what is
generalised) with their own actions, against the first frame repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-size", type=int, nargs=2, default=(64, 80))
    parser.add_argument("--steps", type=int, nargs=2, default=(1500, 1500))
    given = parser.parse_args()
    out, (height, width) = given.out, given.image_size
    store, world = out / "store", out / "world-model"
    coding, denoising = given.steps
    size = f"{height} {width}"
    verbs = (
        f"prepare --source {given.source} --out {store} --image-size {size}",
        f"train autoencoder --store {store} --out {out / 'autoencoder'} "
        f"--model.image-size {size} --loop.steps {coding} --loop.batch 16",
        f"train world-model --store {store} --autoencoder {out / 'autoencoder'} --out {world} "
        f"--expectation --loop.steps {denoising} --loop.batch 8",
        f"replay --store {store} --starts {store} --world-model {world} --chunks 4 "
        f"--out {out / 'replay'}",
    )
    print("| verb | seconds |\n|---|---|")
    for words in verbs:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "worldeval", *words.split()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        name = words.split(" --")[0]
        print(f"| {name} | {time.perf_counter() - began:.1f} |", flush=True)
    print("\n" + (out / "replay/replay.md").read_text(encoding="utf-8").split("\n\n")[0])


if __name__ == "__main__":
    main()
