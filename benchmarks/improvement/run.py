"""Does learning from imagined rollouts make a policy better, truly? One command for the proof:

    python benchmarks/ship.py improvement-suites --out runs/improvement
    worldeval train policy --store recordings/training --family patches --demonstrations 8 \\
        --loop.steps 900 --loop.seed 22 --loop.threads 1 --seen-through checkpoints/autoencoder \\
        --out runs/few/patches-few    # thumbnails: seed 21, plain: seed 23
    python benchmarks/improvement/run.py --out runs/improvement \\
        --policies checkpoints/policies/few-data runs/few/thumbnails-few runs/few/patches-few \\
            runs/few/plain-few \\
        --targets few-data=drawer-open,faucet-close thumbnails-few=drawer-open,window-close \\
            patches-few=drawer-open,button-press plain-few=drawer-open,drawer-close \\
        --per-task 40 --variations 1 --samples 4 --most 50 --steps 800 --mix 0.3 \\
        --recorded recordings/training \\
        --suite runs/improvement/imagine.json --starts runs/improvement/starts-imagine \\
        --held-out runs/improvement/held-out.json \\
        --held-out-starts runs/improvement/starts-held-out

Enters: policies of middling quality, tasks to improve, start states to imagine from and others to
measure at. Leaves: ``results.json`` (a row for each policy, arm, and targeted tasks or not),
``proof.md`` with its plots. Every step is a command of worldeval in a process of its own on one
thread (``arms.py``); what is done is not done again, so the same command goes on where it stopped.
--only NAME takes the steps whose names hold it, --list shows them all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from arms import (
    ORACLE,
    REWORDED_SUITE,
    Settings,
    Step,
    data_steps,
    measuring_steps,
    name_of,
    own_share,
    recorded_of,
    stores_of,
    training_steps,
)

from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import Table, read_truth_table
from worldeval.evaluation.folder import read_verdicts
from worldeval.policies.cloning.choosing import choose
from worldeval.policies.cloning.config import Selection
from worldeval.rollout.suite import Suite
from worldeval.synthesis.imagining import RECIPE
from worldeval.synthesis.recipe import from_text
from worldeval.synthesis.retelling import retold
from worldeval.synthesis.tables import Tables
from worldeval.synthesis.wording import reworded
from worldeval.types import Outcome
from worldeval.worlds.named import robot_of_store


def own_data(s: Settings, policy: str) -> None:
    """The recorded episodes that the policy has learned from, in a store of their own."""
    share, place = own_share(policy), recorded_of(s, policy)
    if share is None:
        return
    store = EpisodeStore.open(s.recorded)
    chosen, _ = choose(store.metadata(), Selection(demonstrations=share), s.recorded)
    robot = robot_of_store(store)
    with EpisodeStore.open_or_create(
        place,
        **store_fields(robot),
        images="lossless",
        expert_actions=store.layout.expert_actions,
        extra=robot_extra(robot),
    ) as own:
        for number in chosen:
            if str(store.facts(number)["key"]) not in own:
                own.append(store.episode(number))
        own.compact()


def retell_real(s: Settings, policy: str) -> None:
    """The policy's own true successes, under words drawn as those of the imagined ones are."""
    home = s.out / name_of(policy)
    truly = EpisodeStore.open(home / "real-filtered")
    words = retold(Tables(rollouts=truly.metadata(), paths={})).rollouts["instruction"]
    with EpisodeStore.open_or_create(
        home / "real-retold", **vars(truly.layout), extra=truly.extra
    ) as store:
        for number, told in enumerate(words):
            episode = truly.episode(number)
            if episode.success and episode.key not in store:
                store.append(dataclasses.replace(episode, instruction=str(told)))


def reword(s: Settings, policy: str) -> None:
    """The held-out start states of the targeted tasks, told in words that no arm learned from."""
    home = s.out / name_of(policy)
    suite = Suite.load(s.held_out)
    seen = {start.instruction for start in suite.starts}
    for store, _ in stores_of(s, policy).values():
        if (store / "meta/info.json").is_file():
            seen |= set(EpisodeStore.open(store).metadata()["instruction"])
    starts = []
    for start in suite.starts:
        if start.task not in s.tasks_of(policy):
            continue
        known = sorted({other.instruction for other in suite.starts if other.task == start.task})
        rng = np.random.default_rng(start.seed)
        words = (reworded(start.instruction, known, rng) for _ in range(1000))
        told = next(text for text in words if text not in seen)
        starts.append(dataclasses.replace(start, instruction=told))
    dataclasses.replace(suite, name=f"{suite.name}-words", starts=tuple(starts)).save(
        home / REWORDED_SUITE
    )


