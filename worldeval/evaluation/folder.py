"""Verdict tables on disk: beside the rollouts that they judge.

Enters: folders of rollouts, judged or not. Leaves: pandas tables for ``worldeval.ranking``, and the
leaderboard made from them. A store that this judge has judged already, wholly, is not judged again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.data.files import load_json
from worldeval.data.tables import (
    CELL,
    DECIDED,
    DISTRUST,
    KEY,
    TRUSTED,
    Table,
    read_parquet,
    read_truth_table,
    read_verdict_table,
)
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.evaluation.opening import stores_in, world_model_of
from worldeval.judging.tables import check_current, kept_verdicts, write_table

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.ranking.leaderboard.corrections import JudgeErrors
    from worldeval.ranking.leaderboard.leaderboard import Leaderboard
    from worldeval.ranking.outcome_counts import Weights
    from worldeval.reports.ranking.clips import Clip
    from worldeval.types import Judge

VERDICTS = "verdicts.parquet"
TRUTH = "truth.parquet"
TRUST = "trust.parquet"


def judge_folder(judge: Judge, place: Path) -> pd.DataFrame:
    """Verdicts on every rollout of the store at ``place``.

    Kept as this judge's own table, and in verdicts.parquet, which rankings read. A model's answers
    that could not be read are reported; JudgeError if none of them could.
    """
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.judging.vlm.unread import summary
    from worldeval.terminal import printable

    table = kept_verdicts(judge, EpisodeStore.open(place))
    if told := summary(table, judge.name):
        print(printable(told), file=sys.stderr)
    write_table(table, place / VERDICTS)
    return table


def keep_truth(table: pd.DataFrame, folder: Path) -> None:
    """Write what the world knows of its rollouts (``rollout_table``), if it knows anything."""
    known = int(table["outcome"].isin(DECIDED).sum())
    if known:
        write_table(table, folder / TRUTH)
        print(f"{known} outcomes in {folder / TRUTH}")


def check_labels(judges: Sequence[Judge], stores: Iterable[EpisodeStore], where: Path) -> list[str]:
    """Sentences on people's labels and the rollouts of ``stores`` that do not meet.

    Raises MismatchError if none of a judge's labels names one, before anything is written.
    """
    from worldeval.judging.human import HumanJudge

    people = [judge for judge in judges if isinstance(judge, HumanJudge)]
    if not people:
        return []
    rollouts: list[dict[str, Any]] = []
    for store in stores:
        if len(store):
            table = store.metadata()
            names = [name for name in (*KEY, *CELL) if name in table.columns]
            rollouts += table[names].to_dict("records")
    return [told for judge in people for told in judge.check(rollouts, str(where))]


def read_verdicts(folder: Path) -> pd.DataFrame:
    """The verdicts on all rollouts of a folder, or a verdict table itself."""
    import pandas as pd

    if folder.is_file():
        return read_verdict_table(folder)
    tables = []
    for place in stores_in(folder):
        if not (place / VERDICTS).is_file():
            raise DataError(f"{place} is not judged; run `worldeval judge {folder}` first")
        table = read_verdict_table(place / VERDICTS)
        check_current(table, place)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_truth(place: Path) -> pd.DataFrame:
    """What truly happened: a table (``data.tables``), or what the world said in a folder."""
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.rollout.table import rollout_table

    if place.is_file():
        return read_truth_table(place)
    tables = [rollout_table(EpisodeStore.open(store)) for store in stores_in(place)]
    return pd.concat(tables, ignore_index=True)


def read_trust(folder: Path) -> pd.DataFrame | None:
    """What `worldeval trust` found of the rollouts of a folder; None where it was not run.

    None too where it was run without a threshold that tells whom to distrust.
    """
    import pandas as pd

    if folder.is_file():
        return None
    stores = stores_in(folder)
    known = [place for place in stores if (place / TRUST).is_file()]
    if not known:
        return None
    if len(known) < len(stores):
        without = next(place for place in stores if place not in known)
        raise DataError(
            f"{len(known)} of {len(stores)} stores in {folder} have a {TRUST}, {without} has none; "
            f"run `worldeval trust {folder}` for all of them"
        )
    parts = [read_parquet(place / TRUST) for place in known]
    for place, part in zip(known, parts, strict=True):
        check_current(part, place, "trust")
        if TRUSTED in part.columns:
            found = Table.of(part, str(place / TRUST))
            part[TRUSTED], part[DISTRUST] = found.flags(TRUSTED), found.numbers(DISTRUST)
    table = pd.concat(parts, ignore_index=True)
    table.attrs = parts[0].attrs  # what the signals were worth where they were calibrated
    if TRUSTED not in table.columns or table[TRUSTED].isna().all():
        return None
    if unknown := int(table[TRUSTED].isna().sum()):
        raise DataError(
            f"{TRUST} says of {unknown} of {len(table)} rollouts in {folder} not whether they are "
            f"trusted; run `worldeval trust {folder}` for all of them again"
        )
    if "judge" in table.columns:  # verdicts are doubted, so it matters whose
        doubted = set(table["judge"])
        given = {str(n) for place in stores for n in read_parquet(place / VERDICTS)["judge"]}
        if doubted != given:
            raise MismatchError(
                f"{folder} was judged by {sorted(given)}, but {TRUST} doubts the verdicts of "
                f"{sorted(doubted)}; run `worldeval trust {folder}` again"
            )
    return table


def read_weights(words: str) -> Weights:
    """``rollouts``, ``equal``, or the path of a JSON file: task name to weight."""
    if words == "rollouts":
        return "rollouts"
    if words == "equal":
        return "equal"
    path = Path(words)
    if path.suffix.lower() != ".json":
        raise ConfigError(
            f"weights is {words!r}, expected rollouts, equal, or a .json file with a "
            "weight per task"
        )
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the task weights {path} cannot be read ({error}); expected JSON such as "
            f'{{"drawer-open": 2, "reach": 1}}'
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"the task weights {path} are a {type(content).__name__}, expected JSON such as "
            f'{{"drawer-open": 2, "reach": 1}}'
        )
    return content


def judge_errors(calibration: Path, imagined: pd.DataFrame, folder: Path) -> JudgeErrors:
    """The judge's errors by policy, from a calibration of this very judge, world and tasks.

    Raises MismatchError for a calibration of other data.
    """
    from worldeval.judge_calibration import Assessment
    from worldeval.ranking.verdict_table import column_names

    assessment = Assessment.load(calibration)
    worlds, tasks = column_names(imagined, "world"), column_names(imagined, "task")
    assessment.check(
        judges=column_names(imagined, "judge"),
        worlds=worlds,
        world_model=world_model_of(folder),
        tasks=tasks,
    )
    policies = column_names(imagined, "policy")
    return assessment.errors_for(policies, worlds=worlds, tasks=tasks)


def write_ranking(
    board: Leaderboard,
    out: Path,
    *,
    clips: Sequence[Clip] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write ``leaderboard.json`` and ``report.html`` into ``out``."""
    from worldeval.reports.ranking.page import write_report

    board.to_json(out / "leaderboard.json")
    write_report(out / "report.html", board, clips=clips, provenance=provenance)


def as_text(board: Leaderboard) -> str:
    """The leaderboard in characters that standard output can show."""
    from worldeval.reports.ranking.text import render

    return render(board, unicode=(sys.stdout.encoding or "ascii").lower().startswith("utf"))
