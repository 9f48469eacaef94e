"""``worldeval trust``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldeval import shipped
from worldeval.evaluation.opening import ImaginationOptions

if TYPE_CHECKING:
    from worldeval.evaluation.trust import Measuring
    from worldeval.imagination.trust.calibration import Evidence
    from worldeval.imagination.trust.signals import Seed


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Tell which imagined rollouts not to believe: signals that imagination has left reality.

    Writes trust.parquet (one row per rollout) and trust-chunks.parquet (one row per chunk) beside
    the verdicts of each store. With a calibration, rollouts past its threshold are not trusted, and
    `worldeval rank` shows the rates with and without them. With --truth, it measures instead what
    each signal is worth; with --out too, it chooses weights and threshold and writes trust.json.

    For example:
      worldeval trust runs/mine
      worldeval trust runs/mine --seeds 1
      worldeval trust runs/other-starts --seeds 1 --truth runs/truth --out runs/trust-calibrated
      worldeval trust runs/mine --seeds 1 --calibration runs/trust-calibrated/trust.json
    """

    folder: tyro.conf.Positional[Path]
    """Folder of imagined rollouts, judged by `worldeval judge`."""
    checkpoint: Path = field(default_factory=lambda: shipped.folder() / shipped.TRUST)
    """Checkpoint that `worldeval train trust` wrote."""
    calibration: Path | None = None
    """Weights and threshold: a trust.json; that in the checkpoint's folder, if not given."""
    seeds: int = 0
    """Imagine the same actions again so many times, with other seeds; kept in FOLDER/again."""
    again: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Rollouts of the same actions with another seed that are there already; repeat it for
    several."""
    truth: Path | None = None
    """What truly happened from the same start states: a verdict table, or a folder of rollouts."""
    acted: Path | None = None
    """The imagined actions carried out in the true world (`worldeval rollout --policy
    replay:STORE --world ...`): true frames and outcomes of these very actions. With --truth."""
    out: Path | None = None
    """With --truth: folder for trust.json and trust.md."""
    share: float = 0.2
    """With --out: share of the rollouts to distrust."""
    families: Path | None = None
    """With --out: population.json, or its folder, that says of which family each policy is. Whole
    families are held out, and where doubt does not help these, rankings do not show it."""
    promise: float | None = None
    """With --out: most wrong verdicts among the rollouts that are kept (0.1), with 90 %
    confidence, in place of --share; where that cannot be promised, none is kept."""
    judge: str | None = None
    """Who judges second imaginations; the shipped judge, if not given."""
    autoencoder: Path | None = None
    """Checkpoint whose latents are measured; that beside the world model, if not given."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    batch: int = 8
    """Rollouts at once, with --seeds."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.data.checkpoint import digest
        from worldeval.errors import ConfigError, MismatchError
        from worldeval.evaluation import trust as tables
        from worldeval.evaluation.folder import TRUST, read_truth
        from worldeval.evaluation.opening import set_threads, stores_in, world_model_of
        from worldeval.reports.trust import evaluation_report

        if self.seeds < 0:
            raise ConfigError(f"seeds is {self.seeds}, expected 0 or more")
        if self.out is None and (self.families is not None or self.promise is not None):
            raise ConfigError("--families and --promise are for a calibration; give --out too")
        if self.promise is not None and not 0 < self.promise < 1:
            raise ConfigError(f"promise is {self.promise}, expected more than 0 and less than 1")
        if self.truth is None and (self.out is not None or self.acted is not None):
            raise ConfigError(
                "--out and --acted are for measuring signals, which needs the truth; give "
                "--truth too"
            )
        set_threads(self.threads)
        stores = stores_in(self.folder)
        instrument, calibration = digest(self.checkpoint), None
        if self.out is None:  # else it is being made
            calibration = tables.read_calibration(self.calibration, self.checkpoint)
        judges = tables.judges_of(stores)
        if calibration is not None:  # before the long work
            try:
                calibration.check(
                    world_model=world_model_of(self.folder),
                    instrument=instrument,
                    judges=judges,
                    seeds=bool(self.seeds or self.again),
                )
            except MismatchError as error:
                if self.calibration is not None:
                    raise
                # The one that came with the checkpoint: signals can be measured without.
                print(f"signals alone: {error}")
                calibration = None
        truth = None if self.truth is None else read_truth(self.truth)
        measuring = self._measuring(stores, instrument)
        chunks, told = [], []
        for place in stores:
            signals, of_chunks = measuring.store(place)
            chunks.append(of_chunks)
            told.append(measuring.write(signals, place, calibration))
            said = "no calibration, so none is distrusted"
            if calibration is not None:
                said = f"{int((told[-1]['trusted'] == False).sum())} not trusted"  # noqa: E712
                if calibration.helps is False:
                    said = "whom to trust is not told: it does not help families that are unseen"
            print(f"{place / TRUST}: {len(signals)} rollouts, {said}")
        if truth is None:
            return
        evidence = measuring.evidence(stores, told, chunks, truth, self.acted)
        if self.out is None:
            print(evaluation_report(evidence, calibration))
        else:
            self._calibrate(evidence, instrument, self.out)

    def _measuring(self, stores: list[Path], instrument: str) -> Measuring:
        from worldeval.evaluation import trust as tables
        from worldeval.judging.loading import load_judge

        trust = tables.open_instrument(self.checkpoint, self.autoencoder, self.imagination)
        seeds: list[Seed] = []
        if self.seeds or self.again:
            judge = load_judge(self.judge or shipped.folder() / shipped.JUDGE)
            tables.check_judges(stores, judge)
            seeds = [tables.read_seed(some, judge) for some in tables.stores_of(self.again)]
            seeds += tables.imagine_seeds(
                self.folder, stores, self.seeds, self.imagination, judge, self.batch
            )
        return tables.Measuring(trust=trust, digest=instrument, seeds=tuple(seeds))

    def _calibrate(self, evidence: Evidence, instrument: str, out: Path) -> None:
        from worldeval.data.provenance import write_atomically, write_manifest
        from worldeval.evaluation.opening import world_model_of
        from worldeval.evaluation.trust import FILE
        from worldeval.imagination.trust.calibration import calibrate_trust
        from worldeval.policies.population import families_of
        from worldeval.reports.trust import calibration_report

        write_manifest(out, command="trust", config=self, seed=0, allow_changes=True)
        calibration = calibrate_trust(
            evidence,
            world_model=world_model_of(self.folder),
            instrument=instrument,
            share=self.share,
            families=None if self.families is None else families_of(self.families),
            promised=self.promise,
        )
        text = calibration_report(calibration)
        write_atomically(out / "trust.md", text + "\n")
        print(text)
        print(calibration.save(out / FILE))
