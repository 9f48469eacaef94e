"""Tables of trust on disk: beside the rollouts that they doubt.

Enters: folders of judged rollouts, a trust checkpoint, and the settings of second imaginations.
Leaves: trust.parquet and trust-chunks.parquet in each store. Signals that were measured already
with the same checkpoint and the same second imaginations are not measured again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.data import digests
from worldeval.data.tables import read_parquet, read_verdict_table
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.evaluation.folder import TRUST, VERDICTS, read_truth
from worldeval.evaluation.opening import (
    ImaginationOptions,
    adapter_of,
    fingerprint,
    open_imagination,
    stores_in,
    world_model_of,
)
from worldeval.judging.tables import MADE, check_current, kept_verdicts, write_table

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.trust.calibration import Evidence, TrustCalibration
    from worldeval.imagination.trust.signals import Seed, Trust
    from worldeval.types import Judge

log = logging.getLogger(__name__)

CHUNKS = "trust-chunks.parquet"
AGAIN = "again"
"""Folder of second imaginations, below that of the rollouts."""
FILE = "trust.json"
SPREAD = "seeds"
"""What the names of the signals begin with that come from second imaginations."""


def open_instrument(
    checkpoint: Path, autoencoder: Path | None, options: ImaginationOptions
) -> Trust:
    """The trust checkpoint with the autoencoder beside the world model, or the one given."""
    from worldeval.data.checkpoint import read_header
    from worldeval.imagination.env import default_device
    from worldeval.imagination.trust.signals import Trust
    from worldeval.world_model.loading import CTRL_WORLD

    if autoencoder is None:
        model = options.folder
        whole = read_header(model)["kind"] == CTRL_WORLD
        autoencoder = model if whole else model.parent / "autoencoder"
    return Trust.load(checkpoint, autoencoder, device=options.device or default_device())


def read_calibration(given: Path | None, checkpoint: Path) -> TrustCalibration | None:
    """The calibration given (a trust.json or its folder), else that beside the checkpoint, if any.

    Raises ConfigError if it is missing or damaged."""
    from worldeval.imagination.trust.calibration import TrustCalibration

    if given is not None:
        return TrustCalibration.load(given / FILE if given.is_dir() else given)
    beside = checkpoint / FILE
    return TrustCalibration.load(beside) if beside.is_file() else None


def check_world_model(folder: Path, options: ImaginationOptions) -> None:
    """Raise MismatchError unless ``options`` say how ``folder`` was imagined, as its run.json
    tells: by which world model, with which memory and sampler."""
    from worldeval.data.provenance import MANIFEST, read_manifest

    made, given = world_model_of(folder), fingerprint(str(options.folder))
    if made is not None and made != given:
        raise MismatchError(
            f"{folder} was imagined by world model {made}, {options.folder} is {given}; give the "
            "same with --world-model, or the second rollouts are imagined by another model"
        )
    places = [place for place in (folder, folder.parent) if (place / MANIFEST).is_file()]
    settings = read_manifest(places[0])["config"].get("imagination") if places else None
    for name in ("memory", "solver", "sampler_steps", "preset"):
        if settings and settings.get(name) != getattr(options, name):
            raise MismatchError(
                f"{folder} was imagined with {name} {settings.get(name)!r}, now it is "
                f"{getattr(options, name)!r}; give the same, or the spread over seeds tells of "
                "this difference"
            )


def imagine_seeds(
    folder: Path,
    stores: Sequence[Path],
    count: int,
    options: ImaginationOptions,
    judge: Judge,
    batch: int,
) -> list[Seed]:
    """``count`` second imaginations of all rollouts, judged; what is there is not made again."""
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.trust.other_seeds import imagine_again

    if not count:
        return []
    check_world_model(folder, options)
    world = open_imagination(options)
    adapter = adapter_of(world.robot, options)
    seeds = []
    for number in range(1, count + 1):
        below = folder / AGAIN / str(number)
        made = [
            imagine_again(
                world,
                EpisodeStore.open(place),
                below / place.name,
                number=number,
                batch=batch,
                adapter=adapter,
            ).root
            for place in stores
        ]
        seeds.append(read_seed(made, judge))
    world.close()
    return seeds


def read_seed(places: Sequence[Path], judge: Judge) -> Seed:
    """The second imaginations in ``places``, judged."""
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.trust.signals import Seed

    opened = tuple(EpisodeStore.open(place) for place in places)
    verdicts = [kept_verdicts(judge, store) for store in opened]
    return Seed(stores=opened, verdicts=pd.concat(verdicts, ignore_index=True))


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What the signals of every store of a folder are measured with."""

    trust: Trust
    digest: str
    seeds: tuple[Seed, ...]

    def store(self, place: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rollouts with verdict (columns judge, outcome) and signals, and chunks with signals."""
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.imagination.trust.signals import of_verdicts, rollouts_of

        verdicts = read_store_verdicts(place)
        store = EpisodeStore.open(place)
        chunks = self._chunks(store, place / CHUNKS)
        table = rollouts_of(store, chunks)
        table = of_verdicts(table, verdicts, [seed.verdicts for seed in self.seeds])
        return table, chunks

    def _chunks(self, store: EpisodeStore, path: Path) -> pd.DataFrame:
        """Signals of chunks, of which the disk may have those of the frames, or all."""
        again = " ".join(
            f"{s.root.resolve()}@{digests.of_store(s)}" for seed in self.seeds for s in seed.stores
        )
        kept = read_parquet(path) if path.is_file() else None
        known, made = sorted(store.keys), digests.of_store(store)
        if kept is not None:
            # What a store was measured with stands in the table itself, also if it has no rows.
            says = kept.attrs if {"instrument", "again", "keys"} <= set(kept.attrs) else {}
            if (
                says.get("instrument") != self.digest
                or says.get("keys") != known
                or says.get("made", made) != made
            ):
                kept = None
            elif says["again"] == again:
                if "made" not in says:
                    tell_unchecked(path)
                return kept
            else:
                kept = kept[[n for n in kept.columns if not str(n).startswith(SPREAD)]]
        chunks = self.trust.measure(store) if kept is None else kept
        if self.seeds:
            chunks = chunks.merge(self.trust.spread(store, self.seeds), on=["key", "chunk"])
        chunks.attrs = {"instrument": self.digest, "again": again, "keys": known, "made": made}
        write_table(chunks, path)
        return chunks

    def write(
        self, table: pd.DataFrame, place: Path, calibration: TrustCalibration | None
    ) -> pd.DataFrame:
        """Write trust.parquet with distrust and trusted, unknown without a calibration."""
        import pandas as pd

        from worldeval.data.store.episodes import EpisodeStore

        if calibration is None:
            unknown = pd.array([pd.NA] * len(table), dtype="boolean")
            table = table.assign(distrust=float("nan"), trusted=unknown)
        else:
            table = calibration.apply(table)
        table.attrs[MADE] = json.dumps(digests.of_episodes(EpisodeStore.open(place)))
        write_table(table.drop(columns="outcome"), place / TRUST)
        return table

    def evidence(
        self,
        stores: Sequence[Path],
        tables: Sequence[pd.DataFrame],
        chunks: Sequence[pd.DataFrame],
        truth: pd.DataFrame,
        acted: Path | None = None,
    ) -> Evidence:
        """Tables of rollouts and chunks with what truly happened; ``acted`` holds the imagined
        actions carried out in the true world."""
        import pandas as pd

        from worldeval.imagination.trust.calibration import Evidence

        chunk = self.trust.network.config.most_frames
        outcomes, errors = read_acted(acted, stores, chunk)
        return Evidence(
            table=pd.concat(tables, ignore_index=True),
            truth=truth,
            acted=outcomes,
            chunks=pd.concat(chunks, ignore_index=True),
            errors=errors,
        )


def tell_unchecked(path: Path) -> None:
    log.warning(
        "%s was measured by a version that kept no digest of the rollouts: whether these have "
        "changed since cannot be checked",
        path,
    )


def read_acted(
    acted: Path | None, stores: Sequence[Path], frames_per_chunk: int
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Of the imagined actions carried out in the true world: outcomes, and errors of frames."""
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.trust.measuring import true_errors

    if acted is None:
        return None, None
    imagined = [EpisodeStore.open(place) for place in stores]
    true = [EpisodeStore.open(place) for place in stores_in(acted)]
    return read_truth(acted), true_errors(imagined, true, frames_per_chunk)


def read_store_verdicts(place: Path) -> pd.DataFrame:
    """The verdicts on the rollouts of one store; DataError if it was not judged."""
    path = place / VERDICTS
    if not path.is_file():
        raise DataError(
            f"{place} is not judged, and trust doubts verdicts; run `worldeval judge {place}` first"
        )
    table = read_verdict_table(path)
    check_current(table, place)
    return table


def judges_of(stores: Sequence[Path]) -> set[str]:
    """Names of those who gave the verdicts on these stores; DataError if one was not judged."""
    return {str(name) for place in stores for name in read_store_verdicts(place)["judge"]}


def check_judges(stores: Sequence[Path], judge: Judge) -> None:
    """Raise MismatchError unless ``judge`` gave the verdicts on these stores."""
    for place in stores:
        others = set(read_store_verdicts(place)["judge"]) - {judge.name}
        if others:
            raise MismatchError(
                f"{place} was judged by {sorted(others)}, the second imaginations would be by "
                f"{judge.name!r}; give the same judge with --judge"
            )


def stores_of(again: Sequence[Path]) -> list[list[Path]]:
    """The stores of each folder of second imaginations."""
    if len(set(again)) < len(again):
        raise ConfigError(f"again names a folder twice: {[str(place) for place in again]}")
    return [stores_in(place) for place in again]
