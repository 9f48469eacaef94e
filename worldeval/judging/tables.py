"""Verdict tables: what judges say of the rollouts of a store, one row per rollout. No torch.

Enters: a judge (``types.Judge``) and a store. Leaves: the table that rankings read, and the way
back from a table to verdicts. Every judge keeps a table of its own beside the rollouts
(``verdicts/<judge>.parquet``), so a second judge overwrites nothing and none is asked twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from worldeval.data import digests
from worldeval.data.atomic import write_atomically
from worldeval.data.fit import check_made_for
from worldeval.data.tables import CELL, KEY, SOLVED_AT, VERDICT_COLUMNS, Table, read_parquet
from worldeval.errors import DataError, JudgeError, MismatchError, StoreError, WorldEvalError
from worldeval.judging.vlm.unread import nothing_read
from worldeval.terminal import bar_options, printable
from worldeval.types import Cost, Episode, Judge, Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.data.store.episodes import EpisodeStore

log = logging.getLogger(__name__)

MADE, SETTINGS = "rollout_digests", "judge_digest"
"""What a table keeps beside its rows (``attrs``): key -> digest of the rollout that was judged
(``digests.of_episodes``), as one text because pandas copies it with every step, and of the settings
of a judge whose name does not hold them (its attribute ``digest``)."""

FOLDER = "verdicts"
AT_ONCE = 8  # episodes handed to a judge together: one that waits for answers can ask for them all


def judge_store(
    judge: Judge,
    store: EpisodeStore,
    out_parquet: str | Path | None = None,
    *,
    known: pd.DataFrame | None = None,
    stop: threading.Event | None = None,
) -> pd.DataFrame:
    """Judge every episode of a store into a verdict table with ``VERDICT_COLUMNS``, and SOLVED_AT
    if the judge tells it.

    known: verdicts of this judge on some of these episodes, which are taken over. stop: of whoever
    judges beside other work: no bar is shown, and the table lacks what is not judged when it is
    set. The table is written to ``out_parquet`` wholly or not at all, where given. Raises
    StoreError if it cannot be written, DataError if the judge answers for other rollouts than it
    was asked about, and MismatchError for a judge that was trained for another robot.
    """
    import pandas as pd

    check_made_for(f"judge {judge.name}", getattr(judge, "robot", None), store)
    keys = [] if len(store) == 0 else store.metadata()["key"].tolist()
    made = {} if known is None else made_of(known)
    now = digests.of_episodes(store)
    rows = {} if known is None else {row["key"]: row for row in known.to_dict("records")}
    missing = [number for number, key in enumerate(keys) if key not in rows]
    name, horizon = printable(judge.name), horizon_frames(store)
    bar = tqdm(
        total=len(missing),
        unit="rollout",
        desc=name,
        dynamic_ncols=True,
        **(bar_options() if missing and stop is None else {"disable": True}),
    )
    for first in range(0, len(missing), AT_ONCE):
        if stop is not None and stop.is_set():
            break
        episodes = [store.episode(number) for number in missing[first : first + AT_ONCE]]
        verdicts = _asked(judge, episodes)
        asked, answered = [e.key for e in episodes], [v.key for v in verdicts]
        if asked != answered:
            raise DataError(
                f"the judge {judge.name} was asked about {asked} and answered about {answered}; "
                "judges give one verdict an episode, in the same order"
            )
        for episode, verdict in zip(episodes, verdicts, strict=True):
            facts = {name: str(episode.extra.get(name, "")) for name in ("policy", "start_id")}
            facts |= {"task": episode.task, "world": str(episode.extra.get("world", ""))}
            rows[episode.key] = row_of(verdict, facts)
            if verdict.solved_at is not None and horizon is not None:
                rows[episode.key][SOLVED_AT] = verdict.solved_at / horizon
            made[episode.key] = now[episode.key]
        bar.update(len(episodes))
    bar.close()
    told = [SOLVED_AT] if any(SOLVED_AT in row for row in rows.values()) else []
    judged = [rows[key] for key in keys if key in rows]
    table = pd.DataFrame(judged, columns=[*VERDICT_COLUMNS, *told])
    table.attrs = {MADE: json.dumps(made), SETTINGS: getattr(judge, "digest", None)}
    if out_parquet is not None:
        write_table(table, Path(out_parquet))
    return table


def horizon_frames(store: EpisodeStore) -> int | None:
    """Frames after the start of a rollout that was watched to its end: of the longest that no flag
    of success has cut short. None where there is none such."""
    if not len(store):
        return None
    table = store.metadata()
    whole = table["length"][~table["success"].fillna(False).astype(bool)]
    return int(whole.max()) - 1 or None if len(whole) else None


def _asked(judge: Judge, episodes: Sequence[Episode]) -> list[Verdict]:
    """The verdicts of a judge of whoever's: what is none, or raised by it, is a sentence."""
    try:
        verdicts = judge.judge(episodes)
    except WorldEvalError:
        raise
    except Exception as error:
        if type(judge).__module__.startswith("worldeval."):
            raise  # a fault of ours, or of the disk
        raise JudgeError(
            f"judge {judge.name!r} raised {type(error).__name__}: {error}; mend it, its other "
            "verdicts are kept as they were"
        ) from error
    if not isinstance(verdicts, list) or not all(isinstance(v, Verdict) for v in verdicts):
        raise DataError(
            f"judge {judge.name!r} answered {verdicts!r:.80}, expected a list with a "
            "worldeval.Verdict for each episode"
        )
    return verdicts


