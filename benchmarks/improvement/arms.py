"""The arms of the proof, as command lines of worldeval.

Enters: settings. Leaves: for each policy the steps in their order. A step is one command, run in a
process of its own on one thread; what it needs was written by steps before it.

All arms but ``merged`` start from the policy and take the same optimiser steps, and the same number
of new episodes of each targeted task (SIZE, decided once the data is there: ``run.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SIZE = "{size}"
"""In a command: how many episodes of each task every arm has."""
FORECAST = ("base", "finetuned")
"""Arms that are also rolled out in imagination, whose forecast is shown beside the truth."""
ELSEWHERE = ("base", "finetuned", "real-filtered", "extra-steps", "merged")
"""Arms that are also measured on the tasks that were not fine-tuned."""
REWORDED_SUITE = "held-out-words.json"
REWORDED = (
    "base", "finetuned", "unselected", "real-filtered", "real-retold", "extra-steps",
    "paraphrase-only", "reset-only",
)  # fmt: skip
"""Arms that are also told the targeted tasks in words that no arm has learned from."""
POOL = "pool"
"""Imagined rollouts that several arms select from."""
ORACLE = "oracle"
"""Rollouts that are kept because their actions, carried out in physics, truly succeed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the proof is made of. All places are paths; suites are JSON files of start states."""

    out: Path
    policies: tuple[str, ...]
    targets: tuple[str, ...]
    """Tasks to improve; NAME=TASK,TASK for the policy NAME alone."""
    recorded: Path
    """Store of the data that the policies learned from, of all tasks. Of a policy that learned from
    some episodes of it, only these are taken: more would be new to it."""
    starts: Path
    """Store whose episodes begin at the start states to imagine from."""
    suite: Path
    """These start states, for true rollouts."""
    held_out: Path
    """Start states of the measurement; no arm has learned from any of them."""
    held_out_starts: Path | None = None
    """Store whose episodes begin at these: imagination then forecasts base and finetuned."""
    world_model: Path | None = None
    judge: Path | None = None
    per_task: int = 25
    """Start states of each task to imagine from."""
    variations: int = 4
    samples: int = 4
    most: int = 40
    """Episodes of each task that an arm takes at most. The arms of true rollouts act from all start
    states of ``suite``, so that they have as many."""
    mix: float = 0.5
    """Share of recorded data in a batch."""
    mixes: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    doses: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    trials: int = 50
    """True rollouts of each targeted task for each arm."""
    other_trials: int = 10
    """The same of each other task."""
    forecasts: int = 25
    """Imagined rollouts of each targeted task for the forecast."""
    steps: int = 400
    learning_rate: float = 3e-4
    batch: int = 96
    chunks: int | None = None
    seed: int = 0
    curves: bool = True
    """Curves over the share of recorded data and over the number of new episodes, for the first
    policy."""
    second_round: bool = True
    """A second round (synthesise with the tuned policy) for the first policy."""

    def tasks_of(self, policy: str) -> tuple[str, ...]:
        """Its targeted tasks."""
        own = {n: t for n, is_own, t in (x.partition("=") for x in self.targets) if is_own}
        if name_of(policy) in own:
            return tuple(own[name_of(policy)].split(","))
        return tuple(x for x in self.targets if "=" not in x)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. name: also of its log. arm, size, mix: of what it trains, for results.json."""

    name: str
    words: tuple[str, ...]
    arm: str | None = None
    size: float = 1.0
    mix: float = 0.0
    measures: Path | None = None
    """Folder of rollouts that it writes."""
    group: str = "true"
    """Of these: "true" (of the targeted tasks), "others", "reworded" (targeted, in words that no
    arm has learned from), or "imagined" (a forecast, judged, in place of true ones)."""
    local: str | None = None
    """A function of ``run.py`` in place of a command."""
    may_fail: bool = field(default=False)
    """A selection may leave nothing: the arm is then missing, and the report says so."""


def name_of(policy: str) -> str:
    """runs/population/plain-good is called plain-good."""
    return Path(policy.rstrip("/")).name


