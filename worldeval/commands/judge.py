"""``worldeval judge``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from worldeval import shipped


@dataclass(frozen=True, kw_only=True)
class JudgeVerb:
    """Give a verdict on every rollout of a folder: success, failure, or undecided.

    Writes verdicts.parquet into every store of rollouts in the folder.

    For example:
      worldeval judge runs/mine --judge checkpoints/judge
    """

    folder: tyro.conf.Positional[Path]
    """Folder that `worldeval rollout` or `worldeval demo` wrote."""
    judge: Path = field(default_factory=lambda: shipped.folder() / shipped.JUDGE)
    """Checkpoint of the judge."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.commands.opening import set_threads, stores_in
        from worldeval.commands.verdicts import VERDICTS, judge_folder
        from worldeval.judging.classifier import SuccessClassifier

        set_threads(self.threads)
        stores = stores_in(self.folder)
        judge = SuccessClassifier.load(self.judge)
        for place in stores:
            table = judge_folder(judge, place)
            counts = table["outcome"].value_counts().to_dict()
            said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
            print(f"{place / VERDICTS}: {said or 'no rollouts'}")
