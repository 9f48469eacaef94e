"""``worldeval prepare``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DROID_SIZE = (192, 320)
_MAY_CHANGE = ("limit", "workers", "device", "encoder", "published_latents", "instruction")
"""Settings that may change in a store that has episodes; in one that has none, all may."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn recorded robot episodes into a store of worldeval, with cached latents.

    Reads LeRobot datasets v2.1 and v3.0 of any robot, DROID among them, and the layout of the
    Ctrl-World release (annotation/, videos/, latent_videos/). Writes frames at the robot's frame
    rate (DROID's at 5 Hz), the actions between them, poses, joints, the percentiles of the poses
    (statistics.json), and the latents of every frame if they are asked for. An interrupted run
    goes on where it stopped.

    The robot (--robot) says the rates, the size of the frames, and by name which views and numbers
    are taken. Of a dataset that is not DROID's, without --robot, a first robot is written to
    OUT/robot.toml: names, rate, views and sizes out of info.json, bounds out of stats.json. Where
    its actions evidently are targets of joints it is used at once; else correct it and run the
    same command again.

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
      worldeval prepare --source my_so101_dataset --out recordings/so101
      worldeval prepare --source my_so101_dataset --robot my_robot.toml --out recordings/so101
    """

    source: Path
    """Folder of the dataset."""
    out: Path
    """Folder of the store to write (LeRobotDataset v3.0, latents/, statistics.json)."""
    layout: str = "auto"
    """How the dataset is laid out: ctrl-world, lerobot, the name of a registered reader, or
    module:attr of one; auto looks at what the folder holds."""
    split: str = "train"
    """Part of the dataset: train or val in Ctrl-World's layout; in LeRobot's as info.json says, or
    all for every episode of its index."""
    encoder: Path | None = None
    """Checkpoint whose autoencoder makes the latents of the frames."""
    published_latents: bool = False
    """Copy the latents that come with the dataset (of Stable Video Diffusion's autoencoder)."""
    latent_dtype: Literal["float16", "float32"] = "float16"
    """Type in which latents are kept."""
    robot: str | None = None
    """The dataset's robot: its TOML file, a name (`worldeval robots` lists them), or module:attr;
    if not given, DROID's Panda where the columns are DROID's, else OUT/robot.toml."""
    image_size: tuple[int, int] | None = None
    """Height and width of the frames in px, others are resized by area; the robot's, if not
    given, and 192 320 for DROID."""
    min_frames: int = 5
    """Shorter episodes are left out: a clip has the current frame and four new ones."""
    instruction: str | None = None
    """What episodes are given whose instruction is not known; else they are kept without words."""
    key_map: Path | None = None
    """JSON file that says how a LeRobot dataset spells its views and columns, where they are
    called neither like the robot's nor like DROID's."""
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
        from worldeval.data.provenance import jsonable, write_manifest
        from worldeval.world_model.prepare import SKIPPED, PrepareConfig, prepare
        from worldeval.world_model.prepare_robot import sized_robot

        robot, told = sized_robot(
            self.source, self.out, self.layout, self.robot, self.key_map, self.image_size
        )
        for sentence in told:
            print(f"worldeval: {sentence}", file=sys.stderr)
        config = PrepareConfig(
            source=self.source,
            layout=self.layout,
            split=self.split,
            encoder=self.encoder,
            published_latents=self.published_latents,
            latent_dtype=self.latent_dtype,
            image_size=self.image_size or (DROID_SIZE if robot is None else robot.image_size),
            min_frames=self.min_frames,
            instruction=self.instruction,
            key_map=self.key_map,
            limit=self.limit,
            workers=self.workers,
            device=self._device(),
            robot=robot,
        )
        settings = jsonable(config)
        if robot is None:  # as before there were others
            del settings["robot"]
        write_manifest(
            self.out,
            command="prepare",
            config=settings,
            seed=None,
            content=digests.of_inputs(self.key_map),
            allow_changes=_MAY_CHANGE if any(self.out.glob("data/*/*.parquet")) else True,
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
