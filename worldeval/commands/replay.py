"""``worldeval replay``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.opening import ImaginationOptions


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Imagine recorded episodes again from their first frame and measure the difference.

    PSNR and SSIM per view and chunk, with the episode's own actions, another episode's, none, and
    against repeating the first frame. A model whose own actions do not win ignores them.

    For example:
      worldeval replay --store recordings/validation --out runs/replay
      worldeval replay --store recordings/training --episodes 400 --label --out runs/replays
    """

    store: Path
    """Store of recorded episodes that the model was not trained on."""
    out: Path
    """Folder for the imagined episodes, replay.json and replay.md."""
    episodes: int | None = None
    """So many, spread evenly over the store; all, if not given."""
    chunks: int = 10
    """How far to imagine."""
    label: bool = False
    """Only replay the episodes' own actions, and write them with their true outcome to
    OUT/labelled: what a judge of imagined rollouts is trained on."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    batch: int = 8
    """Episodes at once."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.data import digests
        from worldeval.data.provenance import jsonable, write_atomically, write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.opening import (
            adapter_of,
            commanded_as_recorded,
            fingerprint,
            imagination_content,
            open_imagination,
            set_threads,
        )
        from worldeval.imagination.replay import (
            VARIANTS,
            fidelity,
            imagine_replays,
            label_replays,
        )

        set_threads(self.threads)
        source = EpisodeStore.open(self.store)
        options = commanded_as_recorded(self.imagination, source)
        world = open_imagination(options, source)
        adapter = adapter_of(world.robot, options)
        config = {
            "store": self.store,
            "world_model": fingerprint(str(self.imagination.folder)),
            "imagination": self.imagination,
            "chunks": self.chunks,
        }
        write_manifest(
            self.out,
            command="replay",
            config=config,
            seed=0,
            extra={"options": self},
            content=digests.of_inputs(self.store) | imagination_content(self.imagination),
        )
        imagined = {
            variant: imagine_replays(
                world,
                source,
                self.out / variant,
                variant=variant,
                chunks=self.chunks,
                batch=self.batch,
                limit=self.episodes,
                adapter=adapter,
            )
            for variant in (VARIANTS[:1] if self.label else VARIANTS)
        }
        if self.label:
            print(label_replays(imagined["own"], source, self.out / "labelled").root)
            return
        robot = world.robot
        report = fidelity(source, imagined, robot.views, robot.frames_per_chunk)
        text = report.to_markdown()
        write_atomically(self.out / "replay.json", json.dumps(jsonable(report.to_json()), indent=1))
        write_atomically(self.out / "replay.md", text)
        print(text)
