"""``worldeval train ...``: everything that learns, one verb each.

A training that is interrupted goes on from its last state when the same command is given again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from worldeval import shipped


def _manifest(out: Path, what: str, config: object, seed: int) -> None:
    from worldeval.rollout.provenance import write_manifest

    free = ("loop.threads", "loop.report_every", "loop.save_every_s", "loop.validate_every")
    write_manifest(out, command=f"train {what}", config=config, seed=seed, allow_changes=free)
