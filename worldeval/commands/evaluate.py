"""``worldeval evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldeval.evaluation.execution.options import ExecutionOptions
from worldeval.evaluation.stage import StageOptions


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Roll out, judge and rank policies in one folder; the same command again goes on.

    Policies and start states can be added later by naming them. Writes what `worldeval rollout`,
    `judge`, `trust` and `rank` write: rollouts, verdicts.parquet, leaderboard.json, report.html.

    For example:
      worldeval evaluate --policy checkpoints/policies/full --policy random --out runs/mine
      worldeval evaluate --policy A --policy B --until-sure best --out runs/mine
    """

    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What acts, as for `worldeval rollout`; repeat it for several."""
    out: Path
    """Folder to write to; one that an earlier evaluation wrote is continued."""
    judge: str | None = None
    """Who judges, as for `worldeval judge`. If not given: the shipped judge in imagination,
    elsewhere the world itself."""
    truth: Path | None = None
    """What truly happened from the same start states: a table, or a folder of rollouts in a world
    that knows. Measures how well imagination and truth agree."""
    no_trust: bool = False
    """Do not measure which imagined rollouts are not to be believed."""
    no_controls: bool = False
    """Do not roll out the controls. They are, in imagination: random, still and, where --starts
    holds recorded successes, expert and mirrored actions, from two start states a task. They do not
    rank; a task where they go otherwise than in truth is marked as not to be believed."""
    seed: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Of all randomness; the suite's, if not given. Give a second one to roll everything out again
    with it: the ranking then says whether its order holds."""
    until_sure: Literal["order", "best"] | None = None
    """Stop rolling out when this is decided: every pair (order), or only which policy is the best,
    which takes far fewer rollouts."""
    alpha: float = 0.05
    """With --until-sure: probability of any wrong decision, at most."""
    round: int = 8
    """With --until-sure: start states before each look at the order, rounded up until every task
    has run."""
    config: Path | None = None
    """A run.json, whose options are taken where this command line gives none; what may be given
    several times is added to what stands there."""
    execution: Annotated[ExecutionOptions, tyro.conf.arg(name="")] = field(
        default_factory=ExecutionOptions
    )
    stage: Annotated[StageOptions, tyro.conf.arg(name="")] = field(default_factory=StageOptions)

    def run(self) -> None:
        from worldeval.evaluation.evaluate import evaluate_stage

        run = evaluate_stage(
            self.stage,
            self.policy,
            self.out,
            judge=self.judge,
            truth=self.truth,
            trust=not self.no_trust,
            controls=not self.no_controls,
            seeds=self.seed,
            until_sure=self.until_sure,
            alpha=self.alpha,
            round_starts=self.round,
            execution=self.execution,
            verb=self,
        )
        if run is None:
            return
        print(f"{run.text()}\n\n{self.out / 'report.html'}")
