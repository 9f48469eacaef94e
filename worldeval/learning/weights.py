"""Weights into a model, once it is certain that they are its weights.

Enters: how to make a model, and the tensors of a checkpoint. Leaves: the model with exactly these
weights; or a CheckpointError in one sentence.

While the model is made, what it allocates is counted before it is allocated, so that a width or a
depth of 10^12 in a configuration ends when it has outgrown the checkpoint and not when it has
filled the memory. Random first weights are left out, since all are overwritten: that saves more
time than the counting takes. Then model and tensors are compared: which are missing or surplus, of
another shape, whole numbers where fractions belong, NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from worldeval.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)
SHOWN = 3
ROOM = 1 << 20
"""Numbers that a model may hold beyond its checkpoint's: buffers that are not kept, ties."""
MOST_TENSORS = 10_000
"""Several times those of Stable Video Diffusion."""
_MAKE = {
    torch.randn,
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.arange,
    torch.linspace,
    torch.eye,
}
_DRAW = {
    nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.kaiming_uniform_,
    nn.init.kaiming_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_,
}  # fmt: skip


def filled(make: Callable[[], M], arrays: Mapping[str, np.ndarray], folder: str | Path) -> M:
    """The model that ``make`` makes, with ``arrays`` as its weights, in its own precision."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    with Bounded(folder, numbers=numbers, tensors=len(tensors)):
        model = make()
    check_weights(model.state_dict(), tensors, folder)
    model.load_state_dict(tensors)
    return model


class Bounded(TorchFunctionMode):
    """While it lasts, torch makes no more tensors than a checkpoint of so many can fill."""

    def __init__(self, folder: str | Path, *, numbers: int, tensors: int) -> None:
        super().__init__()
        self._folder = folder
        self._numbers, self._tensors = 2 * numbers + ROOM, 4 * tensors + 256

    @classmethod
    def by_header(cls, folder: str | Path, header: Mapping[str, Any]) -> Bounded:
        """By what shards of these sizes can hold, where nothing of them is read yet."""
        size = sum(shard["bytes"] for shard in header["shards"])
        return cls(folder, numbers=size, tensors=min(size, MOST_TENSORS))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAW:
            drawn = args[0] if args else kwargs["tensor"]
            if isinstance(drawn, nn.Parameter):
                return drawn
        elif func in _MAKE:
            self._tensors -= 1
            self._numbers -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self._tensors < 0 or self._numbers < 0:
                raise CheckpointError(
                    f"the checkpoint {self._folder} does not fit its own config.json, which "
                    "describes a far larger model than its weights can fill; fetch it again"
                )
        return func(*args, **kwargs)


def check_weights(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: str | Path
) -> None:
    """Raise CheckpointError unless ``found`` has the names, shapes and kinds of ``expected``.

    Fractions may be of any precision; all of them must be finite.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if missing or surplus:
        raise CheckpointError(
            f"the checkpoint {folder} does not fit its own config.json: {len(missing)} tensors are "
            f"missing ({_some(missing)}) and {len(surplus)} are surplus ({_some(surplus)}); fetch "
            "it again or train it anew"
        )
    for name, like in expected.items():
        tensor = found[name]
        # A single number is kept as a list of one, which torch takes as well.
        if tuple(tensor.shape) not in (tuple(like.shape), tuple(like.shape) or (1,)):
            raise CheckpointError(
                f"the checkpoint {folder} does not fit its own config.json: {name} is "
                f"{tuple(tensor.shape)}, expected {tuple(like.shape)}; fetch it again or train it "
                "anew"
            )
        if tensor.is_floating_point() != like.is_floating_point() or tensor.is_complex():
            kind = "floating-point" if like.is_floating_point() else "whole"
            raise CheckpointError(
                f"the checkpoint {folder}: {name} is of type {str(tensor.dtype)[6:]}, expected "
                f"{kind} numbers; quantised or rounded weights are another model, so give the "
                "checkpoint as it was trained"
            )
        check_finite(name, tensor, folder)


def check_finite(name: str, tensor: Tensor, folder: str | Path) -> None:
    """Raise CheckpointError if a weight is NaN or infinite."""
    if not tensor.is_floating_point():
        return
    # A sum is one pass without a copy; it may overflow where no number is infinite.
    if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"the checkpoint {folder}: {name} has NaN or infinite weights, its training diverged "
            "or the file was changed; take an earlier checkpoint"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
