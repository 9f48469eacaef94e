"""How many rollouts ended how, and the rate and interval that follow.

In: outcomes, and how much each task weighs. Out: ``OutcomeCounts``, one per policy and task, or
over tasks.

UNDECIDED and ERROR are never failures: rate = successes / (successes + failures), and both are
counted beside it. Over tasks t with weights w_t that sum to 1 over the tasks that have decided
rollouts (Kish, Survey Sampling, 1965, 11.7)::

    rate              = sum_t w_t successes_t / decided_t
    effective rollouts = 1 / sum_t (w_t^2 / decided_t)

and the interval is Wilson's for that rate of so many rollouts. Where every rollout weighs the same
this is the plain count.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worldeval.data.matching import near
from worldeval.errors import ConfigError, MismatchError
from worldeval.ranking.intervals import Interval, wilson_interval
from worldeval.types import Outcome

Weights = Literal["rollouts", "equal"] | Mapping[str, float]
"""``rollouts``: all decided rollouts weigh the same; ``equal``: all tasks; or a weight per task."""


@dataclass(frozen=True, kw_only=True)
class OutcomeCounts:
    """How many rollouts ended how.

    weighted: (rate, effective rollouts) where tasks weigh otherwise than by their rollouts.
    """

    successes: int = 0
    failures: int = 0
    undecided: int = 0
    errors: int = 0
    confidence: float = 0.95
    weighted: tuple[float, float] | None = None

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], confidence: float = 0.95) -> OutcomeCounts:
        kinds = list(outcomes)
        return cls(
            successes=kinds.count(Outcome.SUCCESS),
            failures=kinds.count(Outcome.FAILURE),
            undecided=kinds.count(Outcome.UNDECIDED),
            errors=kinds.count(Outcome.ERROR),
            confidence=confidence,
        )

    @property
    def decided(self) -> int:
        return self.successes + self.failures

    @property
    def rollouts(self) -> int:
        return self.decided + self.undecided + self.errors

    @property
    def rate(self) -> float | None:
        """In [0, 1]; None where nothing was decided."""
        if self.weighted is not None:
            return self.weighted[0]
        return self.successes / self.decided if self.decided else None

    @property
    def effective(self) -> float:
        """How many rollouts of equal weight would say as much; at most ``decided``."""
        return self.decided if self.weighted is None else self.weighted[1]

    @property
    def interval(self) -> Interval:
        """Wilson's; [0, 1] where nothing was decided."""
        rate = self.rate
        if rate is None:
            return Interval(0.0, 1.0)
        successes = self.successes if self.weighted is None else rate * self.effective
        return wilson_interval(successes, self.effective, confidence=self.confidence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "successes": self.successes,
            "failures": self.failures,
            "undecided": self.undecided,
            "errors": self.errors,
            "rate": self.rate,
            "low": self.interval.low,
            "high": self.interval.high,
            "effective_rollouts": self.effective,
        }


def count_by_task(
    outcomes: Mapping[tuple[str, str, str], Outcome], confidence: float = 0.95
) -> dict[str, dict[str, OutcomeCounts]]:
    """Of each policy, then of each task; outcomes by (policy, task, start_id)."""
    grouped: dict[str, dict[str, list[Outcome]]] = {}
    for (policy, task, _), outcome in outcomes.items():
        grouped.setdefault(policy, {}).setdefault(task, []).append(outcome)
    return {
        policy: {task: OutcomeCounts.of(kinds, confidence) for task, kinds in parts.items()}
        for policy, parts in grouped.items()
    }


def over_tasks(counts: Mapping[str, OutcomeCounts], weights: Weights) -> OutcomeCounts:
    """The counts of single tasks, task by name, joined into one."""
    parts = list(counts.values())
    together = OutcomeCounts(
        successes=sum(part.successes for part in parts),
        failures=sum(part.failures for part in parts),
        undecided=sum(part.undecided for part in parts),
        errors=sum(part.errors for part in parts),
        confidence=parts[0].confidence,
    )
    if weights == "rollouts":
        return together
    weight = {task: task_weight(weights, task) for task, part in counts.items() if part.decided}
    total = sum(weight.values())
    if total <= 0:  # nothing was decided in a task that counts
        return OutcomeCounts(
            undecided=together.undecided, errors=together.errors, confidence=together.confidence
        )
    rate = sum(w * counts[t].successes / counts[t].decided for t, w in weight.items()) / total
    spread = sum((w / total) ** 2 / counts[t].decided for t, w in weight.items())
    # min: rounding must not lift a rate of exactly 1 above it.
    return OutcomeCounts(**(vars(together) | {"weighted": (min(1.0, rate), 1 / spread)}))


def task_weight(weights: Weights, task: str) -> float:
    """Of a whole task, not of each of its rollouts; not for ``rollouts``."""
    return 1.0 if weights == "equal" else float(weights[task])  # type: ignore[index]


def task_share(weights: Weights, tasks: Sequence[str], task: str) -> float | None:
    """Share of a task in rates over all ``tasks``; None where rollouts weigh, not tasks."""
    if weights == "rollouts":
        return None
    return task_weight(weights, task) / sum(task_weight(weights, other) for other in tasks)


def check_weights(weights: Weights, tasks: Sequence[str]) -> None:
    """Raise for weights that are no weights, or that do not name exactly the tasks."""
    if isinstance(weights, str):
        if weights not in ("rollouts", "equal"):
            raise ConfigError(
                f"weights is {weights!r}, expected rollouts, equal, or a weight for each task"
            )
        return
    for task, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        # Compared, not math.isfinite: whole numbers of JSON may be too large for a float.
        if not number or not 0 <= weight <= sys.float_info.max:
            raise ConfigError(
                f"the weight of task {task!r} is {weight!r:.40}, expected a number of 0 or more"
            )
    without = sorted(set(tasks) - set(weights))
    strange = sorted(set(weights) - set(tasks))
    if without or strange:
        found = [name for name in (near(task, without) for task in strange) if name]
        meant = f" (did you mean {found}?)" if found else ""
        raise MismatchError(
            "the task weights do not fit the rollouts: "
            + (f"no weight for {without}; " if without else "")
            + (f"no rollouts of {strange}{meant}; " if strange else "")
            + "give exactly one weight for each task (0 leaves a task out)"
        )
    if not any(weights.values()):
        raise ConfigError(f"all task weights are 0 ({sorted(weights)}); give one above 0")
