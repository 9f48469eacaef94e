"""How often a judge is right: what was found, its file, and its use for correcting rates.

Enters: confusion counts of a judge's verdicts against what was true, one a (world, policy, task),
as ``assessing.assess`` tallies them, or a ``calibration.json``. Leaves: sensitivity and specificity
with Wilson intervals, pooled and per world, policy and task, and per policy the errors with which
``worldeval.ranking`` corrects a rate (``Assessment.errors_for``).

A judge errs differently on other videos. So an assessment knows of which judge, worlds, world model
and tasks it speaks, and ``check`` refuses all others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from worldeval.data.atomic import write_whole
from worldeval.data.files import load_json
from worldeval.data.finite import not_finite
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.judge_calibration.error_rates import (
    ErrorRates,
    Reliability,
    negatives,
    positives,
    total,
)
from worldeval.judge_calibration.raters import RaterAgreement
from worldeval.judge_calibration.shrinkage import SharedRate
from worldeval.judge_calibration.thresholds import Threshold
from worldeval.judging.probability import Counts
from worldeval.ranking.judged_rates import JudgeCalibration
from worldeval.ranking.peer_rates import LEAST_PEERS, Confusion, PeerErrors
from worldeval.settings import settings_from

FORMAT = "worldeval-judge-calibration-1"
FILE = "calibration.json"
RATES = ("pooled", "per_world", "per_policy", "per_task")
"""What a file says beside its cells for those who read it."""
MOST_ROLLOUTS = 10**9

CellKey = tuple[str, str, str]
"""(world, policy, task)"""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What is known of one judge's errors.

    judge: its name, as in the verdict tables. truth: who knew better (a world, or people).
    cells: confusion counts a (world, policy, task) of the judged rollouts.
    world_model: digest of the model that imagined them; None for a true world, or unknown.
    reliability, thresholds: None and empty for a judge that gives no probabilities.
    raters: how far several who judged the same rollouts agree; None without others.
    notes: sentences that a reader should know.
    helps_families: whether correcting the rates of a family of policies by the errors on others
        brings them nearer to the truth; None where that was not measured.
    """

    judge: str
    truth: str
    cells: Mapping[CellKey, Counts]
    world_model: str | None = None
    confidence: float = 0.95
    reliability: Reliability | None = None
    thresholds: tuple[Threshold, ...] = ()
    raters: RaterAgreement | None = None
    notes: tuple[str, ...] = field(default=())
    helps_families: bool | None = None

    def __post_init__(self) -> None:
        if not self.cells:
            raise DataError("an assessment without rollouts says nothing; judge some")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence!r}, expected between 0 and 1")

    @property
    def worlds(self) -> tuple[str, ...]:
        return tuple(sorted({world for world, _, _ in self.cells}))

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(sorted({policy for _, policy, _ in self.cells}))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for _, _, task in self.cells))

    def counts(
        self,
        *,
        worlds: Collection[str] | None = None,
        policy: str | None = None,
        tasks: Collection[str] | None = None,
    ) -> Counts:
        """The sum over all cells that fit; None fits all."""
        return total(
            counts
            for (world, name, task), counts in self.cells.items()
            if (worlds is None or world in worlds)
            and policy in (None, name)
            and (tasks is None or task in tasks)
        )

    def rates(
        self,
        *,
        worlds: Collection[str] | None = None,
        policy: str | None = None,
        tasks: Collection[str] | None = None,
    ) -> ErrorRates:
        """Sensitivity and specificity of these cells, each with its Wilson interval."""
        counts = self.counts(worlds=worlds, policy=policy, tasks=tasks)
        return ErrorRates.of(counts, self.confidence)

    def errors_for(
        self,
        policies: Iterable[str],
        *,
        worlds: Collection[str] | None = None,
        tasks: Collection[str] | None = None,
    ) -> dict[str, JudgeCalibration | PeerErrors]:
        """The judge's errors on each policy's rollouts, to correct its rate with.

        One that was calibrated gets its own: its few examples, drawn towards what the policies
        share, the more so the fewer they are and the less policies differ
        (``shrinkage.SharedRate``)::

            sensitivity = E[(m s + true positives) / (s + positives)]

        with m the sensitivity over all policies, averaged over what they tell of s; likewise
        specificity. ``positives`` and ``negatives`` are the number of examples that the
        knowledge is worth, mean (1 - mean) / variance - 1 (at least 1): the interval of
        ``rogan_gladen`` then carries all of this.

        Any other policy gets those of all that were, task by task (``PeerErrors``), or, if these
        are fewer than three, m with the spread between policies in its uncertainty.

        Where that was measured not to help families that were left out (``helps_families``), a
        policy that was not calibrated is absent from the answer.

        worlds, tasks: only what was calibrated there; default all. A policy on which the judge is
        no better than a coin (sensitivity + specificity <= 1) is absent from the answer: its rate
        cannot be corrected. Raises DataError where one of the two outcomes was never seen.
        """
        shared = self._shared(worlds, tasks)
        peers = self.confusions(worlds, tasks)
        answer: dict[str, JudgeCalibration | PeerErrors] = {}
        for name in policies:
            own = self.counts(worlds=worlds, policy=name, tasks=tasks)
            hit = shared[0].of(own.true_positive, positives(own))
            rejected = shared[1].of(own.true_negative, negatives(own))
            if hit.mean + rejected.mean <= 1:
                continue
            if name not in peers and self.helps_families is False:
                continue
            if name not in peers and len(peers) >= LEAST_PEERS:
                answer[name] = PeerErrors(peers=peers)
            else:
                answer[name] = JudgeCalibration(
                    sensitivity=hit.mean,
                    specificity=rejected.mean,
                    positives=max(1.0, hit.worth),
                    negatives=max(1.0, rejected.worth),
                    errors_of="own" if name in peers else "pooled",
                )
        return answer

    def confusions(
        self, worlds: Collection[str] | None = None, tasks: Collection[str] | None = None
    ) -> dict[str, dict[str, Confusion]]:
        """By policy and task, of the policies with a decided rollout."""
        peers: dict[str, dict[str, Confusion]] = {}
        for policy, task in product(self.policies, self.tasks if tasks is None else tasks):
            c = self.counts(worlds=worlds, policy=policy, tasks=[task])
            if positives(c) + negatives(c):
                peers.setdefault(policy, {})[task] = Confusion(
                    c.true_positive, c.false_positive, c.true_negative, c.false_negative
                )
        return peers

    def spread_between_policies(self) -> tuple[float, float] | None:
        """Standard deviation of sensitivity and of specificity between policies, beyond chance.

        sqrt(rho m (1 - m)) in the words of ``shrinkage``; None where an outcome was never seen.
        """
        counts = self.counts()
        if not positives(counts) or not negatives(counts):
            return None
        hit, rejected = (
            math.sqrt(rate.spread * rate.mean * (1 - rate.mean))
            for rate in self._shared(None, None)
        )
        return hit, rejected

    def _shared(
        self, worlds: Collection[str] | None, tasks: Collection[str] | None
    ) -> tuple[SharedRate, SharedRate]:
        """What the policies share: their sensitivity and their specificity."""
        known = [self.counts(worlds=worlds, policy=name, tasks=tasks) for name in self.policies]
        sides = {
            "succeeded": [(c.true_positive, positives(c)) for c in known],
            "failed": [(c.true_negative, negatives(c)) for c in known],
        }
        for word, pairs in sides.items():
            if not any(seen for _, seen in pairs):
                raise DataError(
                    f"no decided rollout of the calibration truly {word}: the judge's errors on "
                    "such cannot be known; calibrate with rollouts of both outcomes"
                )
        hit, rejected = (SharedRate(*zip(*pairs, strict=True)) for pairs in sides.values())
        return hit, rejected

    def check(
        self,
        *,
        judges: Iterable[str],
        worlds: Iterable[str],
        world_model: str | None = None,
        tasks: Iterable[str] = (),
    ) -> None:
        """Raise MismatchError unless this speaks of the judge, worlds and tasks of a ranking.

        world_model: digest of the ranking's; None where it is not known (nothing is compared).
        """
        others = sorted(set(judges) - {self.judge})
        if others:
            raise MismatchError(
                f"the calibration is of judge {self.judge!r}, the verdicts are of {others}; "
                f"calibrate that judge (`worldeval calibrate`)"
            )
        strange = sorted(set(worlds) - set(self.worlds))
        if strange:
            raise MismatchError(
                f"the judge was calibrated on rollouts in {list(self.worlds)}, the verdicts are on "
                f"rollouts in {strange}; a judge errs differently there, calibrate it there"
            )
        if None not in (world_model, self.world_model) and world_model != self.world_model:
            raise MismatchError(
                f"the judge was calibrated on the imagination of world model {self.world_model}, "
                f"the verdicts are on that of {world_model}; calibrate it on rollouts of that one"
            )
        unknown = sorted(set(tasks) - set(self.tasks))
        if unknown:
            raise MismatchError(
                f"the judge was not calibrated on the tasks {unknown}, only on "
                f"{sorted(self.tasks)}; calibrate it on these tasks or rank without them"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON: the cells, from which all else follows, and the rates for those who read it."""
        return {
            "format": FORMAT,
            "judge": self.judge,
            "truth": self.truth,
            "world_model": self.world_model,
            "worlds": list(self.worlds),
            "tasks": list(self.tasks),
            "policies": list(self.policies),
            "confidence": self.confidence,
            "cells": [
                {"world": world, "policy": policy, "task": task, **asdict(counts)}
                for (world, policy, task), counts in self.cells.items()
            ],
            "pooled": self.rates().to_dict(),
            "per_world": {w: self.rates(worlds=[w]).to_dict() for w in self.worlds},
            "per_policy": {p: self.rates(policy=p).to_dict() for p in self.policies},
            "per_task": {t: self.rates(tasks=[t]).to_dict() for t in self.tasks},
            "reliability": None if self.reliability is None else asdict(self.reliability),
            "thresholds": [asdict(threshold) for threshold in self.thresholds],
            "raters": None if self.raters is None else asdict(self.raters),
            "notes": list(self.notes),
            "helps_families": self.helps_families,
        }

    def save(self, place: str | Path) -> Path:
        """Write the file, wholly or not at all; into a folder as ``calibration.json``."""
        path = Path(place)
        path = path if path.suffix == ".json" else path / FILE
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(path, text)
        return path

    @classmethod
    def load(cls, place: str | Path) -> Assessment:
        """Read what ``save`` wrote: the file or its folder. DataError if it is damaged."""
        path = Path(place)
        path = path / FILE if path.is_dir() else path
        remedy = "make it again with `worldeval calibrate`"
        try:
            content = load_json(path)
        except FileNotFoundError as error:
            raise DataError(f"there is no calibration {path}; {remedy}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"the calibration {path} cannot be read ({error}); {remedy}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"{path} is no calibration of a judge: its format is {found!r}, expected "
                f"{FORMAT!r}; {remedy}"
            )
        try:
            return cls._from_dict(content)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise DataError(f"the calibration {path} is damaged ({reason}); {remedy}") from error

    @classmethod
    def _from_dict(cls, content: Mapping[str, Any]) -> Assessment:
        if wrong := not_finite(content):
            raise ValueError(f"{wrong} is no finite number")
        cells = {}
        for row in content["cells"]:
            numbers = {f.name: row[f.name] for f in fields(Counts)}
            if not all(type(n) is int and 0 <= n <= MOST_ROLLOUTS for n in numbers.values()):
                raise ValueError(f"counts are {numbers}, expected whole numbers from 0")
            key = (row["world"], row["policy"], row["task"])
            if not all(isinstance(name, str) for name in key):
                raise ValueError(f"a cell is of {key}, expected world, policy and task as text")
            if key in cells:
                raise ValueError(f"the cell {key} stands there twice")
            cells[key] = Counts(**numbers)
        table, raters = content["reliability"], content["raters"]
        # A file of an earlier version does not say what was measured on families.
        optional = [name for name in ("helps_families",) if name not in content]
        facts = settings_from(
            _Facts, {name: content[name] for name in _FACTS if name not in optional}
        )
        found = cls(
            cells=cells,
            reliability=None if table is None else Reliability.from_dict(table),
            raters=None if raters is None else RaterAgreement.from_dict(raters),
            **vars(facts),
        )
        found._check_rates(content)
        return found

    def _check_rates(self, content: Mapping[str, Any]) -> None:
        """Raise ValueError where rates in a file are not those of its own cells."""
        for name, written in self.to_dict().items():
            if name in RATES and (where := _differing(content.get(name), written, name)):
                raise ValueError(f"{where} is not what the cells say; one of them was changed")


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """Fields of an assessment that a file holds as they are."""

    judge: str
    truth: str
    world_model: str | None
    confidence: float
    thresholds: tuple[Threshold, ...]
    notes: tuple[str, ...]
    helps_families: bool | None = None


_FACTS = tuple(f.name for f in fields(_Facts))


def _differing(found: Any, expected: Any, name: str) -> str | None:
    """Where ``found`` differs from ``expected`` by more than rounding."""
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or set(found) != set(expected):
            return name
        parts = (_differing(found[key], expected[key], f"{name}.{key}") for key in expected)
        return next((part for part in parts if part), None)
    if isinstance(expected, float):
        near = type(found) in (int, float) and math.isclose(found, expected, abs_tol=1e-6)
        return None if near else name
    return None if type(found) is type(expected) and found == expected else name
