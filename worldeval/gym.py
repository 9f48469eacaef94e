"""Worlds as gymnasium environments by name, for learners and evaluation loops of others.

Enters: the keywords of ``gymnasium.make``. Leaves: a ``WorldEnv``, or with ``make_vec`` a
``WorldVectorEnv``, whose rollouts go through the world model together::

    env = gymnasium.make("worldeval.gym:worldeval/Imagination-v0", task="reach", reward="progress")
    envs = gymnasium.make_vec("worldeval.gym:worldeval/Imagination-v0", num_envs=8)
    true = gymnasium.make("worldeval.gym:worldeval/World-v0", world="metaworld", task="reach")

The part before the colon is imported by gymnasium, which finds no packages by itself any more;
after ``import worldeval.gym`` the name alone is enough. Equal seeds give equal bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.registry import did_you_mean

if TYPE_CHECKING:
    from worldeval.rollout.env_form import EnvForm
    from worldeval.rollout.suite import Suite
    from worldeval.rollout.vector_env import WorldEnv, WorldVectorEnv
    from worldeval.types import Judge, World

IMAGINATION_ID = "worldeval/Imagination-v0"
WORLD_ID = "worldeval/World-v0"
REWARDS = ("success", "progress")


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """What ``gymnasium.make`` may be given.

    world: a name that ``--world`` takes, or a World. suite: a JSON file, or a Suite; if None, what
    ``--suite`` would take. task: one or several of its tasks. per_task: only so many start states
    of each. chunks: how long a rollout is. starts, world_model, memory, solver, sampler_steps,
    robot, device: as the options of these names, of an imagined world.
    judge: who decides at the end: a judge's URI, a Judge, or None for the world's own flag; of an
    imagined world the shipped one, if not given.
    reward: "success" (1 where it is seen), or "progress": what a step gained of it, by the progress
    judge named by ``progress`` (the shipped one).
    step, pictures, observation, view_size, views: see ``worldeval.rollout.env_form.EnvForm``.
    """

    world: str | World = "imagination"
    suite: str | Path | Suite | None = None
    task: str | Sequence[str] | None = None
    per_task: int | None = None
    chunks: int | None = None
    starts: str | Path | None = None
    world_model: str | Path | None = None
    memory: str | None = None
    solver: str | None = None
    sampler_steps: int | None = None
    robot: str | None = None
    device: str | None = None
    judge: str | Path | Judge | None = field(default="shipped")
    reward: str = "success"
    progress: str | Path = "shipped"
    step: str = "chunk"
    pictures: str = "frame"
    observation: str = "dict"
    view_size: tuple[int, int] = (8, 8)
    views: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ConfigError(
                f"reward is {self.reward!r}{did_you_mean(str(self.reward), REWARDS)}, expected "
                "'success' or 'progress'"
            )

    @property
    def form(self) -> EnvForm:
        from worldeval.rollout.env_form import EnvForm

        return EnvForm(
            step=self.step,
            pictures=self.pictures,
            observation=self.observation,
            view_size=self.view_size,
            views=None if self.views is None else tuple(self.views),
        )

    def parts(self) -> dict[str, Any]:
        """World, suite, judge, progress and form, opened: arguments of ``WorldEnv``."""
        from worldeval.evaluation.opening import ImaginationOptions, open_world
        from worldeval.evaluation.stage import StageOptions
        from worldeval.judging.loading import load_judge
        from worldeval.judging.progress import ProgressJudge
        from worldeval.learning.devices import check_device
        from worldeval.rollout.suite import Suite

        check_device(self.device)
        form = self.form  # what is wrong in it is told before a world is opened
        imagination = ImaginationOptions(
            starts=_path(self.starts),
            world_model=_path(self.world_model),
            memory=self.memory,
            solver=self.solver,
            sampler_steps=self.sampler_steps,
            robot=self.robot,
            device=self.device,
        )
        world = self.world
        if isinstance(world, str):
            world = open_world(world, imagination)
        tasks = (self.task,) if isinstance(self.task, str) else tuple(self.task or ())
        if isinstance(self.suite, Suite):
            suite = self.suite.subset(tasks or None, self.per_task)
            suite = dataclasses.replace(suite, chunks=self.chunks or suite.chunks)
        else:
            suite = StageOptions(
                suite=_path(self.suite),
                task=tasks,
                per_task=self.per_task,
                chunks=self.chunks,
                imagination=imagination,
            ).chosen_suite(world)
        judge, device = self.judge, self.device or "cpu"
        if judge == "shipped":
            judge = shipped.path(shipped.JUDGE) if self.world == "imagination" else None
        if isinstance(judge, str | Path):
            judge = load_judge(judge, device=device)
        gains = None
        if self.reward == "progress":
            place = self.progress
            place = shipped.path(shipped.PROGRESS) if place == "shipped" else place
            gains = ProgressJudge.load(place, device=device).newest
        return {
            "world": world,
            "suite": suite,
            "judge": None if judge is None else judge.judge,
            "progress": gains,
            "form": form,
        }


def world_env(
    *, render_mode: str | None = None, flat_actions: bool = True, stride: int = 1, **options: Any
) -> WorldEnv:
    """One rollout; ``gymnasium.make`` calls it. options: of ``EnvOptions``."""
    from worldeval.rollout.vector_env import WorldEnv

    return WorldEnv(
        **_known(options).parts(),
        render_mode=render_mode,
        flat_actions=flat_actions,
        stride=stride,
    )


def world_vector_env(
    *, num_envs: int, render_mode: str | None = None, flat_actions: bool = True, **options: Any
) -> WorldVectorEnv:
    """Many rollouts in one batch; ``gymnasium.make_vec`` calls it. options: of ``EnvOptions``."""
    from worldeval.rollout.vector_env import WorldVectorEnv

    return WorldVectorEnv(
        **_known(options).parts(),
        num_envs=num_envs,
        render_mode=render_mode,
        flat_actions=flat_actions,
    )


def imagination(**options: Any) -> WorldEnv:
    """``world_env`` of the world model."""
    return world_env(**_imagined(options))


def imagination_vector(**options: Any) -> WorldVectorEnv:
    """``world_vector_env`` of the world model."""
    return world_vector_env(**_imagined(options))


def _imagined(options: dict[str, Any]) -> dict[str, Any]:
    if "world" in options:
        raise ConfigError(
            f"world is {options['world']!r}, but {IMAGINATION_ID} is the world model; make "
            f"{WORLD_ID!r} for another world"
        )
    return {"world": "imagination", **options}


def _known(options: dict[str, Any]) -> EnvOptions:
    names = [one.name for one in dataclasses.fields(EnvOptions)]
    for name in options:
        if name not in names:
            raise ConfigError(
                f"the environment was given {name!r}{did_you_mean(name, names)}, expected "
                f"{', '.join(names)}"
            )
    return EnvOptions(**options)


def _path(given: Any) -> Path | None:
    return None if given is None else Path(given)


def register() -> None:
    """Tell gymnasium the names; importing this module does."""
    # Named, not given, so that gymnasium can write an environment's spec down.
    for name, one, many in (
        (IMAGINATION_ID, "imagination", "imagination_vector"),
        (WORLD_ID, "world_env", "world_vector_env"),
    ):
        if name not in gymnasium.registry:
            # It minds the order of reset and step itself, and LeRobot asks for task_description,
            # which gymnasium's wrapper would hide.
            gymnasium.register(
                id=name,
                entry_point=f"{__name__}:{one}",
                vector_entry_point=f"{__name__}:{many}",
                order_enforce=False,
            )


register()
