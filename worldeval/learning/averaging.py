"""The exponential moving average (EMA) of a module's weights.

Enters: a module and how much of the average to keep. Leaves: the average, which may lie in main
memory while the module is on a GPU, and the module with the averaged weights in place for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def first_average(module: nn.Module, device: str) -> dict[str, Tensor]:
    """A copy of all weights. device: "same" or "cpu"."""
    return {
        name: tensor.detach().to("cpu" if device == "cpu" else tensor.device, copy=True)
        for name, tensor in module.state_dict().items()
    }


@torch.no_grad()
def average(averaged: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Keep ``decay`` of the average and take the rest from the module, in place."""
    for name, tensor in module.state_dict().items():
        mean = averaged[name]
        if tensor.is_floating_point():
            mean.lerp_(tensor.to(mean.device), 1 - decay)
        else:
            mean.copy_(tensor)


@contextmanager
def averaged_weights(module: nn.Module, averaged: dict[str, Tensor]) -> Iterator[nn.Module]:
    """The module with its averaged weights, in evaluation mode, for as long as the block lasts."""
    current = {
        name: tensor.detach().to(averaged[name].device, copy=True)
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(averaged)
    module.eval()
    try:
        yield module
    finally:
        module.load_state_dict(current)
        module.train()
