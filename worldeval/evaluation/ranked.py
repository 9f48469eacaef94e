"""The ranking of an evaluation's folder: from the tables on its disk to leaderboard and report.

Enters: a folder of judged rollouts, perhaps a part of its start states. Leaves: a ``Leaderboard``
with what is known of its errors, and leaderboard.json, report.html and the videos that it shows.
Whoever wrote the folder (``evaluate``, ``demo``, ``rollout`` and ``judge``), it is ranked alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval import shipped
from worldeval.errors import MismatchError
from worldeval.evaluation.folder import (
    VERDICTS,
    read_trust,
    read_truth,
    read_verdicts,
    write_ranking,
)
from worldeval.evaluation.opening import fingerprint, stores_in, world_model_of

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.ranking.leaderboard.corrections import JudgeErrors
    from worldeval.ranking.leaderboard.leaderboard import Leaderboard

GIVEN_TRUTH = "given-truth.parquet"
"""The true outcomes that the folder was last ranked against."""
OTHER_SEED = "other-seed"
"""Where the same rollouts with another seed lie, which the order is tried with."""
VIDEOS, CLIPS = "videos", "clips"
"""Where films for people lie; the second where the folder is a store, whose films are its own."""


def part(table: pd.DataFrame, starts: Collection[str] | None) -> pd.DataFrame:
    """The rows of these start states; all of them if None."""
    if starts is None:
        return table
    rows = table[table["start_id"].isin(list(starts))].reset_index(drop=True)
    rows.attrs = table.attrs
    return rows


def given_truth(folder: Path, verdicts: pd.DataFrame) -> pd.DataFrame | None:
    """The truth that the folder was last ranked against, of the start states in ``verdicts``."""
    given = folder / GIVEN_TRUTH
    return part(read_truth(given), set(verdicts["start_id"])) if given.is_file() else None


def leaderboard_of(
    folder: Path, starts: Collection[str] | None = None, truth: pd.DataFrame | None = None
) -> Leaderboard:
    """The ranking of what is in the folder now.

    starts: only of these start states. truth: to compare with instead of the truth that is kept;
    where that one does not tell of all rollouts (any more), a note says so.
    """
    from worldeval.evaluation.corrections import shipped_judge_errors, why_no_trust
    from worldeval.evaluation.strangers import strangers_notes
    from worldeval.evaluation.until_sure_folder import stopping_notes
    from worldeval.ranking.leaderboard import build_leaderboard

    verdicts = part(read_verdicts(folder), starts)
    errors: JudgeErrors | None = None
    stores = stores_in(folder)
    trust, notes = _trust(folder)
    if trust is not None and len(stores) > 1:
        trust.attrs = {}  # what a signal was worth is told of one store; several need not agree
    first: list[str] = []
    if (world_model := world_model_of(folder)) is not None:
        judges, policies = (verdicts[name].astype(str).unique() for name in ("judge", "policy"))
        first = strangers_notes(policies.tolist(), judges.tolist(), world_model)
        errors, uncorrected = shipped_judge_errors(verdicts, folder)
        if trust is None and not notes:
            notes = why_no_trust(stores, world_model)
        notes = [*notes, *uncorrected]

    def build(against: pd.DataFrame | None) -> Leaderboard:
        return build_leaderboard(
            verdicts,
            against,
            judge_errors=errors,
            trust=None if trust is None else part(trust, starts),
            again=_again(folder, starts),
        )

    if truth is not None:
        board = build(part(truth, set(verdicts["start_id"])))
    else:
        kept = given_truth(folder, verdicts)
        try:
            board = build(kept)
        except MismatchError as error:
            if kept is None:
                raise
            board = build(None)
            notes.append(f"The truth that was given before is not compared with: {error}.")
    return replace(board, notes=(*first, *board.notes, *notes, *stopping_notes(folder, verdicts)))


def _again(folder: Path, starts: Collection[str] | None) -> pd.DataFrame | None:
    """The verdicts on what was rolled out with another seed."""
    place = folder / OTHER_SEED
    return part(read_verdicts(place), starts) if (place / VERDICTS).is_file() else None


def _trust(folder: Path) -> tuple[pd.DataFrame | None, list[str]]:
    """What is known of trust, or a note where it is known of other verdicts or rollouts only."""
    from worldeval.evaluation.corrections import UNTOLD

    try:
        return read_trust(folder), []
    except MismatchError as error:
        return None, [f"{UNTOLD}: {error}."]


def write_ranked(board: Leaderboard, folder: Path, starts: Collection[str] | None = None) -> None:
    """Write leaderboard.json, the videos of the best and the worst rollouts, and report.html."""
    from worldeval.reports.videos import make_clips

    stores = stores_in(folder)
    verdicts = part(read_verdicts(folder), starts)
    place = folder / (CLIPS if stores == [folder] else VIDEOS)
    compared = any(row.true is not None for row in board.policies)
    truth = given_truth(folder, verdicts) if compared else None
    clips = make_clips(stores, verdicts, truth, place, recorded=_shipped_ones(folder))
    write_ranking(board, folder, clips=clips, provenance=_facts(folder, verdicts))


def _facts(folder: Path, verdicts: pd.DataFrame) -> dict[str, Any]:
    """What a reader of the report must know of how the rollouts were made."""
    config = _manifest(folder).get("config", {})
    suite = config.get("suite") or {}
    facts = {
        "folder": folder,
        "world": config.get("world") or ", ".join(sorted(set(verdicts["world"]))),
        "world model": config.get("world_model"),
        "suite": suite.get("name"),
        "chunks": suite.get("chunks") or config.get("chunks"),
        "start states": verdicts["start_id"].nunique(),
        "judge": ", ".join(sorted(set(verdicts["judge"]))),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _shipped_ones(folder: Path) -> set[str]:
    """The policies of the folder that are shipped ones, of which true videos are shipped too.

    Another policy may have the name of one of them, and did not do what is seen there.
    """
    if not (shipped.folder() / shipped.POLICIES).is_dir():
        return set()
    ours, manifest = shipped.policies(), _manifest(folder)
    config = manifest.get("config", {})
    if "policy_names" not in config:  # a demo, or of a version that did not keep them
        return set(ours) if manifest.get("command") == "demo" else set()
    digests: Mapping[str, Any] = config.get("policies") or {}
    return {
        name
        for name, uri in config["policy_names"].items()
        if name in ours and digests.get(uri) == fingerprint(str(ours[name]))
    }


def _manifest(folder: Path) -> dict[str, Any]:
    from worldeval.data.provenance import MANIFEST, read_manifest

    return read_manifest(folder) if (folder / MANIFEST).is_file() else {}