def kept_verdicts(
    judge: Judge, store: EpisodeStore, stop: threading.Event | None = None
) -> pd.DataFrame:
    """The judge's table on all rollouts of a store; it is asked about those only that its table on
    the disk lacks, or has of another rollout of that name or by another judge of that name. stop:
    as of ``judge_store``.

    Raises DataError for a table that no judge writes (an outcome that is none, a probability beyond
    [0, 1], a rollout twice): what it said before may have cost money, so it is not thrown away.
    """
    path = kept_path(judge.name, store.root)
    known = None
    if path.is_file():
        table = read_parquet(path)
        # A table of an earlier version has fewer columns.
        if set(VERDICT_COLUMNS) <= set(table) and set(table["judge"]) <= {judge.name}:
            check_verdicts(table, str(path))
            known = _still_true(table, judge, store)
    if known is not None and nothing_read(known):
        known = None  # the server spoke where nobody listened, or not at all: it is asked again
    if known is not None and len(known) == len(store):
        return known.reset_index(drop=True)
    return judge_store(judge, store, path, known=known, stop=stop)


def check_verdicts(table: pd.DataFrame, what: str) -> None:
    """Raise DataError, naming the row, for verdicts that no judge gives."""
    found = Table.of(table, what)
    found.once(found.verdicts(), KEY)
    found.numbers("probability", 0, 1)


def _still_true(table: pd.DataFrame, judge: Judge, store: EpisodeStore) -> pd.DataFrame | None:
    """The rows on rollouts as they lie in ``store`` now; None if by the judge as it was once."""
    settings = getattr(judge, "digest", None)
    if table.attrs.get(SETTINGS, settings) != settings:
        return None
    made, now = made_of(table), digests.of_episodes(store)
    same = [made.get(key, now.get(key)) == now.get(key) for key in table["key"]]
    kept = table[table["key"].isin(store.keys) & np.array(same, bool)]
    unknown = sum(key not in made for key in kept["key"])
    if unknown:
        log.warning(
            "%s: %d verdicts of %s were kept by a version that kept no digest of the rollouts: "
            "whether these have changed since cannot be checked",
            store.root,
            unknown,
            judge.name,
        )
    return kept


def made_of(table: pd.DataFrame) -> dict[str, str]:
    """Key -> digest of the rollout that a verdict is on; without those that are not known."""
    kept = json.loads(table.attrs.get(MADE, "{}"))
    return {str(key): str(digest) for key, digest in kept.items()}


def check_current(table: pd.DataFrame, root: Path, verb: str = "judge") -> None:
    """Raise MismatchError if ``table`` is about rollouts that the store at ``root`` has no more, or
    has made anew since; of a table that does not say what it is about, nothing is known.

    verb: the command that makes it.
    """
    made = made_of(table)
    if not made:
        return
    from worldeval.data.store.episodes import EpisodeStore

    now = digests.of_episodes(EpisodeStore.open(root))
    other = [key for key in table["key"] if key in made and now.get(key) != made[key]]
    if other:
        raise MismatchError(
            f"{root} holds other rollouts than `worldeval {verb}` saw there: {len(other)} of "
            f"{len(table)}, such as {other[0]!r}, were made anew since; run `worldeval {verb} "
            f"{root}` again"
        )


def kept_path(name: str, root: Path) -> Path:
    """Where the table of the judge called ``name`` lies below the folder of a store."""
    plain = re.sub(r"[^A-Za-z0-9@._-]+", "-", name).strip("-.")[:80]
    if plain != name:  # two names may become one: a few digits keep them apart
        plain = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return root / FOLDER / f"{plain}.parquet"


def row_of(verdict: Verdict, facts: Mapping[str, str]) -> dict[str, Any]:
    """A row of the table. facts: policy, task, start_id and world of the rollout."""
    cost = verdict.cost
    return {
        "key": verdict.key,
        **{name: facts[name] for name in (*CELL, "world")},
        "judge": verdict.judge,
        "outcome": verdict.outcome.value,
        "probability": np.nan if verdict.probability is None else verdict.probability,
        "reason": verdict.reason,
        "frames": " ".join(map(str, verdict.frames)),
        "seconds": cost.seconds,
        "tokens": cost.prompt_tokens + cost.completion_tokens,
        "dollars": np.nan if cost.dollars is None else cost.dollars,
    }


def verdicts_of(table: pd.DataFrame) -> list[Verdict]:
    """The verdicts in a table, in its order; tokens count as asked, requests are not in it."""
    import pandas as pd

    return [
        Verdict(
            key=str(row["key"]),
            outcome=Outcome(row["outcome"]),
            probability=None if pd.isna(row["probability"]) else float(row["probability"]),
            judge=str(row["judge"]),
            reason=str(row["reason"]),
            frames=tuple(map(int, str(row["frames"]).split())),
            cost=Cost(
                seconds=float(row["seconds"]),
                prompt_tokens=int(row["tokens"]),
                dollars=None if pd.isna(row["dollars"]) else float(row["dollars"]),
            ),
        )
        for row in table.to_dict("records")
    ]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a verdict table wholly or not at all; StoreError if the disk refuses."""
    try:
        write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    except OSError as error:
        raise StoreError(
            f"cannot write the verdict table {path}: {error.strerror or error}; free some "
            "space or choose another file"
        ) from error
