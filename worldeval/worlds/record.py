"""Recording episodes of the embedded world on all cores.

What enters: a ``RecordConfig``. What leaves: an ``EpisodeStore`` of episodes of fixed length with
frames, commanded poses, executed actions, the clean expert's action at each visited state, and
Meta-World's success flag. Failures are recorded on purpose: a world model that has only seen
experts dreams that everything works (design.md, "The embedded world").

Episode number i of a task depends on (seed, split, task, i) alone, so it is the same whatever the
number of workers, and a run that was stopped continues where it was: keys in the store are
skipped. Episodes arrive in rounds over the tasks, so a partial store is balanced already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.workers import in_order
from worldeval.errors import ConfigError
from worldeval.types import Episode
from worldeval.worlds.sawyer import ROBOT, SPLITS, TASKS, simulated_episode, start_state

if TYPE_CHECKING:
    from worldeval.worlds.metaworld import MetaWorld

KINDS = (
    "expert",
    "noisy",
    "failing",
    "random",
    "memory",
    "revisit",
    "border",
    "faulty",
    "counterfactual",
)
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What to record. mix: weight of each kind of driver (``worlds/experts.py``, and for border,
    faulty and counterfactual ``worlds/counterfactuals.py``)."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Meta-World tasks to record."""
    episodes_per_task: int = 90
    """Episodes of each task, of all kinds together."""
    mix: tuple[tuple[str, float], ...] = (
        ("expert", 0.35),
        ("noisy", 0.35),
        ("failing", 0.20),
        ("random", 0.10),
    )
    """Kinds of driver and their weights, such as `expert 0.7 random 0.3`; the kinds are those
    of ``worlds/experts.py``, and border, faulty and counterfactual."""
    split: str = "training"
    """Which start states: training, validation or evaluation; no two splits share one."""
    seed: int = 0
    """Seed of what the drivers do; the start states depend on split and index alone."""
    first_index: int = 0
    """Index of the first start state of each task within the split."""
    workers: int = 2
    """Processes that simulate at the same time."""
    chunks: int = 10
    """Action chunks per episode: its length."""
    images: str = "lossless"
    """How images are stored: lossless, or video (H.264, much smaller)."""

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise ConfigError(f"tasks is {self.tasks!r}, expected some of {', '.join(TASKS)}")
        if self.split not in SPLITS:
            raise ConfigError(f"split is {self.split!r}, expected one of {', '.join(SPLITS)}")
        if self.images not in ("video", "lossless"):
            raise ConfigError(f"images is {self.images!r}, expected 'video' or 'lossless'")
        for name in ("episodes_per_task", "workers", "chunks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for kind, weight in self.mix:
            if kind not in KINDS or weight < 0:
                raise ConfigError(
                    f"mix has {kind!r}: {weight}, expected weights >= 0 of {', '.join(KINDS)}"
                )
        if sum(weight for _, weight in self.mix) <= 0:
            raise ConfigError(f"mix is {self.mix!r}, expected a sum above 0")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to record."""

    task: str
    index: int
    kind: str
    split: str
    seed: int
    chunks: int

    @property
    def key(self) -> str:
        return f"{self.task}/{self.split}/{self.index:04d}/{self.kind}-{self.seed}"


def kind_at(mix: tuple[tuple[str, float], ...], index: int, task: str) -> str:
    """Kind of the index-th episode: a golden-ratio sequence keeps every prefix near the mix,
    shifted from task to task, so that a round over the tasks holds all kinds as well."""
    total = sum(weight for _, weight in mix)
    phase = list(TASKS).index(task) / len(TASKS)
    place, reached = (phase + index * _GOLDEN) % 1.0, 0.0
    for kind, weight in mix:
        reached += weight / total
        if place < reached:
            return kind
    return mix[-1][0]


def jobs(config: RecordConfig) -> list[Job]:
    """All episodes of a configuration, in rounds over its tasks."""
    first = config.first_index
    return [
        Job(
            task=task,
            index=index,
            kind=kind_at(config.mix, index, task),
            split=config.split,
            seed=config.seed,
            chunks=config.chunks,
        )
        for index in range(first, first + config.episodes_per_task)
        for task in config.tasks
    ]


def record_episode(job: Job, world: MetaWorld) -> Episode:
    """Run one episode. The frame count is fixed: after success, experts hold still."""
    from worldeval.worlds import counterfactuals
    from worldeval.worlds.experts import Expert, driver_of

    start = start_state(job.split, job.task, job.index)
    digest = hashlib.sha256(f"{job.key}/{start.seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    simulation = world.simulation(job.task)
    simulation.reset(start.seed)
    count, stride = job.chunks * ROBOT.frames_per_chunk, ROBOT.steps_per_frame
    if job.kind in counterfactuals.KINDS:
        driver = counterfactuals.driver_of(job.kind, simulation, start.seed, rng, count * stride)
    else:
        driver = driver_of(job.kind, simulation, rng)
    expert = Expert(job.task)
    frames = [world.draw(simulation)]
    poses = [simulation.pose.copy()]
    success = [simulation.success]
    distances = [simulation.goal_distance_m]
    actions = np.zeros((count, stride, ROBOT.action_dim), np.float32)
    expert_actions = np.zeros_like(actions)
    for t in range(count):
        reached, nearest = False, np.inf
        for s in range(stride):
            expert_actions[t, s] = expert.act(simulation)
            actions[t, s] = driver.act(simulation)
            reached |= simulation.step(actions[t, s])
            nearest = min(nearest, simulation.goal_distance_m)
        frames.append(world.draw(simulation))
        poses.append(simulation.pose.copy())
        success.append(reached)
        distances.append(nearest)
    return simulated_episode(
        job.key,
        job.kind,
        start,
        frames=frames,
        poses=poses,
        actions=actions,
        success_at=success,
        expert_actions=expert_actions,
        extra={
            "scene": simulation.task.scene,
            "goal_distance_m": [round(float(x), 5) for x in distances],
            "success_distance_m": simulation.success_distance_m,
        },
    )


_world: MetaWorld | None = None
"""The simulator of a worker process; building environments anew for every episode costs more
than an episode."""


def _open_world() -> None:
    global _world
    from worldeval.worlds.metaworld import MetaWorld

    _world = MetaWorld()


def _work(job: Job) -> Episode:
    assert _world is not None  # ``_open_world`` came first
    return record_episode(job, _world)


def _episodes(todo: list[Job], workers: int) -> Iterator[Episode]:
    """Episodes in the order of ``todo``, whatever the number of workers."""
    global _world
    try:
        yield from in_order(_work, todo, workers, begin=_open_world)
    finally:
        if _world is not None:  # recorded in this process
            _world.close()
            _world = None


def open_store(config: RecordConfig, out: str | Path) -> EpisodeStore:
    return EpisodeStore.open_or_create(
        Path(out),
        **store_fields(ROBOT),
        images=config.images,
        expert_actions=True,
        extra=robot_extra(ROBOT),
    )


def record(config: RecordConfig, out: str | Path, *, progress: bool = True) -> EpisodeStore:
    """Record what is missing into the store at ``out`` and return it.

    Ctrl-C leaves every finished episode in the store; calling again continues.
    """
    store = open_store(config, out)
    todo = [job for job in jobs(config) if job.key not in store]
    bar = tqdm(total=len(todo), desc=f"record {config.split}", disable=not progress, unit="episode")
    solved = 0
    try:
        with bar:
            for done, episode in enumerate(_episodes(todo, min(config.workers, max(1, len(todo))))):
                store.append(episode)
                solved += bool(episode.success)
                bar.set_postfix(success=f"{solved / (done + 1):.0%}", refresh=False)
                bar.update()
    finally:
        store.close()
    return store
