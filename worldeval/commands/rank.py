"""``worldeval rank``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from worldeval.ranking.leaderboard import Leaderboard


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Rank the policies of judged rollouts, and say how far the order can be believed.

    Prints the leaderboard and writes leaderboard.json and report.html: success rates with
    intervals; letters (policies that share one cannot be told apart); how many rollouts would
    separate them; and, where you give what it takes, agreement with the truth, rates corrected for
    the judge's errors, and true rates from a few true trials joined with the imagined rollouts.
    Rollouts that `worldeval trust` distrusts are shown with and without. `worldeval evaluate`
    rolls out and judges too.

    For example:
      worldeval rank runs/mine --out runs/mine-ranked
      worldeval rank runs/mine --truth runs/truth --out runs/mine-ranked
      worldeval rank runs/mine --real trials.csv --calibration runs/calibrated --out runs/ranked
    """

    folder: tyro.conf.Positional[Path]
    """Folder of rollouts, judged by `worldeval judge`; or the URL of one (--mirror)."""
    out: Path
    """Folder to write the leaderboard to."""
    truth: Path | None = None
    """What truly happened from the same start states: a table (CSV or parquet, as for --real), or
    a folder of rollouts in a world that knows. Measures how well imagination and truth agree."""
    again: Path | None = None
    """The same policies, imagined with another seed and judged: a folder of rollouts or a verdict
    table. Shows whether the order holds with other randomness."""
    real: Path | None = None
    """A few true trials (CSV as spreadsheets save it, or parquet; columns policy, task, start_id,
    and success, 1 or 0, or outcome), of start states chosen without looking at outcomes. Gives
    true rates: these trials joined with the imagined rollouts."""
    calibration: Path | None = None
    """How often the judge errs: the calibration.json (or its folder) of `worldeval calibrate`.
    Refused if it is of another judge, world model or task. A policy that was not calibrated is
    corrected by the errors on three or more that were, task by task, and less surely."""
    weights: str = "rollouts"
    """How tasks weigh in the rates: rollouts (every decided rollout the same), equal (every task
    the same), or a JSON file {"task": weight}."""
    paired: bool = False
    """Refuse policies that were not imagined from the same start states, instead of comparing them
    by their counts."""
    alpha: float = 0.05
    """Probability of calling any two equal policies different by mistake."""
    correction: Literal["holm", "bonferroni", "none"] = "holm"
    """For the many pairs that are compared; none makes alpha that of each single pair."""
    confidence: float = 0.95
    """Of the intervals."""
    seed: int = 0
    """Of the bootstrap over tasks."""
    trackers: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What shows the ranking too, if it is installed: trackio or wandb, or with a project
    wandb:my-project; repeat it for both."""

    def run(self) -> None:
        from worldeval.data.provenance import write_manifest
        from worldeval.evaluation.execution.mirroring import at_hand
        from worldeval.evaluation.folder import as_text, write_ranking
        from worldeval.evaluation.tracked import show_ranking
        from worldeval.tracking import require

        require(self.trackers)
        with ExitStack() as opened:
            here: dict[str, Any] = {
                name: opened.enter_context(at_hand(place))
                for name in ("folder", "truth", "again")
                if (place := getattr(self, name)) is not None
            }
            board = replace(self, **here)._board()
        write_manifest(self.out, command="rank", config=self, seed=self.seed, allow_changes=True)
        given = {
            name: value for name, value in asdict(self).items() if value not in (None, False, ())
        }
        facts = {n: str(value) for n, value in given.items() if n != "out"}
        write_ranking(board, self.out, provenance=facts)
        print(as_text(board))
        print(self.out / "report.html")
        show_ranking(board, self.out, self.trackers, facts)

    def _board(self) -> Leaderboard:
        from worldeval.data.tables import read_truth_table
        from worldeval.evaluation.folder import (
            judge_errors,
            read_trust,
            read_truth,
            read_verdicts,
            read_weights,
        )
        from worldeval.evaluation.until_sure_folder import stopping_notes
        from worldeval.ranking.leaderboard import build_leaderboard

        weights = read_weights(self.weights)
        imagined = read_verdicts(self.folder)
        errors = None
        if self.calibration is not None:
            errors = judge_errors(self.calibration, imagined, self.folder)
        board = build_leaderboard(
            imagined,
            None if self.truth is None else read_truth(self.truth),
            real=None if self.real is None else read_truth_table(self.real),
            judge_errors=errors,
            trust=read_trust(self.folder),
            again=None if self.again is None else read_verdicts(self.again),
            weights=weights,
            alpha=self.alpha,
            correction=self.correction,
            require_pairs=self.paired,
            confidence=self.confidence,
            seed=self.seed,
        )
        stopped = stopping_notes(self.folder, imagined)
        return replace(board, notes=(*board.notes, *stopped))
