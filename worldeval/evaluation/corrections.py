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

    from worldeval.ranking.leaderboard.corrections import JudgeErrors


def measure_trust(
    stores: Sequence[Path], options: ImaginationOptions
) -> tuple[pd.DataFrame | None, list[str]]:
    """Which imagined rollouts not to trust (written beside them), and a note where that cannot be
    told."""
    import pandas as pd

    from worldeval.data.checkpoint import digest
    from worldeval.evaluation import trust as tables

    place = shipped.folder() / shipped.TRUST
    calibration = tables.read_calibration(None, place)
    if calibration is None:
        return None, [f"Which rollouts not to trust cannot be told: {place} has no trust.json."]
    instrument = digest(place)
    try:
        calibration.check(
            world_model=fingerprint(str(options.folder)),
            instrument=instrument,
            judges=tables.judges_of(stores),
            seeds=False,
        )
    except MismatchError as error:
        return None, [f"Which rollouts not to trust cannot be told: {error}."]
    trust = tables.open_instrument(place, None, options)
    measuring = tables.Measuring(trust=trust, digest=instrument, seeds=())
    told = [measuring.write(measuring.store(s)[0], s, calibration) for s in stores]
    return pd.concat(told, ignore_index=True), []


def shipped_judge_errors(imagined: pd.DataFrame, out: Path) -> tuple[JudgeErrors | None, list[str]]:
    """How often the judge errs, and a note where that is not known of these rollouts."""
    place = shipped.folder() / shipped.CALIBRATION
    if not place.is_file():
        return None, [f"Rates are not corrected for the judge's errors: there is no {place}."]
    try:
        return judge_errors(place, imagined, out), []
    except MismatchError as error:
        return None, [f"Rates are not corrected for the judge's errors: {error}."]
