"""Which sampler for the embedded world: replay PSNR against function evaluations.

    .venv/bin/python benchmarks/samplers.py recordings/validation [--episodes 24]

Replays held-out episodes autoregressively with each solver, number of steps and largest noise
level, and prints PSNR per view and the seconds. PSNR rewards the mean of what may happen: two Euler
steps are almost a regression to it. The shipped default, three, still decides between outcomes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.world_model.autoencoder import Autoencoder
from worldeval.world_model.latent_rollout import FrameRollouts
from worldeval.world_model.model import WorldModel
from worldeval.world_model.sampler import SamplerConfig
from worldeval.world_model.validation import replay_quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--world", type=Path, default=Path("checkpoints/world-model"))
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4, 6])
    parser.add_argument("--solvers", nargs="+", default=["euler", "heun", "dpmpp_2m"])
    parser.add_argument("--sigma-max", type=float, nargs="+", default=[8.0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = EpisodeStore.open(options.store)
    model = WorldModel.load(options.world)
    autoencoder = Autoencoder.load(options.world.parent / "autoencoder")
    print("| solver | steps | sigma max | NFE | " + " | ".join(model.config.views) + " | s |")
    print("|---|---|---|---|" + "---|" * len(model.config.views) + "---|")
    for solver, steps, high in itertools.product(options.solvers, options.steps, options.sigma_max):
        sampler = SamplerConfig(solver=solver, steps=steps, sigma_max=high)
        began = time.perf_counter()
        found = replay_quality(
            FrameRollouts(model, autoencoder, sampler=sampler), store, episodes=options.episodes
        )
        values = " | ".join(f"{found[f'psnr_{view}']:.2f}" for view in model.config.views)
        seconds = time.perf_counter() - began
        print(
            f"| {solver} | {steps} | {high:g} | {sampler.evaluations} | {values} | {seconds:.0f} |",
            flush=True,
        )
    first = " | ".join(f"{found[f'psnr_first_{view}']:.2f}" for view in model.config.views)
    print(f"| repeated first frame | | | 0 | {first} | |")


if __name__ == "__main__":
    main()
