"""``worldeval probe``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import ImaginationOptions

if TYPE_CHECKING:
    from worldeval.imagination.physics_probe import PhysicsProbe
    from worldeval.imagination.probe import MotionProbe


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measure what a world model makes of actions: gain, contacts, grippers, memory, long rollouts.

    Motions are carried out in the simulator and imagined from the same first frames. Gain, by axis:
    1 goes as far as was commanded. Invented contact: what moves untouched; omitted contact: what
    stays though pushed. The same motion with another gripper: what changes, against what truly
    changes. Also of recordings, with --store: their own actions, another episode's, and random
    ones. Minutes; what is there is not made again.

    For example:
      worldeval probe --out runs/probe
      worldeval probe runs/world/world-model --store recordings/validation --out runs/probe
    """

    world_model: tyro.conf.Positional[Path | None] = None
    """Checkpoint of the world model; the shipped one, if not given."""
    store: Path | None = None
    """Store of recorded episodes that the model was not trained on; needed for other robots than
    the simulator's."""
    out: Path
    """Folder for the episodes, true and imagined, probe.json and probe.md."""
    physics: bool = True
    """Compare with the simulator. Off: the motions of --store alone."""
    trust: Path = field(default_factory=lambda: shipped.folder() / shipped.TRUST)
    """Trust checkpoint whose inverse dynamics reads the frames; its autoencoder lies beside it."""
    judge: str | None = None
    """Who says whether imagined motions with another gripper succeed; the shipped judge, if not
    given."""
    policy: str | None = None
    """Policy whose motions are probed beside experts', people's and random ones; the best shipped
    one, if not given."""
    per_task: int = 1
    """Start states of each task and kind of motion, in the simulator."""
    grips: int = 2
    """Start states of each task for motions with another gripper."""
    long: int = 2
    """Rollouts of 40 chunks."""
    episodes: int = 8
    """So many start states of --store, spread evenly over it."""
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
        from worldeval.evaluation.opening import (
            fingerprint,
            imagination_content,
            set_threads,
        )
        from worldeval.reports.probe import probe_report

        for name in ("episodes", "chunks", "per_task", "grips", "long"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.store is None and not self.physics:
            raise ConfigError("nothing to probe: give --store, or leave --no-physics away")
        options = self.imagination
        if self.world_model is not None:
            if options.world_model is not None:
                raise ConfigError("the world model is given twice; leave --world-model away")
            options = replace(options, world_model=self.world_model)
        set_threads(self.threads)
        judge, policy = self._helpers()
        config = {
            "store": self.store,
            "world_model": fingerprint(str(options.folder)),
            "trust": fingerprint(str(self.trust)),
            "imagination": options,
            "episodes": self.episodes,
            "chunks": self.chunks,
            "policy": fingerprint(policy) or policy,
        }
        inputs = () if self.store is None else (self.store,)
        write_manifest(
            self.out,
            command="probe",
            config=config,
            seed=0,
            extra={"options": self},
            content=digests.of_inputs(*inputs) | imagination_content(options),
        )
        recorded = [] if self.store is None else self._recorded(options, self.store)
        physics, why_not = self._physics(options, judge, policy)
        text = probe_report(recorded, physics, why_not)
        content = {
            "motions_of_recordings": [probe.to_dict() for probe in recorded],
            "physics": None if physics is None else physics.to_dict(),
            "why_not": why_not or None,
        }
        write_atomically(
            self.out / "probe.json", json.dumps(content, indent=1, allow_nan=False) + "\n"
        )
        write_atomically(self.out / "probe.md", text)
        print(text)

    def _helpers(self) -> tuple[str, str]:
        judge = self.judge or str(shipped.folder() / shipped.JUDGE)
        return judge, self.policy or str(shipped.folder() / shipped.POLICIES / "full")

    def _recorded(self, options: ImaginationOptions, place: Path) -> list[MotionProbe]:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.opening import (
            adapter_of,
            commanded_as_recorded,
            open_imagination,
        )
        from worldeval.evaluation.trust import open_instrument
        from worldeval.imagination.probing import probe_world

        source = EpisodeStore.open(place)
        options = commanded_as_recorded(options, source)
        instrument = open_instrument(self.trust, self.trust.parent / "autoencoder", options)
        world = open_imagination(options, source)
        return probe_world(
            world,
            instrument.network,
            source,
            self.out,
            episodes=self.episodes,
            chunks=self.chunks,
            batch=self.batch,
            adapter=adapter_of(world.robot, options),
        )

    def _physics(
        self, options: ImaginationOptions, judge: str, policy: str
    ) -> tuple[PhysicsProbe | None, str]:
        """None and the reason, where there is no simulator for this world model."""
        from worldeval.errors import MismatchError, MissingDependencyError
        from worldeval.evaluation.opening import open_imagination
        from worldeval.evaluation.trust import open_instrument
        from worldeval.judging.loading import load_judge

        if not self.physics:
            return None, "--no-physics was given"
        try:
            from worldeval.imagination.physics_probe import Size, probe_physics

            instrument = open_instrument(self.trust, self.trust.parent / "autoencoder", options)
            found = probe_physics(
                open_imagination(options),
                instrument.network,
                load_judge(judge),
                policy,
                self.out,
                size=Size(starts=self.per_task, grips=self.grips, long=self.long),
                chunks=self.chunks,
                batch=self.batch,
            )
        except (MismatchError, MissingDependencyError) as error:
            if self.store is None:
                raise
            return None, str(error)
        return found, ""
