"""What a computation costs, counted without doing it: FLOPs, operations, bytes, a roofline.

In: a function of tensors on the meta device, where shapes are real and numbers are not. Out: a
``Cost``. FLOPs are those of PyTorch's own formulas (``torch.utils.flop_counter``); operations are
the aten calls that launch a kernel, views left out; bytes are what each reads and writes if
nothing stays in a cache and nothing is fused. The roofline adds up, operation by operation, the
larger of FLOPs over peak and bytes over bandwidth: a floor for eager execution, not a measurement.
In ``fused_s`` pointwise operations are free, as if a compiler put each into a neighbour's kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

H200_FLOPS = 790e12
"""Attainable bfloat16 matrix rate of an H200 (989e12 on paper)."""
H200_BYTES_HZ = 4.3e12
"""Attainable memory bandwidth of an H200 (4.8e12 on paper)."""

# Operations that move nothing: they allocate, or give another shape to the same memory.
_FREE = frozenset(
    {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh"}
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """flops, operations and bytes are counts; roofline_s and fused_s seconds on an H200."""

    flops: float = 0.0
    operations: float = 0.0
    bytes: float = 0.0
    roofline_s: float = 0.0
    fused_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})

    def __mul__(self, times: float) -> Cost:
        return Cost(**{name: value * times for name, value in asdict(self).items()})

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1


def count(function: Callable[[], Any]) -> Cost:
    """Cost of one call."""
    counter = _Counter()
    with torch.no_grad(), _OneAttention(), counter:
        function()
    return counter.cost


def bytes_of(tensor: Tensor) -> int:
    """Of the elements that are there: an expanded axis is stored once."""
    sizes = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return tensor.element_size() * math.prod(sizes) if tensor.numel() else 0


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.cost = Cost()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:  # in inference mode composite operations arrive whole, such as linear
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if not _is_free(func):
            read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            written = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
            moved = sum(map(bytes_of, [*read, *written]))
            flops = _flops(func, args, kwargs, out)
            seconds = max(flops / H200_FLOPS, moved / H200_BYTES_HZ)
            self.cost += Cost(
                flops=flops,
                operations=1,
                bytes=moved,
                roofline_s=seconds,
                fused_s=0.0 if torch.Tag.pointwise in func.tags else seconds,
            )
        return out


def _is_free(func: Any) -> bool:
    returns = func._schema.returns
    views = [r.alias_info is not None and not r.alias_info.is_write for r in returns]
    return func._overloadpacket.__name__ in _FREE or (bool(views) and all(views))


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> float:
    packet = func._overloadpacket
    if packet is torch.ops.aten.addmm_:  # PyTorch has a formula for the one that is not in place
        packet = torch.ops.aten.addmm
    formula = flop_registry.get(packet)
    return float(formula(*args, **kwargs, out_val=out)) if formula else 0.0


class _OneAttention(TorchFunctionMode):
    """On the meta device fused attention falls apart into its pieces; this keeps it one kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].device.type == "meta":
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **kwargs)
