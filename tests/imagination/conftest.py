"""One trust checkpoint for all tests of this room: to train it takes the most time."""

from pathlib import Path

import pytest
import torch

from tests.imagination.trust_world import CONFIG, recorded, training
from worldeval.imagination.trust.signals import Trust
from worldeval.imagination.trust.training import train_trust
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig


@pytest.fixture(scope="session")
def trust_folder(tmp_path_factory) -> Path:
    """A trained checkpoint in ``trust``, beside the autoencoder it was made with."""
    root = tmp_path_factory.mktemp("trust")
    torch.manual_seed(0)
    Autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=2, image_size=(16, 16))).save(
        root / "autoencoder"
    )
    train_trust(
        CONFIG,
        root / "trust",
        training=training(),
        stores=[recorded(root / "training", range(30))],
        validation=[recorded(root / "validation", range(30, 45))],
        autoencoder=root / "autoencoder",
        progress=False,
    )
    return root


@pytest.fixture(scope="session")
def trust(trust_folder) -> Trust:
    return Trust.load(trust_folder / "trust", trust_folder / "autoencoder")
