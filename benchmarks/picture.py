"""The README's picture, from a finished demo: imagination above truth, and the agreement.

.venv/bin/worldeval demo --full --out runs/full
.venv/bin/python benchmarks/picture.py runs/full --out docs/demo.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from worldeval import shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import tile_views
from worldeval.rollout.recording import rollout_key


def strip(frames: np.ndarray, times: list[int]) -> np.ndarray:
    """Frames (T, V, H, W, 3) at some times, side by side."""
    tiles = tile_views(frames[[min(t, len(frames) - 1) for t in times]])
    return np.concatenate(list(tiles), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--policy", default="full")
    parser.add_argument("--tasks", nargs="+", default=["drawer-open", "button-press", "reach"])
    parser.add_argument("--out", type=Path, default=Path("docs/demo.png"))
    options = parser.parse_args()
    truth = EpisodeStore.open(shipped.path(shipped.TRUTH_CLIPS))
    folder = next((options.demo / "rollouts").glob(f"{options.policy}@*"))
    imagined = EpisodeStore.open(folder)
    board = json.loads((options.demo / "leaderboard.json").read_text())
    times = [0, 8, 16, 24]
    figure = plt.figure(figsize=(13, 1.9 * len(options.tasks) + 0.4), dpi=110)
    grid = figure.add_gridspec(
        2 * len(options.tasks), 2, width_ratios=(3.1, 1), wspace=0.12, hspace=0.45
    )
    for row, task in enumerate(options.tasks):
        key = rollout_key(options.policy, f"{task}/evaluation/0000")
        for below, store in enumerate((imagined, truth)):
            axes = figure.add_subplot(grid[2 * row + below, 0])
            axes.imshow(strip(store.by_key(key).frames, times), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_ylabel(("imagined", "true")[below], fontsize=8)
            if not below:
                axes.set_title(f"“{store.by_key(key).instruction}”", fontsize=9, loc="left", pad=3)
    axes = figure.add_subplot(grid[:, 1])
    for policy in board["policies"]:
        x, y = policy["true"], policy["imagined"]
        axes.errorbar(
            x["rate"],
            y["rate"],
            fmt="o",
            ms=4,
            lw=0.8,
            color="#2b6cb0",
            xerr=[[x["rate"] - x["low"]], [x["high"] - x["rate"]]],
            yerr=[[y["rate"] - y["low"]], [y["high"] - y["rate"]]],
        )
        axes.annotate(
            policy["name"],
            (x["rate"], y["rate"]),
            fontsize=7,
            xytext=(3, 3),
            textcoords="offset points",
        )
    axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, zorder=0)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel="true success rate",
        ylabel="imagined success rate",
    )
    axes.set_title(
        f"Pearson {board['agreement']['pearson']:.2f}, {board['agreement']['policies']} policies",
        fontsize=9,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, bbox_inches="tight")


if __name__ == "__main__":
    main()
