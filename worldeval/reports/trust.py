"""What the signals of trust are worth, as a table that people read.

Enters: a ``TrustCalibration``, and how it did. Leaves: markdown.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.data.tables import DECIDED
from worldeval.imagination.trust.calibration import (
    COUNTS,
    Evidence,
    RateErrors,
    TrustCalibration,
    rate_errors,
)
from worldeval.imagination.trust.measuring import Measured
from worldeval.metrics.roc import Area


def calibration_report(calibration: TrustCalibration) -> str:
    """What was measured where the weights were fitted, each policy or family held out in turn."""
    held_out = "family" if calibration.measured_on == "families" else "policy"
    rates = RateErrors(**calibration.held_out["rates"])
    return "\n\n".join(
        [
            f"Distrust (all signals that count, each {held_out} by weights fitted without it): "
            f'AUROC {calibration.held_out["auroc"]:.3f} of "this verdict is wrong".',
            signals_table(calibration.measured, calibration),
            rates_table(rates),
            *([] if calibration.promise is None else [calibration.promise.sentence]),
            _HELPS[calibration.helps],
        ]
    )


_HELPS = {
    True: "Leaving out distrusted rollouts brings the rates of families that were held out nearer "
    "to the truth.",
    False: "Leaving out distrusted rollouts does not bring the rates of families that were held "
    "out nearer to the truth: rankings do not show them.",
    None: "Whether this helps families of policies that nobody has seen is not known; it takes "
    "--families, three or more of them, and rollouts that are kept.",
}


def evaluation_report(evidence: Evidence, calibration: TrustCalibration | None) -> str:
    """What signals, weights and threshold are worth on rollouts other than they were fitted to."""
    parts = [signals_table(evidence.measure(), calibration)]
    if calibration is not None:
        table = evidence.table
        parts.append(
            rates_table(
                rate_errors(
                    table.assign(trusted=~(table["distrust"] > calibration.threshold)),
                    evidence.truth,
                )
            )
        )
    return "\n\n".join(parts)


def signals_table(measured: Sequence[Measured], calibration: TrustCalibration | None) -> str:
    """One row per signal, best first, and what it counts for in ``calibration``."""
    rows = [
        "| signal | error of a chunk | error of a rollout | wrong against the policy "
        "| wrong against these actions | wrong successes | wrong failures | counts for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        cells = [
            m.signal,
            _number(m.chunk_error),
            _number(m.rollout_error),
            _area(m.against_policy),
            _area(m.against_actions),
            *(_area(m.by_verdict[verdict]) for verdict in DECIDED),
            "-" if calibration is None or m.signal == "distrust" else _weights(calibration, m),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def rates_table(rates: RateErrors) -> str:
    """One row per policy: true rate, imagined rate of all rollouts and of the trusted ones."""
    rows = ["| policy | true | imagined | trusted only |", "|---|---|---|---|"]
    for policy, values in sorted(rates.by_policy.items(), key=lambda item: -item[1][0]):
        rows.append(f"| {policy} | {' | '.join(map(_percent, values))} |")
    rows.append(
        f"| mean absolute error, {rates.removed} rollouts removed | | "
        f"{_number(rates.all_rollouts)} | {_number(rates.kept)} |"
    )
    return "\n".join(rows)


def _weights(calibration: TrustCalibration, measured: Measured) -> str:
    """Which verdicts the signal is used for, with its weight; "off" where it is not."""
    said = []
    for verdict, weights in calibration.combination.verdicts.items():
        weight = weights.signals.get(measured.signal, (0.0, 1.0, 0.0))[2]
        if weight >= COUNTS:
            said.append(f"{verdict} {weight:.2f}")
    return ", ".join(said) or "off"


def _area(area: Area | None) -> str:
    if area is None or area.value != area.value:  # NaN: too few of a kind
        return "-"
    return f"{area.value:.3f} ({area.low:.2f} to {area.high:.2f})"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"


def _percent(value: float | None) -> str:
    """A policy of which no rollout is trusted has no rate: NaN, or null as it comes back."""
    return "-" if value is None or value != value else f"{value:.1f} %"
