"""Verdict tables on disk: beside the rollouts that they judge.

Enters: folders of rollouts, judged or not. Leaves: pandas tables for ``worldeval.ranking``, and the
leaderboard made from them. A store that this judge has judged already, wholly, is not judged again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.commands.opening import stores_in
from worldeval.errors import DataError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.ranking.clips import Clip
    from worldeval.types import Judge

VERDICTS = "verdicts.parquet"
TRUTH = "truth.parquet"


def judge_folder(judge: Judge, place: Path) -> pd.DataFrame:
    """Verdicts on every rollout of the store at ``place``, kept in its verdicts.parquet."""
    from worldeval.data.episodes import EpisodeStore
    from worldeval.judging.classifier import judge_store

    store = EpisodeStore.open(place)
    path = place / VERDICTS
    if path.is_file():
        table = read_table(path)
        if set(table["judge"]) <= {judge.name} and set(table["key"]) == store.keys:
            return table
    return judge_store(judge, store, path)


def read_verdicts(folder: Path) -> pd.DataFrame:
    """The verdicts on all rollouts of a folder, or a verdict table itself."""
    import pandas as pd

    if folder.is_file():
        return read_table(folder)
    tables = []
    for place in stores_in(folder):
        if not (place / VERDICTS).is_file():
            raise DataError(f"{place} is not judged; run `worldeval judge {folder}` first")
        tables.append(read_table(place / VERDICTS))
    return pd.concat(tables, ignore_index=True)


def read_truth(place: Path) -> pd.DataFrame:
    """What truly happened: a verdict table, or what the world said in a folder of rollouts."""
    import pandas as pd

    from worldeval.data.episodes import EpisodeStore
    from worldeval.rollout.table import rollout_table

    if place.is_file():
        return read_table(place)
    tables = [rollout_table(EpisodeStore.open(store)) for store in stores_in(place)]
    return pd.concat(tables, ignore_index=True)


def read_table(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as a parquet table ({reason}); make it again"
        ) from error


def write_ranking(
    imagined: pd.DataFrame,
    real: pd.DataFrame | None,
    out: Path,
    *,
    seed: int = 0,
    clips: Sequence[Clip] = (),
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Write ``leaderboard.json`` and ``report.html`` into ``out``; the leaderboard as text."""
    from worldeval.ranking.leaderboard import build_leaderboard
    from worldeval.ranking.report import write_report

    board = build_leaderboard(imagined, real, seed=seed)
    board.to_json(out / "leaderboard.json")
    write_report(out / "report.html", board, clips=clips, provenance=provenance)
    encoding = (sys.stdout.encoding or "ascii").lower()
    return board.to_text(unicode=encoding.startswith("utf"))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a parquet table wholly or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        table.to_parquet(part, index=False)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder"
        ) from error