def data_steps(s: Settings, policy: str) -> list[Step]:
    """Episodes for every arm: imagined, selected, and truly rolled out."""
    home = s.out / name_of(policy)
    imagine = ["--policy", policy, "--starts", s.starts, "--suite", s.suite]
    imagine += _tasks(s.tasks_of(policy))
    imagine += ["--per-task", s.per_task, "--threads", 1, "--seed", s.seed, *_models(s)]
    varied = ["--variations", s.variations, "--samples", s.samples]

    def synthesize(name: str, *words: object) -> Step:
        return _step(f"{name_of(policy)}/data-{name}", "synthesize", *words, "--out", home / name,
                     may_fail=True)  # fmt: skip

    judged = ["--judge", s.judge] if s.judge else []
    pool = home / POOL
    drawn = ["--instructions", "drawn"]
    alone = ["--variations", max(1, s.variations * s.samples // 2), *judged, "--noisy", 0]
    return [
        synthesize(POOL, *imagine, *varied, *judged, "--select", "all"),
        synthesize("finetuned", "--pool", pool, *judged, *drawn),
        synthesize("as-told", "--pool", pool, *judged),
        synthesize("unselected", "--pool", pool, *judged, *drawn, "--select", "all"),
        synthesize(
            "advantage", "--pool", pool, *judged, *drawn,
            "--select", "success", "--select", "advantage",
        ),
        synthesize(
            "paraphrase-only", *imagine, *alone, *drawn, "--moved", 0, "--reworded", 1,
            "--select", "success",
        ),
        synthesize(
            "reset-only", *imagine, *alone, "--moved", 1, "--reworded", 0, "--select", "success"
        ),
        Step(name=f"{name_of(policy)}/own-data", words=(policy,), local="own_data"),
        Step(name=f"{name_of(policy)}/oracle-suite", words=(policy,), local="oracle_suite"),
        _step(
            f"{name_of(policy)}/oracle-carried", "rollout", "--world", "metaworld",
            "--suite", home / ORACLE / "suite.json", "--threads", 1,
            "--policy", f"replay:{home / 'unselected/dataset'}?name=carried",
            "--out", home / ORACLE / "true",
        ),
        Step(name=f"{name_of(policy)}/oracle-verdicts", words=(policy,), local="oracle_verdicts"),
        _step(
            f"{name_of(policy)}/data-real", "rollout", "--world", "metaworld", "--policy", policy,
            "--suite", s.suite, *_tasks(s.tasks_of(policy)), "--threads", 1, *_chunks(s),
            "--out", home / "real-filtered",
        ),
        Step(name=f"{name_of(policy)}/real-retold", words=(policy,), local="retell_real"),
        Step(name=f"{name_of(policy)}/size", words=(policy,), local="decide_size"),
    ]  # fmt: skip


def own_share(policy: str) -> int | None:
    """How many episodes of each task a policy has learned from; None for all."""
    path = Path(policy) / "config.json"
    card = json.loads(path.read_text()).get("card", {}) if path.is_file() else {}
    number = card.get("training", {}).get("demonstrations")
    return None if number is None else int(number)


def recorded_of(s: Settings, policy: str) -> Path:
    """Store of the recorded episodes that a policy has learned from."""
    return s.recorded if own_share(policy) is None else s.out / name_of(policy) / "recorded"


def stores_of(s: Settings, policy: str) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Arm -> its store of new episodes, and the table that says which of them to take as solved."""
    home = s.out / name_of(policy)
    truly = ("--verdicts", str(home / ORACLE / "verdicts.csv"))
    every = ("--verdicts", str(home / ORACLE / "every.csv"))
    return {
        "finetuned": (home / "finetuned/dataset", ()),
        "as-told": (home / "as-told/dataset", ()),
        "advantage": (home / "advantage/dataset", ()),
        "unselected": (home / "unselected/dataset", every),
        "oracle-selected": (home / "unselected/dataset", truly),
        "real-filtered": (home / "real-filtered", ()),
        "real-retold": (home / "real-retold", ()),
        "paraphrase-only": (home / "paraphrase-only/dataset", ()),
        "reset-only": (home / "reset-only/dataset", ()),
    }


def training_steps(s: Settings, policy: str) -> list[Step]:
    """One fine-tuning for each arm."""
    steps = []
    stores = stores_of(s, policy)
    for arm, (store, chosen) in stores.items():
        steps.append(_train(s, policy, arm, (store,), chosen, s.mix))
    steps.append(_train(s, policy, "extra-steps", (), (), 1.0))
    base, tuned = policy, s.out / name_of(policy) / "policies/finetuned"
    merged = s.out / name_of(policy) / "policies/merged"
    steps.append(
        _step(f"{name_of(policy)}/train-merged", "merge", base, tuned, "--alpha", 0.5,
              "--out", merged, arm="merged", mix=s.mix, may_fail=True)
    )  # fmt: skip
    if s.curves and policy == s.policies[0]:
        store, chosen = stores["finetuned"]
        # One point of each curve is the arm finetuned itself.
        for mix in sorted(set(s.mixes) - {s.mix}):
            arm = f"mix-{mix:g}"
            steps.append(_train(s, policy, arm, (store,), chosen, mix))
        for dose in sorted(set(s.doses) - {1.0}):
            arm = f"dose-{dose:g}"
            steps.append(_train(s, policy, arm, (store,), chosen, s.mix, size=dose))
    if s.second_round and policy == s.policies[0]:
        steps += _second_round(s, policy)
    return steps


def _second_round(s: Settings, policy: str) -> list[Step]:
    home = s.out / name_of(policy)
    tuned = home / "policies/finetuned"
    judged = ["--judge", s.judge] if s.judge else []
    again = _step(
        f"{name_of(policy)}/data-second-round", "synthesize", "--policy", tuned,
        "--starts", s.starts, "--suite", s.suite, *_tasks(s.tasks_of(policy)),
        "--per-task", s.per_task, "--threads", 1, "--seed", s.seed + 1, *_models(s),
        "--variations", s.variations, "--samples", s.samples, *judged,
        "--out", home / "second-round", may_fail=True,
    )  # fmt: skip
    store = home / "second-round/dataset"
    return [again, _train(s, policy, "second-round", (store,), (), s.mix, start=str(tuned))]


def measuring_steps(
    s: Settings, policy: str, arms: Sequence[str], others: Sequence[str]
) -> list[Step]:
    """True rollouts of each arm from held-out start states, of targeted tasks and of ``others``;
    and what imagination forecasts of them."""
    home, steps = s.out / name_of(policy), []
    groups = (
        ("true", s.tasks_of(policy), s.trials, s.held_out, arms),
        ("others", others, s.other_trials, s.held_out, ELSEWHERE),
        ("reworded", s.tasks_of(policy), s.trials, home / REWORDED_SUITE, REWORDED),
    )
    steps.append(Step(name=f"{name_of(policy)}/held-out-words", words=(policy,), local="reword"))
    for arm in arms:
        uri = f"{policy if arm == 'base' else home / 'policies' / arm}?name={arm}"
        shared = ("--policy", uri, *_chunks(s), "--threads", 1)
        for kind, tasks, trials, suite, measured in groups:
            if not (tasks and trials) or arm not in measured:
                continue
            steps.append(
                _step(
                    f"{name_of(policy)}/{kind}-{arm}", "rollout", "--world", "metaworld", *shared,
                    "--suite", suite, *_tasks(tasks), "--per-task", trials,
                    "--out", home / kind / arm, arm=arm, measures=home / kind / arm, group=kind,
                )
            )  # fmt: skip
        if s.held_out_starts and arm in FORECAST:
            out = home / "forecast" / arm
            model = ("--world-model", s.world_model) if s.world_model else ()
            judged = ("--judge", s.judge) if s.judge else ()
            steps += [
                _step(
                    f"{name_of(policy)}/imagined-{arm}", "rollout", *shared, *model,
                    "--suite", s.held_out, "--starts", s.held_out_starts,
                    *_tasks(s.tasks_of(policy)), "--per-task", s.forecasts, "--out", out, arm=arm,
                ),
                _step(
                    f"{name_of(policy)}/judged-{arm}", "judge", out, *judged,
                    arm=arm, measures=out, group="imagined",
                ),
            ]  # fmt: skip
    return steps


def _train(
    s: Settings,
    policy: str,
    arm: str,
    stores: Sequence[Path],
    chosen: Sequence[str],
    mix: float,
    *,
    size: float = 1.0,
    start: str | None = None,
) -> Step:
    # Where both kinds are drawn, recorded data comes first: --mix is its share.
    data = [word for store in (recorded_of(s, policy), *stores) for word in ("--data", store)]
    # Solved episodes alone, also of the recorded ones, which are the same for every arm so;
    # tables of verdicts say what that is where it is not the judge's selection.
    data += [*chosen, "--only-successful"]
    share = ["--mix", mix] if stores else []
    count = SIZE if size == 1.0 else SIZE.replace("}", f"*{size:g}}}")
    words = [
        "--start-from", start or policy, *data, *share, "--demonstrations", count,
        "--loop.steps", s.steps, "--loop.learning-rate", s.learning_rate, "--loop.threads", 1,
        "--loop.batch", s.batch, "--loop.seed", s.seed,
        "--out", s.out / name_of(policy) / "policies" / arm,
    ]  # fmt: skip
    return _step(
        f"{name_of(policy)}/train-{arm}", "train", "policy", *words,
        arm=arm, size=size, mix=mix if stores else 1.0, may_fail=True,
    )  # fmt: skip


def _step(name: str, *words: object, arm: str | None = None, size: float = 1.0, mix: float = 0.0,
          measures: Path | None = None, group: str = "true",
          may_fail: bool = False) -> Step:  # fmt: skip
    return Step(name=name, words=tuple(map(str, words)), arm=arm, size=size, mix=mix,
                measures=measures, group=group, may_fail=may_fail)  # fmt: skip


def _tasks(tasks: Sequence[str]) -> list[str]:
    return [word for task in tasks for word in ("--task", task)]


def _models(s: Settings) -> list[object]:
    model = ["--world-model", s.world_model] if s.world_model else []
    return [*model, *_chunks(s)]


def _chunks(s: Settings) -> list[object]:
    return [] if s.chunks is None else ["--chunks", s.chunks]
