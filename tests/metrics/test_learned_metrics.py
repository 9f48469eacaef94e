"""Metrics with weights of others: what is missing is said, and what is there is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from worldeval.errors import CheckpointError, MismatchError, MissingDependencyError
from worldeval.metrics import learned as learned_metrics
from worldeval.metrics.learned import (
    ALEXNET,
    FOLDER,
    HEADS,
    LAYERS,
    SCALE,
    SHIFT,
    Lpips,
    frechet_distance,
    missing,
)


def write_weights(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    features, heads, channels = {}, {}, 3
    for i, (number, width, kernel, *_) in enumerate(LAYERS):
        shape = (width, channels, kernel, kernel)
        features[f"features.{number}.weight"] = torch.randn(shape, generator=generator) * 0.1
        features[f"features.{number}.bias"] = torch.zeros(width)
        heads[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
        channels = width
    torch.save(features, folder / ALEXNET)
    torch.save(heads, folder / HEADS)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(learned_metrics.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def test_what_is_missing_is_said(nowhere: Path) -> None:
    assert set(missing()) == {"LPIPS", "FID", "FVD"}
    with pytest.raises(MissingDependencyError, match=f"{ALEXNET} and {HEADS} not found"):
        Lpips.load()
    write_weights(nowhere)
    assert set(missing()) == {"FID", "FVD"}
    (nowhere / HEADS).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        Lpips.load()


def test_lpips_sees_what_differs(nowhere: Path) -> None:
    write_weights(nowhere)
    model = Lpips.load()
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert model(image, image).tolist() == [0, 0]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    slight, strong = model(image, image + 0.05 * noise), model(image, image + 0.5 * noise)
    assert (slight > 0).all() and (slight < strong).all()
    torch.testing.assert_close(model(image + noise, image), model(image, image + noise))
    # the first layer by hand: other heads at zero
    for head in model.heads[1:]:
        head.zero_()
    weight = model.convolutions[0].weight
    unit = []
    for x in (image, image + noise):
        seen = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        f = torch.nn.functional.conv2d(seen, weight, stride=4, padding=2).clamp(min=0)
        unit.append(f / f.norm(dim=1, keepdim=True).clamp(min=1e-10))
    expected = ((unit[0] - unit[1]) ** 2 * model.heads[0][:, None, None]).sum(1).mean((1, 2))
    torch.testing.assert_close(model(image, image + noise), expected)
    with pytest.raises(MismatchError, match="expected equal shapes"):
        model(image, image[:1])


def test_frechet_distance_of_normal_features() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, (40_000, 3)) * [1, 2, 3]
    second = rng.normal(0, 1, (40_000, 3)) * [2, 2, 1] + [0, 5, 0]
    # independent directions: the sum of (m1 - m2)^2 + (s1 - s2)^2
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 0 + 4, rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    with pytest.raises(MismatchError, match="one width"):
        frechet_distance(first, second[:, :2])
