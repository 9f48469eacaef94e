"""Train the embedded world on one GPU in slices of at most ten minutes.

    python benchmarks/gpu_train.py --data recordings/gpu --out OUT --minutes 9

Each call goes on where the last one stopped: from the state in ``--work`` if that is still there,
else from the checkpoints in ``--start`` (weights only). It writes ``OUT/autoencoder`` and
``OUT/world-model`` (shards of at most 16 MiB) and ``OUT/metrics.jsonl``, also when time runs out.
The data is a store recorded with ``worldeval record --images video``, which is small enough to
travel; see ``benchmarks/gpu.md``.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import time
from pathlib import Path

import torch

from worldeval.learning.config import LoopConfig
from worldeval.world_model.autoencoder import AutoencoderConfig
from worldeval.world_model.autoencoder_training import AutoencoderTrainConfig, train_autoencoder
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.training import (
    WorldModelTrainConfig,
    train_world_model,
)
from worldeval.worlds.sawyer import ROBOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--validation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--start", type=Path, help="folder with an autoencoder to keep")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--autoencoder-steps", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--widths", type=int, nargs=2, default=(96, 192))
    options = parser.parse_args()
    precision = "bf16" if torch.cuda.is_available() else "no"

    def out_of_time(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)  # as Ctrl-C, at which a training saves its state

    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, options.minutes * 60)
    began = time.time()
    autoencoder = options.work / "autoencoder"
    if options.start and not autoencoder.exists():
        shutil.copytree(options.start / "autoencoder", autoencoder)
    try:
        if not (autoencoder / "config.json").exists():
            train_autoencoder(
                AutoencoderTrainConfig(
                    store=options.data,
                    model=AutoencoderConfig(),
                    loop=LoopConfig(
                        steps=options.autoencoder_steps,
                        batch=256,
                        learning_rate=1e-3,
                        save_every_s=30,
                    ),
                ),
                autoencoder,
            )
        train_world_model(
            WorldModelTrainConfig(
                store=options.data,
                autoencoder=str(autoencoder),
                validation=options.validation,
                backbone=BackboneConfig(widths=tuple(options.widths)),
                loop=LoopConfig(
                    steps=options.steps,
                    batch=options.batch,
                    learning_rate=8e-4,
                    ema=0.9995,
                    mixed_precision=precision,
                    save_every_s=60,
                ),
            ),
            options.work / "world-model",
            ROBOT,
        )
        print("finished")
    except KeyboardInterrupt:
        print("time is up; run the same command again to go on")
    signal.setitimer(signal.ITIMER_REAL, 0)
    for name in ("autoencoder", "world-model"):
        folder = options.work / name
        for path in [*folder.glob("config.json"), *folder.glob("weights-*.safetensors")]:
            (options.out / name).mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, options.out / name)
        metrics = folder / "training" / "metrics.jsonl"
        if metrics.is_file():
            shutil.copy2(metrics, options.out / name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{time.time() - began:.0f} s on {device}")


if __name__ == "__main__":
    main()
