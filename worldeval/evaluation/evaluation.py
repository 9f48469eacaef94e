"""An evaluation: a folder with rollouts, verdicts, truth, trust and a leaderboard, as one thing.

Enters: a folder that `worldeval evaluate`, `rollout` or `demo` wrote. Leaves: its parts as tables
and videos, and the leaderboard: HTML in a notebook, text in a terminal. Everything is read from the
disk when it is asked for, so what other commands add to the folder is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval.errors import ConfigError, MismatchError, StoreError, WorldEvalError
from worldeval.evaluation.folder import (
    TRUTH,
    VERDICTS,
    as_text,
    check_labels,
    judge_folder,
    read_trust,
    read_truth,
    read_verdicts,
)
from worldeval.evaluation.opening import ImaginationOptions, stores_in
from worldeval.evaluation.ranked import GIVEN_TRUTH, OTHER_SEED, leaderboard_of, part, write_ranked
from worldeval.evaluation.rollouts import RolloutView, rollouts_by_policy

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.ranking.leaderboard.leaderboard import Leaderboard
    from worldeval.types import Judge

LEADERBOARD = "leaderboard.json"


class Evaluation:
    """Rollouts of several policies from the same start states, and what is known of them.

    ``judge`` and ``rank`` write into the folder and return the evaluation itself.
    """

    def __init__(self, folder: str | Path, starts: Iterable[str] | None = None) -> None:
        if not isinstance(folder, (str, Path)):
            raise ConfigError(f"folder is {folder!r:.60}, expected the path of an evaluation")
        self.folder = Path(folder)
        self.starts = None if starts is None else frozenset(starts)
        self._ranked: tuple[frozenset[tuple[str, int, int]], Leaderboard] | None = None
        stores_in(self.folder)  # raises where there are no rollouts

    @property
    def stores(self) -> list[Path]:
        """The stores of rollouts in the folder."""
        return stores_in(self.folder)

    @property
    def judged_stores(self) -> list[Path]:
        """The stores whose rollouts get verdicts: with those of another seed, if there are any."""
        again = self.folder / OTHER_SEED
        return [*self.stores, *(stores_in(again) if again.is_dir() else ())]

    @classmethod
    def open(cls, folder: str | Path) -> Evaluation:
        """The evaluation in a folder. StoreError if it holds no rollouts."""
        if isinstance(folder, (str, Path)) and not Path(folder).is_dir():
            raise StoreError(
                f"there is no folder {folder}; give one that `worldeval evaluate`, `worldeval "
                "rollout` or `worldeval demo` wrote"
            )
        return cls(folder)

    def only(self, starts: Iterable[str]) -> Evaluation:
        """The same evaluation seen from these start states alone: the others of the folder are
        neither shown nor ranked. MismatchError where there is none of them."""
        seen = Evaluation(self.folder, [starts] if isinstance(starts, str) else starts)
        if not seen.rollouts:
            raise MismatchError(
                f"{self.folder} has no rollout from {sorted(seen.starts or ())[:3]}; "
                ".verdicts['start_id'] has the names of its start states"
            )
        return seen

    @property
    def rollouts(self) -> Mapping[str, list[RolloutView]]:
        """Policy -> its rollouts; ``.video()`` of one plays in a notebook."""
        return rollouts_by_policy(self.stores, self.starts)

    @property
    def judged(self) -> bool:
        """Whether every store of rollouts has verdicts; ``verdicts`` tells if they are of today."""
        return all((place / VERDICTS).is_file() for place in self.stores)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per rollout: policy, task, start_id, judge, outcome, probability, ...

        Raises DataError where rollouts are not judged, or have changed since they were.
        """
        return part(read_verdicts(self.folder), self.starts)

    @property
    def truth(self) -> pd.DataFrame | None:
        """What truly happened: what the world itself said, else the table last ranked against;
        None if nothing is known."""
        for name in (TRUTH, GIVEN_TRUTH):
            if (self.folder / name).is_file():
                return part(read_truth(self.folder / name), self.starts)
        return None

    @property
    def trust(self) -> pd.DataFrame | None:
        """Which imagined rollouts to believe; None where `worldeval trust` was not run."""
        table = read_trust(self.folder)
        return None if table is None else part(table, self.starts)

    def judge(self, judge: Judge | str | Path | None = None) -> Evaluation:
        """Give a verdict on every rollout. judge: as for `worldeval judge`, or one that is open;
        the shipped judge if None. A judge that has judged a store already is not asked again."""
        from worldeval import shipped
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.given import open_judge

        judge = open_judge(shipped.path(shipped.JUDGE) if judge is None else judge)
        opened = (EpisodeStore.open(place) for place in self.stores)
        for told in check_labels([judge], opened, self.folder):
            print(told)
        for place in self.judged_stores:
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
        stamp = self._stamp()
        if self._ranked is None or self._ranked[0] != stamp:
            self._ranked = stamp, leaderboard_of(self.folder, self.starts)
        return self._ranked[1]

    def _stamp(self) -> frozenset[tuple[str, int, int]]:
        """Name, size and time of all that a leaderboard is made from."""
        found = set()
        for kind in ("parquet", "json"):
            for path in self.folder.rglob(f"*.{kind}"):
                with suppress(FileNotFoundError):  # another command is writing
                    facts = path.stat()
                    found.add((str(path), facts.st_size, facts.st_mtime_ns))
        return frozenset(one for one in found if not one[0].endswith(LEADERBOARD))

    def rank(self, truth: str | Path | pd.DataFrame | None = None) -> Evaluation:
        """Write leaderboard.json and report.html.

        truth: what truly happened from the same start states (a table, its file, or a folder of
            rollouts); it is kept in the folder, and the next ``rank()`` uses it too.
        """
        import pandas as pd

        from worldeval.data.tables import CELL, Table, truth_of
        from worldeval.judging.tables import write_table

        if truth is not None:
            if isinstance(truth, (str, Path)):
                table = read_truth(Path(truth))
            elif isinstance(truth, pd.DataFrame):
                table = truth
            else:
                raise ConfigError(
                    f"truth is {truth!r:.60}, expected a table, its file, or a folder of rollouts"
                )
            if "key" in table.columns and "start_id" not in table.columns:
                lacking = [name for name in CELL if name not in table.columns]
                table = table.merge(self.verdicts[["key", *lacking]], on="key")
            if "start_id" in table.columns and not (
                table["start_id"].isin(self.verdicts["start_id"]).any()
            ):
                raise MismatchError(
                    f"the truth names none of the start states in {self.folder}; give what "
                    "happened from the same start states"
                )
            table = truth_of(Table.of(table, "the truth"))
            board = leaderboard_of(self.folder, self.starts, table)  # raises before it is kept
            write_table(table, self.folder / GIVEN_TRUTH)
            self._ranked = self._stamp(), board
        self.report()
        return self

    def report(self) -> Path:
        """The path of report.html, made anew, with videos of the best and the worst rollouts."""
        write_ranked(self.leaderboard(), self.folder, self.starts)
        return self.folder / "report.html"

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
        shown = self._shown()
        return shown if isinstance(shown, str) else as_text(shown)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from worldeval.reports.markup import escape
        from worldeval.reports.ranking.page import leaderboard_html

        shown = self._shown()
        return f"<p>{escape(shown)}</p>" if isinstance(shown, str) else leaderboard_html(shown)
