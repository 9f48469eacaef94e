"""The device and the processes of a training: what ``accelerate`` makes of a ``LoopConfig``.

Enters: settings, and the environment that ``torchrun`` or ``accelerate launch`` sets. Leaves: an
``Accelerator`` for one process or for many, numbers averaged over them, and a module that keeps
fewer activations.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from worldeval.data.atomic import alone
from worldeval.errors import ConfigError
from worldeval.learning.config import LoopConfig

PATIENCE = timedelta(hours=6)
"""How long the others wait while the main process validates and writes."""


SHARED = ("train policy", "train world-model", "train ctrl-world", "train adapter")
"""The trainings of which several processes share each batch."""


def first_of_many() -> bool:
    """Whether this process writes, asked before any accelerator is made."""
    return _told("RANK", 0) == 0


def processes() -> int:
    """How many a launcher has begun, asked before any accelerator is made."""
    return _told("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def _told(name: str, otherwise: int) -> int:
    """What a launcher's variable says. ConfigError if it is no number."""
    said = os.environ.get(name, str(otherwise))
    if not said.isdecimal():
        raise ConfigError(
            f"the variable {name} is {said!r}, expected a number, as launchers set it; unset it, "
            "or begin with `accelerate launch`"
        )
    return int(said)


def check_alone(title: str) -> None:
    """ConfigError if this is one of several processes of a launcher."""
    if (count := processes()) > 1:
        raise ConfigError(
            f"{title} was begun in {count} processes, which would all learn the same and write the "
            f"same files; begin it without a launcher (several processes share {', '.join(SHARED)})"
        )


class SharedDraws:
    """A generator whose arrays are drawn for a global batch of ``count`` and cut to ``rows``: what
    a sample is given does not depend on who computes it. Sizes begin with the number of rows."""

    def __init__(self, rng: np.random.Generator, count: int, rows: slice) -> None:
        self._rng, self._count, self._rows = rng, count, rows

    def random(self, size: int | Sequence[int]) -> np.ndarray:
        return self._rng.random(self._whole(size))[self._rows]

    def uniform(self, low: float, high: float, size: int | Sequence[int]) -> np.ndarray:
        return self._rng.uniform(low, high, self._whole(size))[self._rows]

    def normal(self, mean: float, spread: float, size: int | Sequence[int]) -> np.ndarray:
        return self._rng.normal(mean, spread, self._whole(size))[self._rows]

    def integers(self, low: int, high: int, size: int | Sequence[int]) -> np.ndarray:
        return self._rng.integers(low, high, self._whole(size))[self._rows]

    def _whole(self, size: int | Sequence[int]) -> tuple[int, ...]:
        return (self._count, *(() if isinstance(size, int) else size[1:]))


def has_bfloat16_units(device: str) -> bool:
    """Whether bfloat16 is faster than float32 on ``device``: on a GPU, or on a CPU with AMX or with
    AVX-512's bfloat16 products (convolutions and matrices twice as fast, forth and back)."""
    if device != "cpu":
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def accelerator_of(config: LoopConfig) -> Accelerator:
    """The accelerator of these settings, whatever a training before it in this process had."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but there is no GPU that torch can use; use 'cpu'")
    device = "cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu"
    if config.mixed_precision == "bf16" and not has_bfloat16_units(device):
        raise ConfigError(
            "mixed_precision is 'bf16', but this CPU has no bfloat16 units (AMX, AVX-512 BF16), so "
            "it would be far slower; use 'no', or a GPU"
        )
    if AcceleratorState._shared_state:
        before = AcceleratorState()
        if (before.device.type, before.mixed_precision) != (device, config.mixed_precision):
            AcceleratorState._reset_state(reset_partial_state=True)
    handlers: list[Any] = []
    if processes() > 1:
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise ConfigError(
                f"RANK and WORLD_SIZE speak of {processes()} processes, but {missing[0]} is not "
                "set; begin with `accelerate launch`, which sets them all, or unset RANK"
            )
        # weights that a model keeps but does not use get no gradient
        handlers = [
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(find_unused_parameters=True),
        ]
    with naming_who_is_gone():
        made = Accelerator(
            mixed_precision=config.mixed_precision, cpu=device == "cpu", kwargs_handlers=handlers
        )
    parts = made.num_processes * config.accumulate
    if config.batch % parts:
        raise ConfigError(
            f"batch is {config.batch}, expected a multiple of {parts} ({made.num_processes} "
            f"processes times accumulate {config.accumulate}), so that every part weighs the same"
        )
    return made


@contextmanager
def one_after_the_other(path: Path) -> Iterator[None]:
    """Of the processes of a training one at a time is in this block for ``path``."""
    if processes() == 1:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path, wait_s=PATIENCE.total_seconds()):
        yield


@contextmanager
def naming_who_is_gone() -> Iterator[None]:
    """A ConfigError where another process of the training cannot be reached (any more)."""
    try:
        yield
    except RuntimeError as error:  # torch's errors of connections are some of them
        gone = isinstance(error, torch.distributed.DistError) or "onnection" in str(error)
        if processes() == 1 or not gone:
            raise
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise ConfigError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} lost the others "
            f"(main process at {where}); what ended is told there. The same commands on all "
            "machines go on from the last state"
        ) from error


def check_same_step(accelerator: Accelerator, step: int, folder: Path) -> None:
    """ConfigError unless all processes go on from the same step."""
    if accelerator.num_processes == 1:
        return
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise ConfigError(
            f"the processes found states of different steps in {folder} ({steps}); the machines "
            "of a training need one disk that all of them see for --out"
        )


def averaged_over(accelerator: Accelerator, numbers: Mapping[str, float]) -> dict[str, float]:
    """The mean of each number over all processes, on all of them; every one has the same names."""
    if accelerator.num_processes == 1:
        return dict(numbers)
    together = torch.tensor(list(numbers.values()), dtype=torch.float64, device=accelerator.device)
    mean = accelerator.reduce(together, reduction="mean").tolist()
    return dict(zip(numbers, mean, strict=True))


def checkpoint_activations(module: nn.Module) -> None:
    """Have the parts of ``module`` that can do so compute their activations again on the way back.

    They are those with a method ``enable_gradient_checkpointing``, as diffusers' models have.
    """
    found = [getattr(part, "enable_gradient_checkpointing", None) for part in module.modules()]
    switches = [switch for switch in found if callable(switch)]
    if not switches:
        raise ConfigError(
            "gradient_checkpointing is on, but no part of this module can do without its "
            "activations (enable_gradient_checkpointing); leave it off and use accumulate"
        )
    for switch in switches:
        switch()
