"""``worldeval import ctrl-world`` and ``worldeval import svd``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Preset = Literal["published", "improved"]


@dataclass(frozen=True, kw_only=True)
class ImportCtrlWorld:
    """Turn the published Ctrl-World release into a checkpoint folder of worldeval.

    Nothing is run from the files, every tensor is accounted for, and memory stays below one and a
    half times the checkpoint. The image encoder, which is never used, is left out.

    For example:
      worldeval import ctrl-world --svd stable-video-diffusion-img2vid \\
          --clip clip-vit-base-patch32 --checkpoint checkpoint-10000.pt --out models/ctrl-world
      worldeval replay --world-model models/ctrl-world --store recordings/droid --out runs/replay
    """

    svd: Path
    """Folder of stable-video-diffusion-img2vid; only its unet and vae config.json are read."""
    clip: Path
    """Folder of clip-vit-base-patch32; its config.json and its tokenizer are read."""
    checkpoint: Path
    """The release's weights: a state dict (.pt) or safetensors."""
    out: Path
    """Folder for the checkpoint."""
    preset: Preset = "published"
    """published: sampled to the letter. improved: views decoded apart, float32 latents, 30 steps
    at the noise levels that training saw. It can be changed later without importing again."""
    statistics: Path | None = None
    """stat.json of the release or statistics.json of `worldeval prepare`: the 1st and 99th
    percentiles of poses; DROID's as published, if not given."""

    def run(self) -> None:
        from worldeval.world_model.ctrl_world.importing import import_ctrl_world

        print(
            import_ctrl_world(
                self.svd,
                self.clip,
                self.checkpoint,
                self.out,
                preset=self.preset,
                statistics=self.statistics,
            )
        )


@dataclass(frozen=True, kw_only=True)
class ImportSvd:
    """Start a new world model from Stable Video Diffusion, to be trained on your robot's data.

    The backbone, the autoencoder and CLIP's text tower are taken over; the action encoder begins
    at random, from a seed that is kept in the checkpoint.

    For example:
      worldeval import svd --svd stable-video-diffusion-img2vid --clip clip-vit-base-patch32 \\
          --statistics recordings/mine/statistics.json --out models/new
    """

    svd: Path
    """Folder of stable-video-diffusion-img2vid, with the weights of its unet and vae."""
    clip: Path
    """Folder of clip-vit-base-patch32, with its weights and its tokenizer."""
    out: Path
    """Folder for the checkpoint."""
    preset: Preset = "improved"
    """How it samples; see `worldeval import ctrl-world --help`."""
    statistics: Path | None = None
    """stat.json of the release or statistics.json of `worldeval prepare`: the 1st and 99th
    percentiles of poses; DROID's as published, if not given."""
    seed: int = 0
    """Of the action encoder's first weights."""

    def run(self) -> None:
        from worldeval.world_model.ctrl_world.importing import import_svd

        print(
            import_svd(
                self.svd,
                self.clip,
                self.out,
                preset=self.preset,
                statistics=self.statistics,
                seed=self.seed,
            )
        )
