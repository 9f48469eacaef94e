"""``worldeval prepare``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn recorded robot episodes into a store of worldeval, with cached latents.

    Reads the layout of the Ctrl-World release (annotation/, videos/, latent_videos/) and DROID as
    a LeRobot dataset v2.1 or v3.0. Writes frames at 5 Hz, absolute poses, joints, the percentiles
    of the poses (statistics.json), and the latents of every frame if they are asked for. An
    interrupted run goes on where it stopped.

    Episodes that cannot be used (a video missing, damaged or of another length, NaN in a state,
    rows or times that contradict each other, shorter than a clip) are named and
    listed in OUT/skipped.json, the others are prepared. The same command again tries them anew.

    Exit codes: 0 all prepared, 1 some left out (0 with --skip-damaged), 2 none, or the dataset or
    an option cannot be used, 130 interrupted.

    For example:
      worldeval prepare --source ../shared/droid --published-latents --out recordings/droid/train
      worldeval prepare --source ../shared/droid --split val --published-latents \\
          --out recordings/droid/val
      worldeval prepare --source droid_1.0.1 --encoder models/ctrl-world --workers 16 \\
          --out recordings/droid-full
    """

    source: Path
    """Folder of the dataset."""
    out: Path
    """Folder of the store to write (LeRobotDataset v3.0, latents/, statistics.json)."""
    layout: Literal["auto", "ctrl-world", "lerobot"] = "auto"
    """How the dataset is laid out; auto looks at what the folder holds."""
    split: str = "train"
    """Part of the dataset: train or val in Ctrl-World's layout; in LeRobot's as info.json says, or
    all for every episode of its index."""
    encoder: Path | None = None
    """Checkpoint whose autoencoder makes the latents of the frames."""
    published_latents: bool = False
    """Copy the latents that come with the dataset (of Stable Video Diffusion's autoencoder)."""
    latent_dtype: Literal["float16", "float32"] = "float16"
    """Type in which latents are kept."""
    image_size: tuple[int, int] = (192, 320)
    """Height and width of the frames in px; others are resized by area."""
    min_frames: int = 5
    """Shorter episodes are left out: a clip has the current frame and four new ones."""
    instruction: str | None = None
    """What episodes are given whose instruction is not known; else they are kept without words."""
    key_map: Path | None = None
    """JSON file that says how a LeRobot dataset spells its columns; those of DROID are known."""
    limit: int | None = None
    """Only so many episodes, the first; all, if not given."""
    workers: int = 2
    """Processes that decode and encode."""
    device: str | None = None
    """Where the encoder runs: cpu or cuda; a GPU if there is one."""
    skip_damaged: bool = False
    """Exit with 0 even if episodes had to be left out."""

    def run(self) -> int:
        from worldeval.data import digests
        from worldeval.data.provenance import write_manifest
        from worldeval.world_model.prepare import SKIPPED, PrepareConfig, prepare

        config = PrepareConfig(
            source=self.source,
            layout=self.layout,
            split=self.split,
            encoder=self.encoder,
            published_latents=self.published_latents,
            latent_dtype=self.latent_dtype,
            image_size=self.image_size,
            min_frames=self.min_frames,
            instruction=self.instruction,
            key_map=self.key_map,
            limit=self.limit,
            workers=self.workers,
            device=self._device(),
        )
        write_manifest(
            self.out,
            command="prepare",
            config=config,
            seed=None,
            content=digests.of_inputs(self.key_map),
            allow_changes=(
                "limit",
                "workers",
                "device",
                "encoder",
                "published_latents",
                "instruction",
            ),  # fmt: skip
        )
        report = prepare(config, self.out)
        for warning in report.warnings:
            print(f"worldeval: {warning}", file=sys.stderr)
        for skipped in report.skipped:
            print(f"worldeval: skipped {skipped.id}: {skipped.reason}", file=sys.stderr)
        print(
            f"{self.out}: {report.written} episodes prepared, {report.present} were there, "
            f"{len(report.skipped)} skipped" + (f" ({SKIPPED})" if report.skipped else "")
        )
        return 1 if report.skipped and not self.skip_damaged else 0

    def _device(self) -> str:
        if self.device is not None or self.encoder is None:
            return self.device or "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
