"""Makes a ``Trust`` checkpoint: trains the inverse dynamics, then measures what is normal.

Enters: recorded episodes to learn from, others to measure on, and the world model's autoencoder.
Leaves, in ``out``: the checkpoint, with how well motion is read from true frames in its card, and
in ``training`` the metrics and the state from which a killed training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldeval.data.fit import check_made_for, robot_of_checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import MismatchError
from worldeval.imagination.trust.inverse_dynamics import InverseDynamicsConfig
from worldeval.imagination.trust.inverse_dynamics_training import (
    InverseDynamicsTrainConfig,
    train_inverse_dynamics,
)
from worldeval.imagination.trust.reference import build_reference
from worldeval.imagination.trust.signals import Trust, check_layout
from worldeval.robots import RobotSpec
from worldeval.world_model.latents import open_encoder


def train_trust(
    config: InverseDynamicsConfig,
    out: str | Path,
    *,
    training: InverseDynamicsTrainConfig,
    stores: Sequence[EpisodeStore],
    validation: Sequence[EpisodeStore],
    autoencoder: str | Path,
    robot: RobotSpec | None = None,
    progress: bool = True,
) -> Trust:
    """Train (or go on training) in ``out``, measure on ``validation``, save; see the module.

    Raises MismatchError if a store is not of the robot, views, size and poses of ``config`` or
    shares episodes between training and validation, or the autoencoder is of another robot than
    ``robot``, which is kept whole beside it.
    """
    if robot is not None:
        kept = robot_of_checkpoint(autoencoder)
        check_made_for(f"autoencoder {autoencoder}", kept, robot, rates=False)
    encode, digest = open_encoder(autoencoder)
    for store in (*stores, *validation):
        check_layout(config, store.layout, str(store.root))
    learned = set().union(*(store.keys for store in stores))
    both = sorted(learned & set().union(*(store.keys for store in validation)))
    if both:
        raise MismatchError(
            f"{len(both)} episodes are in both the training and the validation stores, such as "
            f"{both[0]!r}; validate on others, or the reading looks better than it is"
        )
    network = train_inverse_dynamics(
        config, out, training=training, stores=stores, progress=progress
    )
    # Weights are kept as float16; what is normal has to be measured with exactly those.
    spreads = {
        name: getattr(network, name).clone()
        for name in ("pose_centre", "pose_spread", "change_spread")
    }
    halved = {name: value.half().float() for name, value in network.state_dict().items()}
    network.load_state_dict(halved | spreads)
    torch.set_num_threads(training.loop.threads)
    reference = build_reference(network, encode, stores, validation, seed=training.loop.seed)
    trust = Trust(
        network=network, reference=reference, autoencoder=digest, encode=encode, robot=robot
    )
    trust.save(
        out,
        card={
            "training": training.identity(),
            "episodes": sum(len(store) for store in stores),
            "validation_episodes": sum(len(store) for store in validation),
            "error_on_true_frames": reading_errors(trust),
        },
    )
    return trust


def reading_errors(trust: Trust) -> dict[str, Any]:
    """Mean absolute error on true frames in physical units: reading -> axis -> pose, change."""
    network, config = trust.network, trust.network.config
    error = trust.reference.reading_error.mean(-1)  # (R, 2, P), all speeds
    units = np.stack([network.pose_spread.cpu().numpy(), network.change_spread.cpu().numpy()])
    return {
        reading: {
            axis: {
                "pose": round(float(error[r, 0, p] * units[0, p]), 5),
                "change": round(float(error[r, 1, p] * units[1, p]), 5),
            }
            for p, axis in enumerate(config.pose_names)
        }
        for r, reading in enumerate(config.readings)
    }
