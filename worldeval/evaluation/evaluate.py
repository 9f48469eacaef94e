"""Everything in one call: roll out, judge, measure trust, rank. The verb ``evaluate`` does this.

Enters: URIs of policies, where to act, who judges. Leaves: a folder and its ``Evaluation``. What is
there already is not made again, so the same call goes on where it was interrupted, and policies or
start states can be added by naming them in a later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldeval.errors import ConfigError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.opening import IMAGINATION, ImaginationOptions
from worldeval.evaluation.stage import StageOptions

if TYPE_CHECKING:
    from worldeval.evaluation.stopping import StoppingRule

Goal = Literal["order", "best"]


def evaluate(
    policies: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    suite: str | Path | None = None,
    world: str = IMAGINATION,
    world_model: str | Path | None = None,
    judge: str | Path | None = None,
    truth: str | Path | None = None,
    trust: bool = True,
    until_sure: bool | Goal = False,
    alpha: float = 0.05,
    chunks: int | None = None,
    tasks: str | Sequence[str] = (),
    per_task: int | None = None,
    batch: int = 8,
    threads: int = 2,
    device: str | None = None,
) -> Evaluation:
    """Roll out, judge and rank policies in a world; resumes what ``out`` holds already.

    policies: what acts, as for `worldeval rollout`: checkpoint folders, "python:mine.py:Mine", ...
    suite: JSON file of the start states; the shipped one if None. world: "imagination",
    "metaworld", "toy", or a world of your own: its entry point's name, or "module:attr".
    world_model: a checkpoint; the shipped one if None.
    judge: as for `worldeval judge`; if None the shipped judge in imagination, elsewhere the world.
    truth: what truly happened from the same start states, to measure agreement with.
    trust: tell which imagined rollouts not to believe, where the shipped calibration fits.
    until_sure: stop as soon as the "order" (or True), or only the "best", is decided with an error
    probability of at most ``alpha``. chunks, tasks, per_task: a part of the suite.

    Raises ConfigError, MismatchError, PolicyError, ... in one sentence that says what to do.
    """
    stage = StageOptions(
        world=world,
        suite=None if suite is None else Path(suite),
        chunks=chunks,
        task=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        per_task=per_task,
        imagination=ImaginationOptions(
            world_model=None if world_model is None else Path(world_model), device=device
        ),
        batch=batch,
        threads=threads,
    )
    named = [policies] if isinstance(policies, (str, Path)) else list(policies)
    goal: Goal | None = ("order" if until_sure is True else until_sure) or None
    return evaluate_stage(
        stage,
        [str(policy) for policy in named],
        Path(out),
        judge=None if judge is None else str(judge),
        truth=None if truth is None else Path(truth),
        trust=trust,
        until_sure=goal,
        alpha=alpha,
    )


def evaluate_stage(
    options: StageOptions,
    policies: Sequence[str],
    out: Path,
    *,
    judge: str | None = None,
    truth: Path | None = None,
    trust: bool = True,
    until_sure: Goal | None = None,
    alpha: float = 0.05,
    round_starts: int = 8,
    verb: Any = None,
) -> Evaluation:
    """``evaluate`` with all options of the stage. verb: the options as given, for run.json."""
    from worldeval.evaluation.rolling import roll_out
    from worldeval.evaluation.until_sure_folder import check_enough, roll_until_sure
    from worldeval.judging.loading import load_judge

    if until_sure is not None:
        check_enough(policies)
    if not policies:
        raise ConfigError("no policy was given, expected one or more: --policy URI")
    rule = _rule(until_sure, alpha, round_starts)
    imagined = options.world == IMAGINATION
    who = judge if judge is not None or not imagined else _shipped_judge()
    judging = None if who is None else load_judge(who)  # what is misspelt is told before the work
    if truth is not None and not truth.exists():
        raise ConfigError(f"the truth {truth} does not exist; check the spelling of the path")
    steps = ("judging" if judging else "", "trust" if trust and imagined else "", "ranking")
    following = ", ".join(filter(None, steps))
    with options.open(out, policies, verb or options) as stage:
        if rule is None:
            roll_out(stage, options.batch, then=following)
        else:
            rule = replace(rule, seed=stage.suite.seed)
            roll_until_sure(stage, judging, rule, options.batch, then=following)
    run = Evaluation.open(out)
    if judging is None:
        _keep_outcomes(run)
    else:
        run.judge(judging)
    if trust and imagined:
        run.measure_trust(options.imagination)
    return run.rank(truth)


def _rule(goal: Goal | None, alpha: float, round_starts: int) -> StoppingRule | None:
    from worldeval.evaluation.stopping import StoppingRule

    if goal is None:
        return None
    return StoppingRule(goal=goal, alpha=alpha, round_starts=round_starts)


def _shipped_judge() -> str:
    from worldeval import shipped

    return str(shipped.path(shipped.JUDGE))


def _keep_outcomes(run: Evaluation) -> None:
    """What the world itself says becomes the verdicts."""
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.evaluation.folder import VERDICTS
    from worldeval.judging.tables import write_table
    from worldeval.rollout.table import rollout_table

    for place in run.stores:
        write_table(rollout_table(EpisodeStore.open(place)), place / VERDICTS)
