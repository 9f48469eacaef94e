"""A policy cloned from demonstrations: one network, one forward for a whole batch of rollouts.

Enters: observations (views, commanded pose, instruction text). Leaves: chunks of actions in the
robot's units. It keeps nothing between calls, so neither the batch nor its order matters.
Checkpoints are of kind ``policy-bc`` with float16 weights (see ``data/checkpoint.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldeval.data import checkpoint
from worldeval.data.fit import check_made_for, robot_of_checkpoint
from worldeval.data.video import to_model
from worldeval.errors import ConfigError, PolicyError
from worldeval.learning.devices import check_device
from worldeval.learning.weights import filled
from worldeval.policies.checking import POSE
from worldeval.policies.cloning.config import BCConfig
from worldeval.policies.cloning.families import network_of
from worldeval.policies.cloning.network import PolicyNetwork, buckets_of, scaled, unscaled
from worldeval.robots import RobotSpec, robot_as_json
from worldeval.types import Observation, PolicySpec

KIND = "policy-bc"


class BehaviourCloning:
    """A network of any family behind the Policy protocol."""

    def __init__(self, network: PolicyNetwork, *, name: str) -> None:
        config = network.config
        self.network = network.eval()
        self.spec = PolicySpec(
            name=name,
            cameras=config.cameras,
            image_size=config.image_size,
            state_keys=(POSE,) if config.use_state else (),
            action_space=config.action_space,
            action_dim=len(config.action_low),
            chunk=config.chunk,
            execute=config.execute,
            rate_hz=config.rate_hz,
        )

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing to forget: every answer depends on its own observation alone."""

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        config = self.network.config
        device = next(self.network.parameters()).device
        images = torch.from_numpy(to_model(np.stack([self._views(o) for o in observations])))
        if config.use_state:
            poses = torch.from_numpy(np.stack([self._pose(o) for o in observations]))
        else:
            poses = torch.zeros(len(observations), len(config.pose_low))
        words, weights = buckets_of([o.instruction for o in observations], config.text_buckets)
        actions = self.network(
            images.to(device),
            scaled(poses, config.pose_low, config.pose_high).to(device),
            words.to(device),
            weights.to(device),
        )
        return unscaled(actions.float().cpu(), config.action_low, config.action_high).numpy()

    def close(self) -> None:
        """Nothing to release."""

    def _views(self, observation: Observation) -> np.ndarray:
        """(V, H, W, C) uint8 in the order the network was trained with."""
        config = self.network.config
        views = []
        for camera in config.cameras:
            image = observation.images.get(camera)
            if image is None:
                raise PolicyError(
                    f"policy {self.spec.name!r} needs camera {camera!r}, the "
                    f"observation has {sorted(observation.images)}"
                )
            if image.shape != (*config.image_size, 3):
                raise PolicyError(
                    f"policy {self.spec.name!r} was given an image of shape "
                    f"{image.shape}, expected {(*config.image_size, 3)}; resize it"
                )
            views.append(image)
        return np.stack(views)

    def _pose(self, observation: Observation) -> np.ndarray:
        pose = observation.state.get(POSE)
        expected = (len(self.network.config.pose_low),)
        if pose is None or np.shape(pose) != expected:
            raise PolicyError(
                f"policy {self.spec.name!r} needs state {POSE!r} of shape "
                f"{expected}, was given {None if pose is None else np.shape(pose)}"
            )
        return np.asarray(pose, np.float32)


def save(
    folder: str | Path,
    network: PolicyNetwork,
    *,
    name: str,
    card: Mapping[str, Any] | None = None,
    robot: RobotSpec | None = None,
) -> Path:
    """Write ``network`` as a checkpoint named ``name``; robot: kept whole beside it."""
    tensors = {
        key: value.detach().cpu().contiguous().numpy().astype(np.float16)
        for key, value in network.state_dict().items()
    }
    return checkpoint.save(
        folder,
        kind=KIND,
        tensors=tensors,
        card=card,
        config={
            "name": name,
            "network": network.config.to_json(),
            **({} if robot is None else {"robot": robot_as_json(robot)}),
        },
    )


def load(
    folder: str | Path,
    robot: RobotSpec | None = None,
    *,
    name: str | None = None,
    execute: int | None = None,
    device: str = "cpu",
) -> BehaviourCloning:
    """Read a checkpoint. ``name`` and ``execute`` override what it says of itself.

    Whether its spec fits ``robot`` is ``check_policy``'s to say; loading needs no robot. Raises
    MismatchError for a checkpoint that keeps another robot than ``robot``.
    """
    check_device(device)
    if robot is not None:
        check_made_for(f"policy {folder}", robot_of_checkpoint(folder), robot, rates=False)
    config, tensors = checkpoint.load(folder, kind=KIND)
    with checkpoint.fitting(folder):
        settings = BCConfig.from_json(config["network"])
        written = config["name"]
        if not isinstance(written, str) or not written.strip() or not written.isprintable():
            raise ConfigError(f"name is {written!r}, expected the policy's name")
        network = filled(lambda: network_of(settings), tensors, folder)
    if execute is not None:
        network.config = replace(network.config, execute=execute)
    network.to(device)
    return BehaviourCloning(network, name=name or written)
