"""An evaluation: a folder with rollouts, verdicts, truth, trust and a leaderboard, as one thing.

Enters: a folder that `worldeval evaluate`, `rollout` or `demo` wrote. Leaves: its parts as tables
and videos, and the leaderboard: HTML in a notebook, text in a terminal. Everything is read from the
disk when it is asked for, so what other commands add to the folder is seen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.errors import MismatchError, StoreError, WorldEvalError
from worldeval.evaluation.folder import (
    TRUTH,
    VERDICTS,
    check_labels,
    judge_folder,
    read_trust,
    read_truth,
    read_verdicts,
    write_ranking,
)
from worldeval.evaluation.opening import ImaginationOptions, stores_in, world_model_of
from worldeval.evaluation.rollouts import RolloutView, rollouts_by_policy

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.ranking.leaderboard.corrections import JudgeErrors
    from worldeval.ranking.leaderboard.leaderboard import Leaderboard
    from worldeval.types import Judge

GIVEN_TRUTH = "given-truth.parquet"
"""The true outcomes that the folder was last ranked against."""


class Evaluation:
    """Rollouts of several policies from the same start states, and what is known of them.

    ``judge`` and ``rank`` write into the folder and return the evaluation itself.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        stores_in(self.folder)  # raises where there are no rollouts

    @property
    def stores(self) -> list[Path]:
        """The stores of rollouts in the folder."""
        return stores_in(self.folder)

    @classmethod
    def open(cls, folder: str | Path) -> Evaluation:
        """The evaluation in a folder. StoreError if it holds no rollouts."""
        if not Path(folder).is_dir():
            raise StoreError(
                f"there is no folder {folder}; give one that `worldeval evaluate`, `worldeval "
                "rollout` or `worldeval demo` wrote"
            )
        return cls(folder)

    @property
    def rollouts(self) -> Mapping[str, list[RolloutView]]:
        """Policy -> its rollouts; ``.video()`` of one plays in a notebook."""
        return rollouts_by_policy(self.stores)

    @property
    def judged(self) -> bool:
        """Whether every store of rollouts has verdicts; ``verdicts`` tells if they are of today."""
        return all((place / VERDICTS).is_file() for place in self.stores)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per rollout: policy, task, start_id, judge, outcome, probability, ...

        Raises DataError where rollouts are not judged, or have changed since they were.
        """
        return read_verdicts(self.folder)

    @property
    def truth(self) -> pd.DataFrame | None:
        """What truly happened: what the world itself said, else the table last ranked against;
        None if nothing is known."""
        for name in (TRUTH, GIVEN_TRUTH):
            if (self.folder / name).is_file():
                return read_truth(self.folder / name)
        return None

    @property
    def trust(self) -> pd.DataFrame | None:
        """Which imagined rollouts to believe; None where `worldeval trust` was not run."""
        return read_trust(self.folder)

    def judge(self, judge: Judge | str | Path | None = None) -> Evaluation:
        """Give a verdict on every rollout. judge: as for `worldeval judge`, or one that is open;
        the shipped judge if None. A judge that has judged a store already is not asked again."""
        from worldeval import shipped
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.judging.loading import load_judge

        if judge is None:
            judge = shipped.path(shipped.JUDGE)
        if isinstance(judge, (str, Path)):
            judge = load_judge(judge)
        opened = (EpisodeStore.open(place) for place in self.stores)
        for told in check_labels([judge], opened, self.folder):
            print(told)
        for place in self.stores:
            judge_folder(judge, place)
        return self

    def measure_trust(self, options: ImaginationOptions | None = None) -> Evaluation:
        """Tell which rollouts not to believe, by the trust checkpoint beside the shipped world;
        says so where that is of another world or judge. options: how they were imagined."""
        from worldeval.evaluation.corrections import measure_trust

        _, notes = measure_trust(self.stores, options or ImaginationOptions())
        for note in notes:
            print(note)
        return self

    def leaderboard(self) -> Leaderboard:
        """The ranking of what is in the folder now, with what is known of its errors."""
        from worldeval.evaluation.corrections import shipped_judge_errors
        from worldeval.evaluation.until_sure_folder import stopping_notes
        from worldeval.ranking.leaderboard import build_leaderboard

        verdicts = self.verdicts
        errors: JudgeErrors | None = None
        notes: list[str] = []
        if world_model_of(self.folder) is not None:
            errors, notes = shipped_judge_errors(verdicts, self.folder)
        given, true = self.folder / GIVEN_TRUTH, None
        if given.is_file():
            true = read_truth(given)
            true = true[true["start_id"].isin(verdicts["start_id"])].reset_index(drop=True)
        board = build_leaderboard(
            verdicts,
            true,
            judge_errors=errors,
            trust=self.trust,
        )
        return replace(board, notes=(*board.notes, *notes, *stopping_notes(self.folder, verdicts)))

    def rank(self, truth: str | Path | pd.DataFrame | None = None) -> Evaluation:
        """Write leaderboard.json and report.html.

        truth: what truly happened from the same start states (a table, its file, or a folder of
            rollouts); it is kept in the folder, and the next ``rank()`` uses it too.
        """
        import pandas as pd

        from worldeval.judging.tables import write_table

        if truth is not None:
            table = truth if isinstance(truth, pd.DataFrame) else read_truth(Path(truth))
            known = table["start_id"].isin(self.verdicts["start_id"])
            if not known.any():
                raise MismatchError(
                    f"the truth names none of the start states in {self.folder}; give what "
                    "happened from the same start states"
                )
            write_table(table, self.folder / GIVEN_TRUTH)
        self._write()
        return self

    def report(self) -> Path:
        """The path of report.html, made anew."""
        self._write()
        return self.folder / "report.html"

    def _write(self) -> str:
        return write_ranking(
            self.leaderboard(), self.folder, provenance={"folder": str(self.folder)}
        )

    def _shown(self) -> Leaderboard | str:
        """The leaderboard, or why there is none: to be looked at is no reason to fail."""
        if not self.judged:
            counts = ", ".join(f"{name} {len(views)}" for name, views in self.rollouts.items())
            return f"Rollouts in {self.folder}, not judged yet ({counts}); .judge() gives verdicts."
        try:
            return self.leaderboard()
        except WorldEvalError as error:
            return str(error)

    def text(self) -> str:
        """The leaderboard in characters that standard output can show."""
        from worldeval.reports.ranking.text import render

        shown = self._shown()
        if isinstance(shown, str):
            return shown
        return render(shown, unicode=(sys.stdout.encoding or "ascii").lower().startswith("utf"))

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from worldeval.reports.markup import escape
        from worldeval.reports.ranking.page import leaderboard_html

        shown = self._shown()
        return f"<p>{escape(shown)}</p>" if isinstance(shown, str) else leaderboard_html(shown)