def oracle_suite(s: Settings, policy: str) -> None:
    """Start states of the imagined rollouts that began where the recording did."""
    home = s.out / name_of(policy)
    store = EpisodeStore.open(home / "unselected/dataset")
    base = Suite.load(s.suite)
    starts = []
    for number in range(len(store)):
        (recipe,) = from_text(str(store.facts(number)[RECIPE]), str(store.facts(number)["key"]))
        if not recipe.moved:
            starts.append(dataclasses.replace(recipe.start(), instruction=recipe.meaning))
    suite = Suite(
        name="carried out", robot=base.robot, chunks=s.chunks or base.chunks, starts=tuple(starts)
    )
    (home / ORACLE).mkdir(exist_ok=True)
    suite.save(home / ORACLE / "suite.json")


def oracle_verdicts(s: Settings, policy: str) -> None:
    """What became of them in physics, as verdicts on the imagined rollouts; and a table by which
    every imagined rollout is taken, for the arm without selection."""
    home = s.out / name_of(policy)
    truth = outcomes_of(home / ORACLE / "true")
    store = EpisodeStore.open(home / "unselected/dataset")
    told = [store.facts(number) for number in range(len(store))]
    for name, found in (
        ("verdicts", [truth.get(str(facts["start_id"]), "undecided") for facts in told]),
        ("every", ["success"] * len(told)),
    ):
        lines = [f"{facts['key']},{word}" for facts, word in zip(told, found, strict=True)]
        text = "\n".join(["key,outcome", *lines]) + "\n"
        (home / ORACLE / f"{name}.csv").write_text(text)


CORE = ("finetuned", "unselected", "real-filtered")
"""Arms that decide the size; of the others some may have fewer, and their rows say so. Physics can
choose only among rollouts that began where the recording did, half of them."""


def decide_size(s: Settings, policy: str) -> None:
    """How many episodes of each task the core arms of this policy can have, at most ``s.most``."""
    home = s.out / name_of(policy)
    counts: dict[str, dict[str, int]] = {}
    verdicts = home / ORACLE / "verdicts.csv"
    for arm, (place, _) in stores_of(s, policy).items():
        counts[arm] = dict.fromkeys(s.tasks_of(policy), 0)
        if not (place / "meta/info.json").is_file():
            continue
        table = EpisodeStore.open(place).metadata()
        if arm.startswith("real-"):
            table = table[table["success"].fillna(False).astype(bool)]
        elif arm == "oracle-selected":
            said = Table.read(verdicts)
            names = said.names(("key",))
            good = {
                name[0]
                for name, o in zip(names, said.outcomes(), strict=True)
                if o is Outcome.SUCCESS
            }
            table = table[table["key"].isin(good)]
        found = table["task"].value_counts().to_dict()
        counts[arm] = {task: int(found.get(task, 0)) for task in s.tasks_of(policy)}
    # A task of which an arm has nothing cannot be made equal; the counts are kept beside it.
    size = min([s.most, *(n for arm in CORE for n in counts[arm].values() if n)])
    text = json.dumps({"size": size, "counts": counts}, indent=1) + "\n"
    (home / "size.json").write_text(text)


LOCAL: dict[str, Callable[[Settings, str], None]] = {
    "own_data": own_data,
    "retell_real": retell_real,
    "reword": reword,
    "oracle_suite": oracle_suite,
    "oracle_verdicts": oracle_verdicts,
    "decide_size": decide_size,
}


def outcomes_of(folder: Path) -> dict[str, str]:
    """start_id -> outcome of the true rollouts in a folder."""
    table = read_truth_table(folder / "truth.parquet")
    return dict(zip(table["start_id"].map(str), table["outcome"].map(str), strict=True))


def sized(words: tuple[str, ...], s: Settings, policy: str) -> list[str]:
    """The words of a command with the size that was decided, in numbers."""
    path = s.out / name_of(policy) / "size.json"
    size = json.loads(path.read_text())["size"] if path.is_file() else 1

    def number(match: re.Match[str]) -> str:
        return str(max(1, round(size * float(match[1] or 1))))

    return [re.sub(r"\{size(?:\*([\d.]+))?\}", number, word) for word in words]


def marked(s: Settings, step: Step) -> Path:
    """The file that says that a step was done, how, and in what time."""
    return s.out / "steps" / f"{step.name.replace('/', '--')}.json"


