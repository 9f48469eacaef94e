"""Shows the metrics of a training in trackio or Weights & Biases, where they are installed.

Enters: the names of trackers, the folder of a training and its settings. Leaves: ``Trackers``,
which passes on every row that ``metrics.jsonl`` gets. Both libraries answer to the same three
calls (init, log, finish); neither is needed by anything else here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from worldeval.errors import MissingDependencyError

PROJECT = "worldeval"


class Trackers:
    """The trackers of one training; a training that goes on continues their run."""

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        """Only the main process makes one. folder: its name, or its parent's, names the run."""
        require(names)
        self._modules = {name: import_module(name) for name in names}
        place = folder.resolve()
        name = place.parent.name if place.name == "training" else place.name
        for library, module in self._modules.items():
            # trackio knows a run by its name, wandb by an id, which must not change on resuming
            own = {"id": hashlib.sha256(str(place).encode()).hexdigest()[:12], "dir": str(place)}
            module.init(
                project=PROJECT,
                name=name,
                config=dict(settings),
                resume="allow",
                **(own if library == "wandb" else {}),
            )

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        for module in self._modules.values():
            module.log(numbers, step=step)

    def finish(self) -> None:
        for module in self._modules.values():
            module.finish()
        self._modules = {}


def require(names: Sequence[str]) -> None:
    """MissingDependencyError if one of them is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"trackers holds {name!r}, which is not installed; pip install {name}, or leave it "
                "out (metrics.jsonl is always written)"
            )
