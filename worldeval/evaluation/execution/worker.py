"""One worker: a world and the policies, opened once, and the units that it is given.

Enters: a ``Recipe`` (plain data, so that it can be sent to another process or machine) and units.
Leaves: rollouts in the worker's own store, and a ``Result`` for whoever gave the unit. Nothing
heavy is imported before a worker begins: it chooses its GPU first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.errors import (
    PolicyError,
    PolicyGoneError,
    StartStateError,
    WorldError,
    WorldEvalError,
)

if TYPE_CHECKING:
    from worldeval.evaluation.execution.schedule import Unit
    from worldeval.evaluation.stage import StageOptions


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a worker opens the stage that its head has opened and checked."""

    options: StageOptions
    policies: tuple[str, ...]
    folder: Path
    seed: int | None = None
    controls: bool = False
    retries: int = 0
    disk_wait_s: float = 0.0
    working_folder: str = field(default_factory=os.getcwd)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a unit. ``error``: why nothing was kept; ``doubtful``: all of its rollouts ended
    in errors; ``gone``: so is the policy. Seconds by part, as in ``RunSummary``."""

    outcomes: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: WorldEvalError | None = None
    doubtful: bool = False
    gone: bool = False


class Worker:
    """Rolls out what it is told. number: which of the workers it is, to choose a GPU."""

    def __init__(self, recipe: Recipe, part: Path, number: int) -> None:
        choose_gpu(number)
        os.chdir(recipe.working_folder)
        self.recipe = recipe
        self.stage = recipe.options.open_again(
            recipe.policies, recipe.folder, controls=recipe.controls, seed=recipe.seed
        )
        self.store = self.stage.store(part)
        few = self.stage.controls
        self.starts = {start.start_id: start for start in self.stage.suite.starts}
        self.policies = {
            policy.spec.name: policy
            for policy in (*self.stage.policies, *(few.policies if few else ()))
        }

    def roll(self, unit: Unit, on_frames: Callable[[int], None] | None = None) -> Result:
        """Roll out a unit. What is no fault of its rollouts is in the result; faults are raised."""
        from worldeval.rollout.engine import run

        suite = self.stage.suite
        suite = replace(suite, starts=tuple(self.starts[start] for start in unit.starts))

        def told(event: Any) -> None:
            if on_frames is not None:
                on_frames(event.frames.shape[0] * event.frames.shape[1])

        try:
            report = run(
                self.stage.world,
                self.policies[unit.policy],
                suite,
                self.store,
                batch=len(unit.starts),
                progress=False,
                on_chunk=told,
                adapter=self.stage.adapter,
                proven=unit.proven,
                retries=self.recipe.retries,
                disk_wait_s=self.recipe.disk_wait_s,
            )
        except PolicyGoneError as error:
            return Result(error=error, gone=True)
        except WorldEvalError as error:
            rolled = isinstance(error, PolicyError | WorldError)
            return Result(error=error, doubtful=rolled and not isinstance(error, StartStateError))
        return Result(
            outcomes=report.outcomes,
            frames=report.frames,
            seconds=report.seconds,
            notes=report.notes,
        )

    def close(self) -> None:
        self.store.close()
        self.stage.close()


def choose_gpu(number: int) -> None:
    """Let this process see one of the GPUs; before torch is loaded."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        count = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        visible = [str(i) for i in range(count)]
    else:
        visible = [name for name in given.split(",") if name.strip()]
    if len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
