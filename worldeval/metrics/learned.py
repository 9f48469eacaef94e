"""Metrics that need the weights of other networks: LPIPS, FID and FVD, where these weights are.

Enters: true and imagined frames. Leaves: LPIPS (Zhang et al. 2018, arXiv 1801.03924, AlexNet,
version 0.1) if its two files are on this machine, and for every metric that cannot be computed one
line that says what is missing. Nothing is downloaded and nothing is unpickled. The Frechet distance
of FID (Heusel et al. 2017) and FVD is here for features that somebody else has computed: their
networks are distributed as programs, which worldeval does not run.

Files are looked for in the folder WORLDEVAL_METRIC_WEIGHTS and, for AlexNet, where torchvision
keeps it, and for LPIPS in an installed package ``lpips``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldeval.data.files import regular_file
from worldeval.errors import CheckpointError, MismatchError, MissingDependencyError

FOLDER = "WORLDEVAL_METRIC_WEIGHTS"
ALEXNET, HEADS = "alexnet-owt-7be5be79.pth", "alex.pth"
"""As torchvision and as the package lpips call them."""
LAYERS = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1),
          (10, 256, 3, 1, 1))  # fmt: skip
"""AlexNet's convolutions: number in its ``features``, channels, kernel, stride, padding."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""From [-1, 1] to what AlexNet was trained on."""


def missing() -> dict[str, str]:
    """Metric -> one line on what it lacks here; empty for those that can be computed."""
    lines = {
        "FID": "FID is not measured: its Inception network is distributed as a program; export "
        "the frames and use a tool of your choice, or pass its features to `frechet_distance`",
        "FVD": "FVD is not measured: its I3D network is distributed as a program; export the "
        "videos and use a tool of your choice, or pass its features to `frechet_distance`",
    }
    absent = [name for name, path in _files().items() if path is None]
    if absent:
        lines["LPIPS"] = (
            f"LPIPS is not measured: {' and '.join(absent)} not found; put them into a folder and "
            f"name it in {FOLDER}"
        )
    return lines


class Lpips(nn.Module):
    """Perceptual distance of images (N, 3, H, W) in [-1, 1]; 0 for equal ones."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        self.convolutions = nn.ModuleList()
        for _, width, kernel, stride, padding in LAYERS:
            self.convolutions.append(nn.Conv2d(channels, width, kernel, stride, padding))
            channels = width
        self.heads = nn.ParameterList(torch.zeros(width) for _, width, *_ in LAYERS)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls) -> Lpips:
        """MissingDependencyError if its weights are not here, CheckpointError if damaged."""
        files = _files()
        alexnet, heads = files[ALEXNET], files[HEADS]
        if alexnet is None or heads is None:
            raise MissingDependencyError(missing()["LPIPS"])
        model = cls()
        features, linear = _read(alexnet), _read(heads)
        try:
            for i, (number, *_) in enumerate(LAYERS):
                convolution, head = model.convolutions[i], model.heads[i]
                convolution.weight.copy_(features[f"features.{number}.weight"])  # type: ignore[operator]
                convolution.bias.copy_(features[f"features.{number}.bias"])  # type: ignore[operator]
                head.copy_(linear[f"lin{i}.model.1.weight"].reshape(-1))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{alexnet} or {heads} does not hold the weights of LPIPS ({error}); fetch them "
                "again"
            ) from error
        return model

    @torch.inference_mode()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N,)"""
        if first.shape != second.shape:
            raise MismatchError(
                f"images are {tuple(first.shape)} and {tuple(second.shape)}, expected equal shapes"
            )
        total = first.new_zeros(len(first))
        for a, b, head in zip(
            self._features(first), self._features(second), self.heads, strict=True
        ):
            difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)) ** 2
            total += (difference * head[:, None, None]).sum(1).mean((1, 2))
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        shift, scale = images.new_tensor(SHIFT), images.new_tensor(SCALE)
        x = (images - shift[:, None, None]) / scale[:, None, None]
        found = []
        for i, convolution in enumerate(self.convolutions):
            if i in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            found.append(x)
        return found


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Of two sets of features (N, D), taken as normal: |m1-m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)."""
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise MismatchError(
            f"features are {first.shape} and {second.shape}, expected two or more rows of one width"
        )
    shift = first.mean(0) - second.mean(0)
    one, other = np.atleast_2d(np.cov(first.T)), np.atleast_2d(np.cov(second.T))
    # the eigenvalues of C1 C2 are those of a positive semi-definite matrix: real, not negative
    mixed = np.sqrt(np.linalg.eigvals(one @ other).real.clip(min=0)).sum()
    return float(shift @ shift + np.trace(one) + np.trace(other) - 2 * mixed)


def _files() -> dict[str, Path | None]:
    package = importlib.util.find_spec("lpips")
    places = [Path(os.environ[FOLDER])] if os.environ.get(FOLDER) else []
    places.append(Path(torch.hub.get_dir()) / "checkpoints")
    if package is not None and package.origin:
        places.append(Path(package.origin).parent / "weights" / "v0.1")
    return {
        name: next((place / name for place in places if (place / name).is_file()), None)
        for name in (ALEXNET, HEADS)
    }


def _read(path: Path) -> dict[str, Tensor]:
    regular_file(path, "weights", error=CheckpointError)
    try:
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a pickle that is none makes torch do
        raise CheckpointError(
            f"{path} cannot be read as weights alone ({type(error).__name__}); fetch it again"
        ) from error
    return found
