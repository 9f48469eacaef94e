"""``worldeval judge``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from worldeval import shipped

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class JudgeVerb:
    """Give a verdict on every rollout of a folder: success, failure, or undecided.

    Writes verdicts.parquet into every store of rollouts in the folder, which `worldeval rank`
    reads: of the panel if there is one, else of the judge named last. What each judge said is kept
    in verdicts/ beside it, and no judge is asked twice about a store.

    For example:
      worldeval judge runs/mine --judge checkpoints/judge
      worldeval judge runs/mine --judge human:labels.csv
      worldeval judge runs/mine --judge checkpoints/judge --judge checkpoints/progress \\
          --judge "vlm:http://localhost:8000/v1?model=NAME" --panel majority
    """

    folder: tyro.conf.Positional[Path]
    """Folder that `worldeval rollout` or `worldeval demo` wrote; or the URL of one (--mirror), to
    which the verdicts are sent too."""
    judge: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Who judges: the folder of a checkpoint (`train judge`, `train progress`), human:LABELS.csv,
    vlm:http://HOST/v1?model=NAME, or lerobot-reward:FOLDER, a reward model of LeRobot. Repeat it
    for several; the shipped judge, if not given."""
    panel: Literal["majority", "unanimous", "mean"] | None = None
    """How several judges give one verdict: what most say, what all say, or the mean probability.
    Ties are undecided."""
    threads: int = 2
    """Cores that torch may use."""

    def run(self) -> None:
        from worldeval.evaluation.execution.mirroring import at_hand
        from worldeval.evaluation.opening import set_threads

        set_threads(self.threads)
        with at_hand(self.folder, films=True, put_back=True) as folder:
            self._judge(folder)

    def _judge(self, folder: Path) -> None:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.folder import VERDICTS, check_labels, judge_folder
        from worldeval.evaluation.opening import stores_in
        from worldeval.judging.loading import load_judge
        from worldeval.judging.panel import Panel
        from worldeval.judging.tables import kept_path, write_table

        stores = stores_in(folder)
        judges = [load_judge(uri) for uri in self.judge or [shipped.folder() / shipped.JUDGE]]
        panel = Panel(judges, rule=self.panel) if self.panel else None
        opened = (EpisodeStore.open(place) for place in stores)
        for told in check_labels(judges, opened, folder):
            print(told)
        for place in stores:
            tables = [judge_folder(judge, place) for judge in judges]
            if panel is not None or len(judges) > 1:
                for judge, table in zip(judges, tables, strict=True):
                    print(f"{kept_path(judge.name, place)}: {summary(table)}")
            table = tables[-1]
            if panel is not None:
                table = panel.combine_tables(tables)
                write_table(table, kept_path(panel.name, place))
                write_table(table, place / VERDICTS)
            print(f"{place / VERDICTS}: {summary(table)}")


def summary(table: pd.DataFrame) -> str:
    """ "3 failure, 5 success", and what it cost where somebody was asked."""
    counts = table["outcome"].value_counts().to_dict()
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    if tokens := int(table["tokens"].sum()):
        said += f"; {tokens} tokens"
        dollars = table["dollars"].sum(skipna=False)
        said += f", ${dollars:.2f}" if dollars == dollars else ""  # NaN: the price is not known
    return said or "no rollouts"
