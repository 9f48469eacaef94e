"""``worldeval probe``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import ImaginationOptions


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measure whether the imagined arm does what was commanded.

    Imagines recorded actions, another episode's and random ones, and reads the motion back from
    the frames with the inverse dynamics of a trust checkpoint. Gain, by axis: 1 goes as far as was
    commanded, 0.5 half the way. Error, by chunk: 0 is exact, 1 as bad as standing still.
    Contacts and what the gripper does to objects are not measured.

    For example:
      worldeval probe --store recordings/validation --out runs/probe
      worldeval probe checkpoints/world-model --store recordings/validation --out runs/probe
    """

    world_model: tyro.conf.Positional[Path | None] = None
    """Checkpoint of the world model; the shipped one, if not given."""
    store: Path
    """Store of recorded episodes that the model was not trained on."""
    out: Path
    """Folder for the imagined episodes, probe.json and probe.md."""
    trust: Path = field(default_factory=lambda: shipped.folder() / shipped.TRUST)
    """Trust checkpoint whose inverse dynamics reads the frames; its autoencoder lies beside it."""
    episodes: int = 8
    """So many start states, spread evenly over the store."""
    chunks: int = 10
    """How far to imagine."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    batch: int = 8
    """Episodes at once."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.data import digests
        from worldeval.data.provenance import write_atomically, write_manifest
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.opening import (
            adapter_of,
            commanded_as_recorded,
            fingerprint,
            imagination_content,
            open_imagination,
            set_threads,
        )
        from worldeval.evaluation.trust import open_instrument
        from worldeval.imagination.probe import to_markdown
        from worldeval.imagination.probing import probe_world

        for name in ("episodes", "chunks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        options = self.imagination
        if self.world_model is not None:
            if options.world_model is not None:
                raise ConfigError("the world model is given twice; leave --world-model away")
            options = replace(options, world_model=self.world_model)
        set_threads(self.threads)
        source = EpisodeStore.open(self.store)
        options = commanded_as_recorded(options, source)
        instrument = open_instrument(self.trust, self.trust.parent / "autoencoder", options)
        world = open_imagination(options, source)
        config = {
            "store": self.store,
            "world_model": fingerprint(str(options.folder)),
            "trust": fingerprint(str(self.trust)),
            "imagination": options,
            "episodes": self.episodes,
            "chunks": self.chunks,
        }
        write_manifest(
            self.out,
            command="probe",
            config=config,
            seed=0,
            extra={"options": self},
            content=digests.of_inputs(self.store) | imagination_content(options),
        )
        probes = probe_world(
            world,
            instrument.network,
            source,
            self.out,
            episodes=self.episodes,
            chunks=self.chunks,
            batch=self.batch,
            adapter=adapter_of(world.robot, options),
        )
        text = to_markdown(probes)
        content = json.dumps([probe.to_dict() for probe in probes], indent=1, allow_nan=False)
        write_atomically(self.out / "probe.json", content + "\n")
        write_atomically(self.out / "probe.md", text)
        print(text)
