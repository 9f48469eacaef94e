"""What decides one imagined rollout besides world model and policy: a value that can be kept.

Enters: a recorded start state and what is varied. Leaves: a ``Recipe``, as JSON in every episode
that is made by it; from these, the batch in which it was imagined is made again bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.data.files import parsed_json
from worldeval.errors import ConfigError, DataError
from worldeval.settings import settings_from
from worldeval.types import StartState


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One rollout to imagine. Its seeds derive from the suite's seed and ``start_id`` alone.

    start_id: of the imagined rollout, unique. base: of the recorded start state that it begins at.
    meaning: the instruction of the recorded start state, which the judge is asked about.
    words: where the instruction comes from: "suite", "templates" or the URI of a model.
    group: what rollouts share that differ in seeds and noise only; their mean is the value of the
        start.
    arm: pose (P,) to which the arm is moved before the policy begins, in ``arm_frames`` frames; ()
        leaves it. path: poses (T, P) that are commanded before that; path_of: whose they were.
    noise: standard deviation of the exploration noise on the actions.
    """

    start_id: str
    base: str
    task: str
    split: str
    scene_seed: int
    instruction: str
    meaning: str
    words: str = "suite"
    group: str = ""
    arm: tuple[float, ...] = ()
    arm_frames: int = 0
    path: tuple[tuple[float, ...], ...] = ()
    path_of: str = ""
    noise: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.arm) != (self.arm_frames > 0):
            raise ConfigError(
                f"recipe {self.start_id!r} moves the arm in {self.arm_frames} frames to "
                f"{self.arm!r}, expected a pose and 1 frame or more, or neither"
            )

    @property
    def moved(self) -> bool:
        """Whether the policy begins elsewhere than the recording."""
        return bool(self.arm or self.path)

    def start(self) -> StartState:
        """The start state under which the rollout loop knows it."""
        return StartState(
            start_id=self.start_id,
            task=self.task,
            seed=self.scene_seed,
            split=self.split,
            instruction=self.instruction,
        )

    def recorded_start(self) -> StartState:
        """The start state that was recorded."""
        return dataclasses.replace(self.start(), start_id=self.base, instruction=self.meaning)

    def approach(self, pose: np.ndarray) -> np.ndarray:
        """Poses (T, P) float32 that are commanded after ``pose`` (P,) before the policy begins."""
        path = np.asarray(self.path, np.float32).reshape(-1, len(pose))
        if not self.arm:
            return path
        last = np.asarray(path[-1] if len(path) else pose, np.float64)
        share = np.arange(1, self.arm_frames + 1)[:, None] / self.arm_frames
        moved = last + share * (np.asarray(self.arm, np.float64) - last)
        return np.concatenate([path, moved.astype(np.float32)])

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


def as_text(recipes: Sequence[Recipe]) -> str:
    """Recipes as one line of JSON, each number exactly."""
    return json.dumps([recipe.to_json() for recipe in recipes], ensure_ascii=False)


def from_text(text: str, whose: str) -> tuple[Recipe, ...]:
    """The recipes that ``as_text`` wrote. DataError, naming ``whose`` they are, if it did not."""
    try:
        values = parsed_json(text)
        if not isinstance(values, list):
            raise ConfigError(f"it is a {type(values).__name__}, expected a list")
        return tuple(settings_from(Recipe, value, f"[{i}].") for i, value in enumerate(values))
    except (ValueError, ConfigError) as error:
        raise DataError(
            f"the recipes of {whose} cannot be read ({error}); it was not made by `worldeval "
            "synthesize`, or is damaged"
        ) from error
