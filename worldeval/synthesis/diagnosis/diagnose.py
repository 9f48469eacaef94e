"""The verb ``diagnose`` as a call: a dataset, and if wanted a policy that learned from it.

Enters: a store, optionally a policy's URI. Leaves: diagnosis.json and report.html in a folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval import shipped
from worldeval.data import origin
from worldeval.data.provenance import jsonable, write_atomically, write_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.opening import ImaginationOptions, fingerprint
from worldeval.reports.synthesis.diagnosis import diagnosis_text, write_diagnosis
from worldeval.reports.synthesis.page import Strip
from worldeval.synthesis.diagnosis.dataset import (
    Diagnosis,
    Features,
    diagnose_store,
    features_of,
    typical,
)

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.synthesis.diagnosis.counterfactual import Counterfactuals

SHOWN = 3
"""Episodes of each task in the pictures."""
MOST_TASKS = 12


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """diagnosis: of the dataset. counterfactuals: of the policy, None without one."""

    folder: Path
    diagnosis: Diagnosis
    counterfactuals: Counterfactuals | None

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences on what stands out."""
        more = () if self.counterfactuals is None else self.counterfactuals.findings
        return (*self.diagnosis.findings, *more)

    def tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Title and table of each part."""
        made = self.diagnosis
        named = [
            ("Variety", made.tasks),
            ("What tells the task without the instruction", made.guesses),
            ("Sources", made.sources),
        ]
        if self.counterfactuals is not None:
            named.append(("One thing changed", self.counterfactuals.table))
        return named

    def __repr__(self) -> str:
        return diagnosis_text(self.tables(), self.findings)


def diagnose(
    dataset: str | Path,
    *,
    out: str | Path,
    policy: str | None = None,
    judge: str | None = None,
    options: ImaginationOptions | None = None,
    per_task: int = 2,
    chunks: int = 8,
    batch: int = 16,
    threads: int = 2,
) -> DatasetReport:
    """How diverse a store is per task and view, how fragmented its sources are, and, with a policy,
    what its rollouts in imagination make of a swapped instruction, hidden views, changed starts.

    Raises DataError for an empty store; with a policy MismatchError for one of another robot or
    rate than the world model's.
    """
    out, store = Path(out), EpisodeStore.open(dataset)
    seen = features_of(store)
    made = diagnose_store(store, seen)
    how = options or ImaginationOptions()
    write_manifest(
        out,
        command="diagnose",
        config={
            "dataset": str(dataset), "policy": policy, "per_task": per_task, "chunks": chunks,
            "world_model": None if policy is None else fingerprint(str(how.folder)),
            "imagination": None if policy is None else how,
        },
        seed=0,
        content=origin.told_inputs(dataset),
        allow_changes=("policy", "world_model", "imagination", "per_task", "chunks"),
    )  # fmt: skip
    changed = None
    if policy is not None:
        from worldeval.judging.loading import load_judge
        from worldeval.synthesis.diagnosis.counterfactual import try_changes

        changed = try_changes(
            policy, store, out / "rollouts", load_judge(judge or shipped.path(shipped.JUDGE)), how,
            per_task=per_task, chunks=chunks, batch=batch, threads=threads,
        )  # fmt: skip
    report = DatasetReport(folder=out, diagnosis=made, counterfactuals=changed)
    content = {**made.to_json(), "findings": list(report.findings)}
    if changed is not None:
        content["changes"] = changed.table.to_dict(orient="index")
        content["policy"] = changed.policy
    write_atomically(out / "diagnosis.json", json.dumps(jsonable(content), indent=1) + "\n")
    write_diagnosis(
        out / "report.html",
        name=store.root.name,
        named=report.tables(),
        findings=report.findings,
        strips=[*_episodes(store, seen), *_changes(changed)],
        chips={"episodes": len(store), "tasks": len(set(store.metadata()["task"]))},
    )
    return report


def _episodes(store: EpisodeStore, seen: Features) -> list[Strip]:
    return [
        Strip(
            group=task, title=seen.keys[i], text=seen.instructions[i], frames=store.frames(i)
        )
        for task in list(dict.fromkeys(seen.tasks))[:MOST_TASKS]
        for i in typical(seen, task, SHOWN)
    ]  # fmt: skip


def _changes(changed: Counterfactuals | None) -> list[Strip]:
    """One start state, with everything that was changed."""
    if changed is None:
        return []
    stores = {name: EpisodeStore.open(place) for name, place in changed.stores.items()}
    key = sorted(next(iter(stores.values())).keys)[0]
    return [
        Strip(
            group=f"{changed.policy}, one thing changed: {key}",
            title=name,
            text=store.by_key(key).instruction,
            frames=store.by_key(key).frames,
        )
        for name, store in stores.items()
        if key in store
    ]
