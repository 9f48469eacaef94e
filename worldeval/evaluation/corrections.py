"""What the checkpoints beside the world say of its rollouts: which to doubt, how the judge errs.

Enters: folders of judged rollouts and how they were imagined. Leaves: tables for the ranking, or
``None`` and a sentence why that cannot be told of these rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval import shipped
from worldeval.errors import MismatchError
from worldeval.evaluation.folder import judge_errors
from worldeval.evaluation.opening import ImaginationOptions, fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.imagination.trust.calibration import TrustCalibration
    from worldeval.ranking.leaderboard.corrections import JudgeErrors

UNTOLD = "Which rollouts not to trust cannot be told"


def measure_trust(
    stores: Sequence[Path], options: ImaginationOptions
) -> tuple[pd.DataFrame | None, list[str]]:
    """Which imagined rollouts not to trust (written beside them), and a note where that cannot be
    told."""
    import pandas as pd

    from worldeval.data.checkpoint import digest
    from worldeval.evaluation import trust as tables

    calibration, notes = _trust_calibration(stores, fingerprint(str(options.folder)))
    if calibration is None:
        return None, notes
    place = shipped.folder() / shipped.TRUST
    trust = tables.open_instrument(place, None, options)
    measuring = tables.Measuring(trust=trust, digest=digest(place), seeds=())
    told = [measuring.write(measuring.store(s)[0], s, calibration) for s in stores]
    return pd.concat(told, ignore_index=True), []


def why_no_trust(stores: Sequence[Path], world_model: str | None) -> list[str]:
    """A note where the shipped trust does not fit rollouts of this world model; else nothing."""
    return _trust_calibration(stores, world_model)[1]


def _trust_calibration(
    stores: Sequence[Path], world_model: str | None
) -> tuple[TrustCalibration | None, list[str]]:
    """The shipped calibration of trust, or None and a note on why it is not of these rollouts."""
    from worldeval.data.checkpoint import digest
    from worldeval.evaluation import trust as tables

    place = shipped.folder() / shipped.TRUST
    calibration = tables.read_calibration(None, place)
    if calibration is None:
        return None, [f"{UNTOLD}: {place} has no trust.json."]
    try:
        calibration.check(
            world_model=world_model,
            instrument=digest(place),
            judges=tables.judges_of(stores),
            seeds=False,
        )
    except MismatchError as error:
        return None, [f"{UNTOLD}: {error}."]
    if calibration.helps is False:
        return None, [f"{UNTOLD}: doubt does not help families of policies that nobody has seen."]
    return calibration, []


def shipped_judge_errors(imagined: pd.DataFrame, out: Path) -> tuple[JudgeErrors | None, list[str]]:
    """How often the judge errs, and a note where that is not known of these rollouts."""
    place = shipped.folder() / shipped.CALIBRATION
    if not place.is_file():
        return None, [f"Rates are not corrected for the judge's errors: there is no {place}."]
    try:
        return judge_errors(place, imagined, out), []
    except MismatchError as error:
        return None, [f"Rates are not corrected for the judge's errors: {error}."]
