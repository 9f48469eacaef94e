"""How long and how fast to learn, as values; no torch is imported here.

Enters: choices. Leaves: a ``LoopConfig``, the learning rate of every step, and the ``identity`` by
which a training that goes on is known to be the one that was begun.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from worldeval.errors import ConfigError
from worldeval.tracking import read_names

CARRIED_OUT = (
    "threads",
    "device",
    "report_every",
    "save_every_s",
    "validate_every",
    "accumulate",
    "gradient_checkpointing",
    "ema_device",
    "trackers",
)
"""Settings of how a training is carried out, not of what comes of it: they may change midway."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 10_000
    """Optimiser steps in all."""
    batch: int = 16
    """Samples a step over all processes."""
    learning_rate: float = 6e-4
    """Highest learning rate of AdamW, reached after the warmup."""
    warmup: int = 200
    """Steps in which the learning rate rises to its full height."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How it falls to zero: linearly in the last part, or as a cosine from the first step on."""
    decay: float = 0.35
    """Last part of training in which the learning rate falls, where it does so linearly."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    beta2: float = 0.99
    """Memory of AdamW for squared gradients."""
    clip: float = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""
    ema: float = 0.999
    """Memory of the averaged weights; 0 takes the last ones."""
    seed: int = 0
    """Seed of the first weights, of the order of samples and of all other randomness."""
    threads: int = 2
    """CPU threads of each training process."""
    device: str | None = None
    """cpu or cuda; None takes a GPU if there is one."""
    mixed_precision: str = "no"
    """"bf16" on a GPU, or on a CPU with bfloat16 matrix units (AMX); others would be 10 to 100
    times slower with it, so there it is refused."""
    accumulate: int = 1
    """Micro-batches into which each process cuts its part of a batch: less memory, equal result."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: a third slower, far less
    memory."""
    ema_device: Literal["same", "cpu"] = "same"
    """Where the averaged weights lie: beside the weights, or in main memory."""
    trackers: tuple[str, ...] = ()
    """What else shows the metrics, if it is installed: trackio or wandb, or with a project
    wandb:my-project; metrics.jsonl is always written."""
    report_every: int = 50
    """Steps between two lines of metrics."""
    save_every_s: float = 60.0
    """Seconds between two saved states, from which an interrupted training goes on."""
    validate_every: int = 1000
    """Steps between two validations."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "threads", "report_every", "validate_every", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 1 or more")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected more than 0")
        for name in ("ema", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 to below 1")
        for name, known in (
            ("schedule", ("linear", "cosine")),
            ("device", (None, "cpu", "cuda")),
            ("mixed_precision", ("no", "bf16")),
            ("ema_device", ("same", "cpu")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {known}")
        read_names(self.trackers)
        if self.batch % self.accumulate:
            raise ConfigError(
                f"batch is {self.batch} and accumulate {self.accumulate}, expected a batch that "
                "can be cut into so many equal parts"
            )

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, times the fall to zero."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "cosine":
            fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        else:
            fall = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.learning_rate * (rise * fall)

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to be the same one."""
        return {name: value for name, value in asdict(self).items() if name not in CARRIED_OUT}
