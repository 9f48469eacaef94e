"""Where the embedded world lies: ``checkpoints/`` of this repository, and what it holds.

Looked for in ``$WORLDEVAL_CHECKPOINTS``, then in the current folder, then beside the package (a
clone, installed with ``pip install -e``), then within it (the wheel).
"""

from __future__ import annotations

import os
from pathlib import Path

from worldeval.errors import CheckpointError

AUTOENCODER = "autoencoder"
WORLD_MODEL = "world-model"
JUDGE = "judge"
PROGRESS = "progress"
"""A judge that also tells how far along a rollout is: rewards of ``worldeval.gym``."""
CALIBRATION = "calibration/calibration.json"
"""How often the judge errs on imagined rollouts: `worldeval rank --calibration`."""
POLICIES = "policies"
SUITE = "suite/suite.json"
DEMO_SUITE = "suite/demo.json"
STARTS = "suite/starts"
TRUST = "trust"
"""What tells when not to believe the imagination: `worldeval trust`."""
STRANGERS = "strangers.json"
"""How far rankings hold for policies that judge and world model have never seen."""
TRUTH = "suite/truth.parquet"
TRUTH_CLIPS = "suite/truth-clips"


def folder() -> Path:
    """The folder ``checkpoints/``, whether or not it exists."""
    named = os.environ.get("WORLDEVAL_CHECKPOINTS")
    if named:
        return Path(named)
    package = Path(__file__).resolve().parent
    here = Path("checkpoints")
    found = (here, package.parent / "checkpoints", package / "checkpoints")
    return next((place for place in found if place.is_dir()), here)


def path(part: str) -> Path:
    """Path of one part, such as ``shipped.JUDGE``; CheckpointError where it is missing."""
    found = folder() / part
    if not found.exists():
        raise CheckpointError(
            f"{found} is missing; install the wheel, run from a clone of the repository, or set "
            "WORLDEVAL_CHECKPOINTS to the folder 'checkpoints' of one"
        )
    return found


def policies() -> dict[str, Path]:
    """Names and folders of the shipped candidates, sorted by name."""
    # Also a folder whose config.json was lost: to leave it out in silence would change a ranking.
    found = (place for place in path(POLICIES).glob("[!.]*") if place.is_dir())
    return {place.name: place for place in sorted(found)}
