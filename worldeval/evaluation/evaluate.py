"""Everything in one call: roll out, judge, measure trust, rank. The verb ``evaluate`` does this.

Enters: URIs of policies, where to act, who judges. Leaves: a folder and its ``Evaluation``. What is
there already is not made again, so the same call goes on where it was interrupted, and policies or
start states can be added by naming them in a later one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldeval.errors import ConfigError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.execution.options import ExecutionOptions
from worldeval.evaluation.execution.timing import keep_judged
from worldeval.evaluation.given import Given, as_list, open_judge
from worldeval.evaluation.opening import IMAGINATION
from worldeval.evaluation.ranked import OTHER_SEED
from worldeval.evaluation.stage import StageOptions
from worldeval.settings import settings_from

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.evaluation.stopping import StoppingRule
    from worldeval.types import Judge

Goal = Literal["order", "best"]


def evaluate(
    policies: Given | Sequence[Given],
    *,
    out: str | Path,
    suite: str | Path | None = None,
    world: str = IMAGINATION,
    world_model: str | Path | None = None,
    starts: str | Path | None = None,
    robot: str | None = None,
    memory: str | None = None,
    solver: str | None = None,
    sampler_steps: int | None = None,
    judge: Judge | str | Path | None = None,
    truth: pd.DataFrame | str | Path | None = None,
    trust: bool = True,
    controls: bool = True,
    until_sure: bool | Goal = False,
    alpha: float = 0.05,
    chunks: int | None = None,
    tasks: str | Sequence[str] = (),
    per_task: int | None = None,
    seeds: int | Sequence[int] = (),
    isolate: bool = False,
    batch: int = 8,
    threads: int = 2,
    device: str | None = None,
    workers: int = 1,
    retries: int = 0,
    mirror: str | None = None,
    trackers: str | Sequence[str] = (),
) -> Evaluation:
    """Roll out, judge and rank policies in a world; resumes what ``out`` holds already.

    policies: what acts: as for `worldeval rollout` (checkpoint folders, "python:mine.py:Mine"...),
    a policy object, or a class that makes one of the robot; one or several.
    suite: JSON file of the start states; the shipped one if None. world: "imagination",
    "metaworld", "toy", or one of your own. world_model, starts, robot, memory, solver,
    sampler_steps, device: how to imagine, as for `worldeval rollout`.
    judge: as for `worldeval judge`, or an object; if None the shipped judge in imagination,
    elsewhere the world. truth: what truly happened from the same start states (a table, its file,
    or a folder of rollouts), to measure agreement with.
    trust: tell which imagined rollouts not to believe, where the shipped calibration fits.
    controls: imagine random, still and, where ``starts`` holds recorded successes, expert and
    mirrored actions too, from two start states a task: they tell on which tasks not to believe it.
    until_sure: stop as soon as the "order" (or True), or only the "best", is decided with an error
    probability of at most ``alpha``. chunks, tasks, per_task: a part of the suite.
    seeds: of all randomness; the suite's if none is given. With a second one everything is rolled
    out again, and the ranking says whether its order holds.
    isolate: run each policy in a process of its own. workers: processes that roll out, with equal
    results (policies must be URIs then, and a script needs ``if __name__ == "__main__":``).
    retries: how often a rollout that ended in an error is begun again. mirror: URL to keep all
    files at too, such as "s3://bucket/run". trackers: what shows the rollouts and the ranking:
    "trackio", "wandb" or "wandb:my-project", where installed.

    Raises ConfigError, MismatchError, PolicyError, ... in one sentence that says what to do.
    """
    imagination = {
        "world_model": _path(world_model, "world_model"),
        "starts": _path(starts, "starts"),
        "robot": robot,
        "memory": memory,
        "solver": solver,
        "sampler_steps": sampler_steps,
        "device": device,
    }
    stage = settings_from(
        StageOptions,
        {
            "world": world,
            "suite": _path(suite, "suite"),
            "chunks": chunks,
            "task": (tasks,) if isinstance(tasks, str) else tasks,
            "per_task": per_task,
            "imagination": imagination,
            "guard": {"isolate": isolate},
            "batch": batch,
            "threads": threads,
        },
    )
    goal = ("order" if until_sure is True else until_sure) or None
    if goal not in (None, "order", "best"):
        raise ConfigError(f"until_sure is {until_sure!r}, expected 'order', 'best' or False")
    folder = _path(out, "out")
    if folder is None:
        raise ConfigError("out is None, expected the folder to write the evaluation to")
    run = evaluate_stage(
        stage,
        as_list(policies),
        folder,
        judge=judge,
        truth=truth,
        trust=trust,
        controls=controls,
        until_sure=goal,
        alpha=alpha,
        seeds=tuple(seeds) if isinstance(seeds, Sequence) else (seeds,),
        execution=ExecutionOptions(
            workers=workers,
            retries=retries,
            mirror=mirror,
            trackers=(trackers,) if isinstance(trackers, str) else tuple(trackers),
        ),
    )
    assert run is not None  # of shards alone
    return run


def _path(value: Any, name: str) -> Path | None:
    """``value`` as a path; ConfigError if it is none."""
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} is {value!r:.60}, expected a path")
    return Path(value)


def evaluate_stage(
    options: StageOptions,
    policies: Sequence[Given],
    out: Path,
    *,
    judge: Judge | str | Path | None = None,
    truth: pd.DataFrame | str | Path | None = None,
    trust: bool = True,
    controls: bool = True,
    until_sure: Goal | None = None,
    alpha: float = 0.05,
    round_starts: int = 8,
    seeds: Sequence[int] = (),
    execution: ExecutionOptions | None = None,
    verb: Any = None,
) -> Evaluation | None:
    """``evaluate`` with all options of the stage. verb: the options as given, for run.json.

    None after a shard, of which nothing is judged yet.
    """
    from worldeval.evaluation.execution.mirroring import mirrored
    from worldeval.evaluation.rolling import roll_controls, roll_out
    from worldeval.evaluation.tracked import tracked
    from worldeval.evaluation.until_sure_folder import check_enough, roll_until_sure
    from worldeval.judging.beside import judging_beside

    for name, flag in (("trust", trust), ("controls", controls)):
        if not isinstance(flag, bool):
            raise ConfigError(f"{name} is {flag!r:.60}, expected True or False")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise ConfigError(f"alpha is {alpha!r:.60}, expected a probability between 0 and 1")
    execution = execution or ExecutionOptions()
    execution.check()
    if until_sure is not None:
        check_enough(policies)
        if execution.shard is not None or not execution.alone:
            raise ConfigError(
                "until_sure looks at the order after each round, which workers and shards do not "
                "do together; leave --until-sure out, or --workers, --executor and --shard"
            )
    if not policies:
        raise ConfigError("no policy was given, expected one or more: --policy URI")
    first, second = _seeds(seeds, until_sure)
    rule = _rule(until_sure, alpha, round_starts)
    imagined = options.world == IMAGINATION
    who = judge if judge is not None or not imagined else _shipped_judge()
    # What is misspelt is told before the work.
    judging = None if who is None else open_judge(who)
    given = truth if hasattr(truth, "columns") else _path(truth, "truth")
    if isinstance(given, Path) and not given.exists():
        raise ConfigError(f"the truth {given} does not exist; check the spelling of the path")
    steps = ["judging"] * (judging is not None) + ["trust"] * (trust and imagined) + ["ranking"]
    then = ", ".join(["another seed"] * (second is not None) + steps)
    record = verb or options
    head = not execution.alone
    meanwhile = judging if imagined and rule is None else None  # until sure, each round is judged
    with mirrored(out, execution.mirror), ExitStack() as opened:
        with (
            options.open(
                out, policies, record, controls=controls, seed=first, only_head=head
            ) as stage,
            judging_beside(meanwhile, out),
        ):
            shown = opened.enter_context(tracked(out, execution))
            if rule is None:
                roll_out(stage, options.batch, then=then, execution=execution)
            else:
                rule = replace(rule, seed=stage.suite.seed)
                roll_until_sure(stage, judging, rule, options.batch, then=then)
            roll_controls(stage, options.batch, then=then, execution=execution)
        if second is not None:
            again = out / OTHER_SEED
            with (
                options.open(again, policies, record, seed=second, only_head=head) as stage,
                judging_beside(meanwhile, again),
            ):
                roll_out(stage, options.batch, then=", ".join(steps), execution=execution)
        if execution.shard is not None:
            from worldeval.evaluation.execution.status import status

            shown.show_rates()
            print(
                f"{status(out)}\nwhen all shards are done, the same command without --shard ranks"
            )
            return None
        run = Evaluation.open(out)
        began_s = time.perf_counter()
        if judging is None:
            _keep_outcomes(run)
        else:
            run.judge(judging)
        keep_judged(out, time.perf_counter() - began_s)
        if trust and imagined:
            run.measure_trust(options.imagination)
        run.rank(given)
        shown.show_verdicts(run)
        return run


def _seeds(seeds: Sequence[int], until_sure: Goal | None) -> tuple[int | None, int | None]:
    """The seed of the ranking and the one it is tried with, as far as they are given."""
    from worldeval.rollout.suite import check_seed

    for seed in seeds:
        check_seed(seed, "seeds")
    if len(seeds) > 2 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"seeds are {list(seeds)}, expected at most two different ones: that of the ranking, "
            "and another to try its order with"
        )
    if len(seeds) == 2 and until_sure is not None:
        raise ConfigError(
            "a second seed was given with until_sure, which stops at rollouts that another seed "
            "would not stop at; give one of the two"
        )
    first, second, *_ = (*seeds, None, None)
    return first, second


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

    for place in run.judged_stores:
        write_table(rollout_table(EpisodeStore.open(place)), place / VERDICTS)
