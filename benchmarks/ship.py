"""Put together what ``checkpoints/suite`` holds: start states, true results, true clips.

    .venv/bin/python benchmarks/ship.py suite --out checkpoints/suite
    worldeval rollout --world metaworld --suite checkpoints/suite/suite.json --out runs/truth ...
    .venv/bin/python benchmarks/ship.py truth --rollouts runs/truth --out checkpoints/suite
    .venv/bin/python benchmarks/ship.py judge-suites --out runs/judge
    .venv/bin/python benchmarks/ship.py calibration-suite --out runs/calibration

``suite`` takes the first evaluation start states of every task (the simulator draws their first
frames), and a smaller suite for the demo. ``truth`` turns the simulator's rollouts of the
candidates into the verdict table of what truly happened, and keeps the clips of the demo's starts.
``judge-suites`` are start states of the training and validation splits for rollouts of the
candidates that a judge learns from: nobody else's start states. ``calibration-suite`` is for
rollouts, imagined and true, on which judges and trust are calibrated: validation start states that
nothing was trained or chosen on. ``strangers`` writes how far a ranking of held-out families
(``--rollouts`` judged, ``--ranked`` against the truth) holds, which stands first in every ranking::

    .venv/bin/python benchmarks/ship.py strangers --rollouts runs/imagined --ranked runs/ranked \
        --population runs/population --out checkpoints
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from worldeval import shipped
from worldeval.data.atomic import write_atomically
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import OUTCOME_COLUMNS
from worldeval.evaluation.folder import read_verdicts
from worldeval.evaluation.opening import stores_in, world_model_of
from worldeval.evaluation.strangers import Strangers
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.types import Episode
from worldeval.worlds.sawyer import ROBOT, TASKS, start_states

WHAT = (
    "suite", "truth", "judge-suites", "calibration-suite", "population-suites",
    "improvement-suites", "strangers",
)  # fmt: skip


def make_suite(out: Path, per_task: int, demo_per_task: int, chunks: int) -> None:
    starts = [s for task in TASKS for s in start_states("evaluation", task, per_task)]
    suite = Suite(
        name="embedded", robot=ROBOT.name, chunks=chunks, starts=tuple(starts), seed=20261122
    )
    suite.save(out / "suite.json")
    suite.subset(per_task=demo_per_task, name="embedded-demo").save(out / "demo.json")
    draw_starts(suite, out / "starts")


def draw_starts(suite: Suite, out: Path) -> None:
    """The first frame of every start state, for imagination to begin from."""
    from worldeval.worlds.metaworld import MetaWorld

    world = MetaWorld()
    with open_rollouts(out, ROBOT, images="lossless") as store:
        for start in suite.starts:
            if start.start_id in store:
                continue
            began = world.reset([start], [0])
            store.append(
                Episode(
                    key=start.start_id,
                    task=start.task,
                    instruction=start.instruction,
                    views=ROBOT.views,
                    frames=began.frames[0],
                    poses=began.poses[0],
                    actions=np.zeros((0, ROBOT.steps_per_frame, ROBOT.action_dim), np.float32),
                    extra={"start_id": start.start_id, "seed": start.seed, "split": start.split},
                )
            )
        store.compact()
    world.close()


def make_judge_suites(out: Path) -> None:
    for split, first, count in (("training", 600, 6), ("validation", 300, 2)):
        starts = [s for task in TASKS for s in start_states(split, task, count, first)]
        Suite(
            name=f"judge-{split}", robot=ROBOT.name, chunks=10, starts=tuple(starts), seed=7
        ).save(out / f"{split}.json")


def make_calibration_suite(out: Path, chunks: int) -> None:
    starts = [s for task in TASKS for s in start_states("validation", task, 6, 400)]
    for seed, name in (
        (20261122, "suite"),
        (20261123, "again"),
    ):  # again: the same, other randomness
        suite = Suite(
            name="embedded-calibration",
            robot=ROBOT.name,
            chunks=chunks,
            starts=tuple(starts),
            seed=seed,
        )
        suite.save(out / f"{name}.json")
    draw_starts(suite, out / "starts")


def make_suites(
    out: Path, name: str, parts: Mapping[str, tuple[str, int, int]], chunks: int
) -> None:
    """Start states that nothing else uses. parts: name of each suite, its split, how many start
    states of a task, and the number of the first."""
    for part, (split, count, first) in parts.items():
        starts = [s for task in TASKS for s in start_states(split, task, count, first)]
        suite = Suite(name=f"{name}-{part}", robot=ROBOT.name, chunks=chunks, starts=tuple(starts))
        suite.save(out / f"{part}.json")
        draw_starts(suite, out / f"starts-{part}")


POPULATION = {"training": ("training", 6, 2000), "validation": ("validation", 5, 2000),
              "reported": ("evaluation", 5, 2000)}  # fmt: skip
"""For the policies of each role."""
IMPROVEMENT = {"imagine": ("training", 100, 4000), "held-out": ("evaluation", 50, 6000)}
"""To act from (in imagination from a part of them), and to measure at; 4000 to 4049 of the second
split were measured at while the recipe was sought."""


def keep_truth(rollouts: Path, out: Path) -> None:
    demo = {start.start_id for start in Suite.load(out / "demo.json").starts}
    tables = []
    with open_rollouts(out / "truth-clips", ROBOT) as clips:
        for folder in stores_in(rollouts):
            store = EpisodeStore.open(folder)
            tables.append(rollout_table(store))
            for index, row in store.metadata().iterrows():
                if row["start_id"] in demo and row["key"] not in clips:
                    episode = store.episode(int(index))
                    episode.extra.pop("chunks", None)  # times of one machine, of no use to others
                    clips.append(episode)
        clips.compact()
    columns = list(OUTCOME_COLUMNS)
    table = pd.concat(tables, ignore_index=True)[columns]
    write_atomically(out / "truth.parquet", table.to_parquet)
    rates = table.assign(success=table["outcome"] == "success").pivot_table(
        index="policy", columns="task", values="success"
    )
    rates["all"] = rates.mean(axis=1)
    print(rates.sort_values("all", ascending=False).round(2).to_string())


def keep_strangers(judged: Path, ranked: Path, population: Path, out: Path) -> None:
    members = json.loads((population / "population.json").read_text())["members"]
    board = json.loads((ranked / "leaderboard.json").read_text())
    found = board["agreement"]

    def interval(name: str) -> tuple[float, float, float]:
        ends = found["intervals"][name]
        return found[name], ends["low"], ends["high"]

    rollouts = read_verdicts(judged)
    model, (judge,) = world_model_of(judged), board["judges"]["imagined"]
    assert model is not None, "nobody knows which world model imagined these"
    known = Strangers(
        judge=judge,
        world_model=model,
        policies=found["policies"],
        starts=rollouts["start_id"].nunique(),
        pearson=interval("pearson"),
        spearman=interval("spearman"),
        top1_regret=interval("top1_regret"),
        mean_error=found["mean_absolute_error"],
        seen=tuple(one["name"] for one in members if one["role"] == "training"),
    )
    text = json.dumps(asdict(known), indent=1) + "\n"
    write_atomically(out / shipped.STRANGERS, lambda path: path.write_text(text) and None)
    print("\n".join(known.notes(known.seen)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/suite"))
    parser.add_argument("--rollouts", type=Path, default=Path("runs/truth"))
    parser.add_argument("--ranked", type=Path, default=Path("runs/ranked"))
    parser.add_argument("--population", type=Path, default=Path("runs/population"))
    parser.add_argument("--per-task", type=int, default=10)
    parser.add_argument("--demo-per-task", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=8)
    options = parser.parse_args()
    if options.what == "suite":
        make_suite(options.out, options.per_task, options.demo_per_task, options.chunks)
    elif options.what == "strangers":
        keep_strangers(options.rollouts, options.ranked, options.population, options.out)
    elif options.what == "judge-suites":
        make_judge_suites(options.out)
    elif options.what == "calibration-suite":
        make_calibration_suite(options.out, options.chunks)
    elif options.what == "population-suites":
        make_suites(options.out, "population", POPULATION, options.chunks)
    elif options.what == "improvement-suites":
        make_suites(options.out, "improvement", IMPROVEMENT, options.chunks)
    else:
        keep_truth(options.rollouts, options.out)


if __name__ == "__main__":
    main()
