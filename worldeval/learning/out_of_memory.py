"""When memory runs out: which micro-batch would have fitted.

Enters: a training whose step raised ``torch.OutOfMemoryError``. Leaves: a sentence that names the
micro-batch that fits, found by trying ever smaller ones, and the setting that makes it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from worldeval.errors import ConfigError
from worldeval.learning.config import LoopConfig

OTHER_REMEDIES = (
    "gradient_checkpointing, mixed_precision 'bf16', ema_device 'cpu' or more GPUs need less memory"
)


def too_large(config: LoopConfig, processes: int, attempt: Callable[[int], None]) -> ConfigError:
    """The error to raise. attempt: takes a trial step cut into so many micro-batches."""
    own = config.batch // processes
    rows = own // config.accumulate
    for parts in (n for n in range(config.accumulate + 1, own + 1) if own % n == 0):
        free()
        if _fits(attempt, parts):
            free()
            return ConfigError(
                f"memory ran out with a micro-batch of {rows}; one of {own // parts} fits: use "
                f"accumulate {parts} (batch {config.batch}, {processes} processes), the result "
                "is the same, and run the command again to go on"
            )
    free()
    return ConfigError(
        f"memory ran out with a micro-batch of {rows}, and one of 1 does not fit either; "
        f"{OTHER_REMEDIES}"
    )


def free() -> None:
    """Give back what a failed step has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fits(attempt: Callable[[int], None], parts: int) -> bool:
    try:
        attempt(parts)
    except torch.OutOfMemoryError:
        return False
    return True
