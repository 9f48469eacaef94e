"""When to stop believing: weights and a threshold, kept in ``trust.json``.

Enters: rollouts with signals and verdicts, and what truly happened from the same start states.
Leaves: a ``TrustCalibration``. The threshold is the distrust beyond which the least trusted
``share`` of the calibration's rollouts lie, as they are seen by weights fitted without their own
policy, or, where families are known, without its own family (``promise.py``). How useful the
doubt is, ``RateErrors`` measures: the mean absolute error, over policies, of the imagined rates
with and without the rollouts that are not trusted. Where it does not help unseen families, nobody
is told whom to trust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from worldeval.data.files import load_json
from worldeval.data.finite import finite, not_finite
from worldeval.data.provenance import write_atomically
from worldeval.data.tables import CELL, DECIDED, KEY
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.imagination.trust.combining import (
    Combination,
    Weights,
    fit_combination,
    held_out_distrust,
)
from worldeval.imagination.trust.measuring import (
    Measured,
    counting,
    measure_signals,
    wrong_verdicts,
)
from worldeval.imagination.trust.promise import Promise, make_promise
from worldeval.judge_calibration.families import helps_rates
from worldeval.metrics.roc import Area, auroc
from worldeval.settings import settings_from
from worldeval.types import Outcome

FORMAT = "worldeval-trust-1"
NOT_SIGNALS = (*KEY, *CELL, "judge", "outcome", "distrust", "trusted")
PENALTY = 10.0
SHARE = 0.2
"""Of the rollouts, those that are not trusted."""
MEASURED_ON = ("policies", "families")
KEEPS_NONE = 0.0
"""A threshold beyond which every verdict lies: no distrust is 0."""
COUNTS = 0.005
"""A signal with less weight than this, for either verdict, is reported to be off."""


@dataclass(frozen=True, kw_only=True)
class RateErrors:
    """Mean absolute error of the success rates over policies, in percentage points."""

    all_rollouts: float
    kept: float
    """Of the rates over the trusted rollouts, against the true rates over all start states."""
    removed: int
    by_policy: Mapping[str, tuple[float, float, float]]
    """Policy -> true rate, rate of all, rate of the trusted (NaN if none is), in percent."""


@dataclass(frozen=True, kw_only=True)
class TrustCalibration:
    """Weights of the signals, threshold, and what they are for. See ``calibrate_trust``."""

    combination: Combination
    threshold: float
    share: float
    world_model: str | None
    """Digest of the world model whose rollouts these were."""
    instrument: str
    """Digest of the trust checkpoint that measured the signals."""
    judges: tuple[str, ...]
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """AUROC of the combination, each policy by weights fitted without it; rates as well."""
    measured: tuple[Measured, ...] = ()
    measured_on: str = "policies"
    """Whether "held out" means whole "families", or single "policies"."""
    helps: bool | None = None
    """Whether the rates without distrusted rollouts are nearer to the truth for families that were
    held out; None where that was not measured."""
    promise: Promise | None = None
    """What can be said of the rollouts that are kept; None where it was not asked."""

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rollouts with ``distrust`` (NaN without a verdict) and ``trusted``; what is exactly
        at the threshold is trusted, and so is a rollout without a verdict, which counts nowhere.
        Where doubt does not help unseen families, ``trusted`` is unknown throughout.

        ``attrs["worth"]`` tells readers of the table what each signal was worth.
        """
        distrust = self.combination.distrust(table)
        table = table.assign(distrust=distrust, trusted=~(distrust > self.threshold))
        if self.helps is False:
            table["trusted"] = pd.array([pd.NA] * len(table), dtype="boolean")
        table.attrs["worth"] = [self._worth(m) for m in self.measured if m.signal != "distrust"]
        return table

    def _worth(self, measured: Measured) -> dict[str, Any]:
        parts = self.combination.verdicts.values()
        weights = [part.signals.get(measured.signal, (0.0, 1.0, 0.0))[2] for part in parts]
        found = measured.against_policy
        return {
            "signal": measured.signal,
            "auroc": finite(found.value),
            "low": finite(found.low),
            "high": finite(found.high),
            "counts": max(weights, default=0.0) >= COUNTS,
        }

    def check(
        self, *, world_model: str | None, instrument: str, judges: set[str], seeds: bool = True
    ) -> None:
        """Raise MismatchError saying in what rollouts differ from those of the calibration. A
        world model that is not known is not compared. seeds: whether there are second
        imaginations."""
        if not seeds and any(name.startswith("seeds") for name in self.combination.needed):
            raise MismatchError(
                "trust was calibrated with second imaginations, of which there are none; make "
                "them with --seeds 1, or give a calibration without"
            )
        strangers = sorted(judges - set(self.judges))
        for what, given, mine in (
            ("world model", world_model or self.world_model, self.world_model or world_model),
            ("trust checkpoint", instrument, self.instrument),
            ("judge", strangers or self.judges, self.judges),
        ):
            if given != mine:
                raise MismatchError(
                    f"trust was calibrated for {what} {mine!r}, these rollouts are of {given!r}; "
                    "calibrate it for them (`worldeval trust FOLDER --truth TRUTH --out CAL`)"
                )

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        content = {"format": FORMAT, **{k: v for k, v in vars(self).items() if k != "combination"}}
        content["verdicts"] = {
            verdict: asdict(weights) for verdict, weights in self.combination.verdicts.items()
        }
        text = json.dumps(finite(content), indent=1, allow_nan=False)
        return write_atomically(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> TrustCalibration:
        """Read what ``save`` wrote. Raises ConfigError for anything else."""
        try:
            content = load_json(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the trust calibration {str(path)!r} cannot be read ({error}); make one with "
                "`worldeval trust FOLDER --truth TRUTH --out CAL`"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ConfigError(
                f"{str(path)!r} is not a trust calibration ({FORMAT}); give the trust.json that "
                "`worldeval trust FOLDER --truth TRUTH --out CAL` wrote"
            )
        try:
            if wrong := not_finite(content):
                raise ValueError(f"{wrong} is no finite number")
            verdicts = {
                verdict: settings_from(Weights, w, f"verdicts.{verdict}.")
                for verdict, w in content["verdicts"].items()
            }
            if set(verdicts) != set(DECIDED):
                raise ValueError(f"it has weights for {sorted(verdicts)}, expected {DECIDED}")
            # A file of an earlier version does not say what was measured on families.
            facts = settings_from(
                _Facts, {name: content[name] for name in _FACTS if name in content}
            )
            return cls(
                combination=Combination(verdicts=verdicts),
                measured=tuple(_measured(row) for row in content["measured"]),
                **vars(facts),
            )
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ConfigError(
                f"the trust calibration {str(path)!r} is damaged "
                f"({type(error).__name__}: {error}); make it again"
            ) from error


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """Fields of a calibration that a file holds as they are."""

    threshold: float
    share: float
    world_model: str | None
    instrument: str
    judges: tuple[str, ...]
    held_out: Mapping[str, Any]
    measured_on: str = "policies"
    helps: bool | None = None
    promise: Promise | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or not 0 < self.share < 1:
            raise ConfigError(
                f"threshold is {self.threshold} and share {self.share}, expected 0 to 1 and more "
                "than 0 to less than 1"
            )
        if self.measured_on not in MEASURED_ON:
            raise ConfigError(f"measured_on is {self.measured_on!r}, expected {MEASURED_ON}")


_FACTS = tuple(f.name for f in fields(_Facts))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Rollouts with signals, and what truly happened.

    table: policy, task, start_id, judge, outcome and signals. truth: policy, task, start_id and
    outcome of the policies from the same start states. acted: key and outcome of the imagined
    actions carried out. chunks, errors: signals and true errors of chunks (``true_errors``).
    """

    table: pd.DataFrame
    truth: pd.DataFrame
    acted: pd.DataFrame | None = None
    chunks: pd.DataFrame | None = None
    errors: pd.DataFrame | None = None

    def wrong(self) -> np.ndarray:
        """(rollouts,) as ``wrong_verdicts``, against what the policies did."""
        return wrong_verdicts(self.table, self.truth, list(CELL))

    def wrong_actions(self) -> np.ndarray | None:
        """The same against what these very actions did; None if they were not carried out."""
        return None if self.acted is None else wrong_verdicts(self.table, self.acted, ["key"])

    def measure(self) -> list[Measured]:
        """What every signal is worth, and ``distrust`` where the table has it."""
        columns = signals_in(self.table)
        if "distrust" in self.table and self.table["distrust"].notna().any():
            columns.append("distrust")
        return measure_signals(
            self.table,
            self.wrong(),
            columns,
            wrong_actions=self.wrong_actions(),
            chunks=self.chunks,
            errors=self.errors,
        )


def calibrate_trust(
    evidence: Evidence,
    *,
    world_model: str | None,
    instrument: str,
    share: float = SHARE,
    penalty: float = PENALTY,
    families: Mapping[str, str] | None = None,
    promised: float | None = None,
) -> TrustCalibration:
    """Measure every signal, fit the weights of those that are on, choose the threshold.

    families: policy -> family, which is held out as a whole; a policy that is not named is a family
    of its own. promised: share of wrong verdicts among kept rollouts that the threshold keeps to,
    in place of ``share``; where none does, nothing is kept.
    Raises DataError without a wrong and a right verdict or with fewer than two policies.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share is {share!r}, expected more than 0 and less than 1")
    table, wrong = evidence.table, evidence.wrong()
    known = np.isfinite(wrong)
    labels = wrong[known] == 1
    rows = table[known].reset_index(drop=True)
    policies = rows["policy"].to_numpy()
    groups = np.array([(families or {}).get(name, name) for name in policies])
    if labels.all() or not labels.any() or len(set(policies)) < 2:
        raise DataError(
            f"{int(labels.sum())} of {len(labels)} verdicts of {len(set(policies))} policies are "
            "wrong; calibration needs wrong and right ones, of two policies or more"
        )
    measured = evidence.measure()
    signals = signals_in(table)

    def choose(some: pd.DataFrame, labels: np.ndarray) -> Mapping[str, Sequence[str]]:
        return {verdict: counting(some, labels, signals, verdict) for verdict in DECIDED}

    distrust = held_out_distrust(rows, labels, choose, groups, penalty=penalty)
    promise = make_promise(distrust, labels, groups, most_wrong=promised or Promise().most_wrong)
    threshold = threshold_for(distrust, share)
    if promised is not None:
        threshold = KEEPS_NONE if promise.threshold is None else promise.threshold
    rates = rate_errors(rows.assign(trusted=~(distrust > threshold)), evidence.truth)
    return TrustCalibration(
        combination=fit_combination(rows, labels, choose(rows, labels), penalty=penalty),
        threshold=threshold,
        share=share,
        world_model=world_model,
        instrument=instrument,
        judges=tuple(sorted(set(table["judge"]))),
        held_out={"auroc": auroc(distrust, labels), "rates": finite(rates)},
        measured=tuple(measured),
        measured_on=MEASURED_ON[families is not None],
        helps=None if families is None else helps_rates(rates.by_policy, families),
        promise=promise,
    )


def signals_in(table: pd.DataFrame) -> list[str]:
    """The columns of a table of rollouts that are signals."""
    return [str(name) for name in table.columns if name not in NOT_SIGNALS]


def threshold_for(distrust: np.ndarray, share: float = SHARE) -> float:
    """The least threshold beyond which at most ``share`` of the rollouts lie; ties stay together
    and are trusted. NaN are left out."""
    known = np.sort(distrust[np.isfinite(distrust)])
    if not len(known):
        raise DataError("there is no rollout with a verdict to choose a threshold by")
    removed = int(np.floor(share * len(known) + 1e-9))
    return float(known[len(known) - removed - 1])


def rate_errors(table: pd.DataFrame, truth: pd.DataFrame) -> RateErrors:
    """table: rollouts with policy, outcome and trusted; truth: policy, outcome of all starts."""
    by_policy = {}
    success = Outcome.SUCCESS.value
    decided = table[table["outcome"].isin(DECIDED)]
    true = truth[truth["outcome"].isin(DECIDED) & truth["policy"].isin(set(decided["policy"]))]
    for policy, group in decided.groupby("policy"):
        rates = [
            100 * float((rows["outcome"] == success).mean()) if len(rows) else float("nan")
            for rows in (true[true["policy"] == policy], group, group[group["trusted"]])
        ]
        by_policy[str(policy)] = (rates[0], rates[1], rates[2])
    values = np.array(list(by_policy.values())).reshape(-1, 3)
    with_rate = np.isfinite(values).all(1)
    errors = np.array([np.nan, np.nan])
    if with_rate.any():
        errors = np.abs(values[with_rate, 1:] - values[with_rate, :1]).mean(0)
    return RateErrors(
        all_rollouts=float(errors[0]),
        kept=float(errors[1]),
        removed=int((~decided["trusted"]).sum()),
        by_policy=by_policy,
    )


def _measured(row: Mapping[str, Any]) -> Measured:
    def area(values: Mapping[str, float | None] | None) -> Area | None:
        if values is None:
            return None
        if any(v is not None and type(v) not in (int, float) for v in values.values()):
            raise ValueError(f"an AUROC is {dict(values)}, expected numbers")
        return Area(**{n: float("nan") if v is None else float(v) for n, v in values.items()})

    against = area(row["against_policy"])
    if against is None:
        raise ValueError(f"signal {row['signal']!r} has no AUROC")
    return Measured(
        signal=row["signal"],
        against_policy=against,
        against_actions=area(row["against_actions"]),
        by_verdict={v: a for v, values in row["by_verdict"].items() if (a := area(values))},
        chunk_error=row["chunk_error"],
        rollout_error=row["rollout_error"],
    )