def run(step: Step, s: Settings, policy: str) -> str:
    """Do a step, unless it was done by the same command; "done", "there", or why it failed."""
    words = sized(step.words, s, policy)
    mark = marked(s, step)
    if mark.is_file() and json.loads(mark.read_text())["words"] == words:
        return str(json.loads(mark.read_text())["how"])
    mark.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    how = "done"
    if step.local is not None:
        LOCAL[step.local](s, policy)
    else:
        log = mark.with_suffix(".log")
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        with log.open("w") as output:
            code = subprocess.run(
                [sys.executable, "-m", "worldeval", *words],
                stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **threads},
            ).returncode  # fmt: skip
        if code:
            lines = [line for line in re.split(r"[\r\n]+", log.read_text()) if line.strip()]
            how = f"failed: {lines[-1] if lines else f'exit code {code}'}"
            if not step.may_fail or code == 130:
                raise SystemExit(f"{step.name}: {how}\n(worldeval {' '.join(words)})")
    seconds = round(time.monotonic() - began, 1)
    mark.write_text(json.dumps({"words": words, "how": how, "seconds": seconds}) + "\n")
    print(f"{step.name}: {how} ({seconds:g} s)", flush=True)
    return how


def row_of(s: Settings, policy: str, step: Step, made: Step | None) -> dict[str, object]:
    """Of what one step measured."""
    assert step.measures is not None
    path = s.out / name_of(policy) / "size.json"
    known = json.loads(path.read_text()) if path.is_file() else {"size": 0, "counts": {}}
    wanted = round(known["size"] * (0 if made is None else made.size))
    found = known["counts"].get(step.arm) or dict.fromkeys(s.tasks_of(policy), wanted)
    if step.group == "imagined":
        table = read_verdicts(step.measures)
    else:
        table = read_truth_table(step.measures / "truth.parquet")
    return {
        "policy": name_of(policy),
        "arm": step.arm,
        "targeted": step.group != "others",
        "group": step.group,
        "successes": int((table["outcome"] == Outcome.SUCCESS.value).sum()),
        "trials": len(table),
        "size": sum(min(wanted, count) for count in found.values()),
        "mix": None if made is None else made.mix,
        "seed": s.seed,
        "outcomes": dict(zip(table["start_id"].map(str), table["outcome"].map(str), strict=True)),
        "command": "" if made is None else "worldeval " + " ".join(made.words),
    }


def main() -> None:
    s, only, listed = settings()
    tasks = list(dict.fromkeys(start.task for start in Suite.load(s.held_out).starts))
    results: list[dict[str, object]] = []
    missing: list[str] = []
    for policy in s.policies:
        training = training_steps(s, policy)
        made = {"base": None, **{step.arm: step for step in training if step.arm}}
        others = [task for task in tasks if task not in s.tasks_of(policy)]
        measuring = measuring_steps(s, policy, list(made), others)
        steps = [*data_steps(s, policy), *training, *measuring]
        if listed:
            for step in steps:
                print(step.name, "= worldeval", *step.words)
            continue
        failed: set[str | None] = set()
        for step in steps:
            if only and only not in step.name:
                continue
            if step in measuring and step.arm in failed:
                continue
            how = run(step, s, policy)
            if how.startswith("failed"):
                failed.add(step.arm)
                missing.append(f"{step.name}: {how}")
        for step in measuring:
            if step.arm in made and marked(s, step).is_file() and step.measures is not None:
                results.append(row_of(s, policy, step, made[step.arm]))
    if listed:
        return
    text = json.dumps(
        {"command": " ".join(sys.argv), "missing": missing, "rows": results}, indent=1
    )
    (s.out / "results.json").write_text(text + "\n")
    from proof import write_proof

    print(write_proof(s.out))


def settings() -> tuple[Settings, str, bool]:
    """Those of the command line; options are the fields of ``Settings``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    several = {"policies": str, "targets": str, "mixes": float, "doses": float}
    for field in dataclasses.fields(Settings):
        option = f"--{field.name.replace('_', '-')}"
        required = field.default is dataclasses.MISSING
        if field.name in several:
            default = None if required else list(field.default)
            parser.add_argument(
                option, nargs="+", type=several[field.name], required=required, default=default
            )
        elif field.type == "bool":
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, default=field.default
            )
        else:
            kind = {"int": int, "float": float, "int | None": int}.get(str(field.type), Path)
            default = None if required else field.default
            parser.add_argument(option, type=kind, required=required, default=default)
    parser.add_argument("--only", default="", help="steps whose names hold this")
    parser.add_argument("--list", action="store_true", help="show the steps, do none")
    given = vars(parser.parse_args())
    only, listed = given.pop("only"), given.pop("list")
    return (
        Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}),
        only,
        listed,
    )


if __name__ == "__main__":
    main()
