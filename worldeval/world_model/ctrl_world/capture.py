"""A step of the backbone recorded as a CUDA graph and replayed: one launch instead of thousands.

In: a step function, and its arguments with the same shapes each time. Out: what it returns. What a
sample's conditioning decides enters as ``Conditioning``, whose tensors are copied into the
recording when another sample begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """All that a sample's conditioning, not its noise, decides; made by ``condition``."""

    hidden: Tensor
    time_ids: Tensor
    given: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Per layer name: cross-attention as a bias, frame positions, weights of the blends."""

    @property
    def rows(self) -> int:
        return self.hidden.shape[0]

    def clone(self) -> Conditioning:
        return Conditioning(
            hidden=self.hidden.clone(),
            time_ids=self.time_ids.clone(),
            given={
                name: {key: value.clone() for key, value in layer.items()}
                for name, layer in self.given.items()
            },
        )

    def copy_(self, other: Conditioning) -> None:
        """Take over the values of one of the same shapes, in place."""
        self.hidden.copy_(other.hidden)
        self.time_ids.copy_(other.time_ids)
        for name, layer in other.given.items():
            for key, value in layer.items():
                self.given[name][key].copy_(value)


class CapturedStep:
    """A step recorded once per shape as a CUDA graph and replayed: its inputs are copied in."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.recordings: dict[tuple[Any, ...], Recording] = {}

    def __call__(
        self, sample: Tensor, c_noise: Tensor, conditioning: Conditioning, first: int
    ) -> Tensor:
        key = (tuple(sample.shape), sample.dtype, conditioning.rows, first)
        if key not in self.recordings:
            self.recordings[key] = Recording(self.step, sample, c_noise, conditioning, first)
        return self.recordings[key].replay(sample, c_noise, conditioning)


class Recording:
    """One CUDA graph with the tensors that it reads and writes."""

    def __init__(
        self, step: Any, sample: Tensor, c_noise: Tensor, conditioning: Conditioning, first: int
    ) -> None:
        # A tensor born in inference mode could not be written to outside of it by a later replay.
        with torch.inference_mode(False), torch.no_grad():
            self.sample, self.c_noise = sample.clone(), c_noise.clone()
            self.conditioning = conditioning.clone()
            self.last = conditioning
            arguments = (self.sample, self.c_noise, self.conditioning, first)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # libraries choose kernels and workspaces here
                for _ in range(3):
                    step(*arguments)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.out: Tensor = step(*arguments)

    def replay(self, sample: Tensor, c_noise: Tensor, conditioning: Conditioning) -> Tensor:
        self.sample.copy_(sample)
        self.c_noise.copy_(c_noise)
        if conditioning is not self.last:
            self.conditioning.copy_(conditioning)
            self.last = conditioning
        self.graph.replay()
        return self.out.clone()
