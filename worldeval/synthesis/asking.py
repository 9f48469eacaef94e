"""The judge is asked about the task in the suite's own words, whatever the policy was told.

Enters: a judge and rollouts that know what was meant. Leaves: verdicts. And: does the judge know
the tasks at all? A judge that was never shown a task answers all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError
from worldeval.synthesis.tables import ASKED
from worldeval.types import Episode, Judge, Verdict


class MeaningJudge:
    """``judge``, asked about what was meant. It signs with the same name; ``digest`` tells its
    table from that of the judge asked in other words."""

    def __init__(self, judge: Judge) -> None:
        self.judging, self.name = judge, judge.name
        self.beside = getattr(judge, "beside", False)
        self.digest = f"{getattr(judge, 'digest', None) or ''} asked in the suite's words"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        return self.judging.judge(
            [replace(e, instruction=str(e.extra.get(ASKED) or e.instruction)) for e in episodes]
        )


def check_tasks(judge: str, tasks: Sequence[str]) -> list[str]:
    """Raise ConfigError for tasks that the judge was not validated on; sentences where its
    checkpoint does not say."""
    folder = Path(judge)
    if not folder.is_dir():
        return []  # people, models of any task, other packages' judges
    try:
        card = checkpoint.read_header(folder)["card"]
    except CheckpointError:
        return []  # whoever opens it says so better
    rows = (card.get("validation") or {}).get("tasks")
    known = {str(row.get("task")) for row in rows or () if isinstance(row, dict)}
    if not known:
        return [f"Whether the judge {judge} knows these tasks is not known: its card names none."]
    strange = [task for task in tasks if task not in known]
    if strange:
        raise ConfigError(
            f"the judge {judge} does not know the task {strange[0]!r}: it was validated on "
            f"{', '.join(sorted(known))}; give --task for some of these, or another "
            "--judge (people and vlm: judge any task)"
        )
    return []
