"""The learned adapter: a small network that knows how an arm follows its velocity commands.

Enters: joints (B, 7) in rad and 15 velocity commands (B, 15, 7) at 15 Hz. Leaves: joints (B, 15, 7)
after each of them. It is the action adapter published with Ctrl-World (arXiv 2510.10125)::

    v = 2 (velocity - v_low) / (v_high - v_low) - 1        the same for the answer, backwards
    joints_k = joints + denormalise(MLP([joints, v_1 ... v_15]))_k

with two hidden layers of SiLU. The published file holds the weights alone; its percentiles are
written in its code and repeated here. Ours (kind "action-adapter") holds both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldeval.data import checkpoint
from worldeval.data.files import regular_file
from worldeval.errors import CheckpointError, MismatchError
from worldeval.learning.weights import check_weights, filled

KIND = "action-adapter"
STEPS = 15
JOINTS = 7

# 1st and 99th percentiles of DROID's velocity commands, and of what joints move within 15 steps
# (rad), as in the published code (models/action_adapter of Ctrl-World).
PUBLISHED = {
    "velocity_low": (-0.4077107, -0.79047304, -0.47850373, -0.8666644, -0.6729502, -0.5602032)
    + (-0.692411,),
    "velocity_high": (0.4900636, 0.7259861, 0.45910007, 0.79220384, 0.69864315, 0.648198)
    + (0.810115,),
    "delta_low": (-0.2801219, -0.397792, -0.22935797, -0.3351759, -0.42025003, -0.36825255)
    + (-0.450706,),
    "delta_high": (0.2827909, 0.42184818, 0.33529875, 0.35958457, 0.375613, 0.44463825)
    + (0.469769,),
}
BOUNDS = tuple(PUBLISHED)


class AdapterNetwork(nn.Module):
    """(B, 7) joints, (B, 15, 7) velocities -> (B, 15, 7) normalised moves of the joints."""

    velocity_low: Tensor
    velocity_high: Tensor
    delta_low: Tensor
    delta_high: Tensor

    def __init__(self, hidden: int, bounds: dict[str, Any]) -> None:
        super().__init__()
        self.hidden = hidden
        sizes = ((STEPS + 1) * JOINTS, hidden, hidden, STEPS * JOINTS)
        layers: list[nn.Module] = []
        for given, taken in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(given, taken), nn.SiLU()]
        self.net = nn.Sequential(*layers[:-1])
        self.bounds = {name: tuple(float(x) for x in bounds[name]) for name in BOUNDS}
        for name, numbers in self.bounds.items():
            if len(numbers) != JOINTS:
                raise ValueError(f"{name} has {len(numbers)} numbers, expected {JOINTS}")
            # not part of the state, so that the published one loads: they are configuration
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def forward(self, joints: Tensor, velocity: Tensor) -> Tensor:
        scaled = 2 * (velocity - self.velocity_low) / (self.velocity_high - self.velocity_low) - 1
        answer: Tensor = self.net(torch.cat([joints, scaled.flatten(1)], 1))
        return answer.view(-1, STEPS, JOINTS)

    def normalised(self, delta: Tensor) -> Tensor:
        """Moves in rad (B, 15, 7) as ``forward`` answers them."""
        return 2 * (delta - self.delta_low) / (self.delta_high - self.delta_low) - 1

    def moves(self, answer: Tensor) -> Tensor:
        """The reverse of ``normalised``."""
        return (answer + 1) / 2 * (self.delta_high - self.delta_low) + self.delta_low


class LearnedAdapter:
    """A network with its percentiles, for numpy callers."""

    def __init__(self, network: AdapterNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: str | Path) -> LearnedAdapter:
        """A published ``.pth`` (weights only, nothing is unpickled) or a folder of ``save``."""
        path = Path(path)
        if path.is_file():
            return cls(_published(path))
        config, arrays = checkpoint.load(path, kind=KIND)
        with checkpoint.fitting(path):
            hidden, bounds = config["hidden"], config["bounds"]
            network = filled(lambda: AdapterNetwork(hidden, bounds), arrays, path)
        return cls(network)

    def save(self, folder: str | Path, card: dict[str, Any] | None = None) -> Path:
        """Write our form: weights as safetensors, percentiles in ``config.json``."""
        return checkpoint.save(
            folder,
            kind=KIND,
            config={"hidden": self.network.hidden, "bounds": self.network.bounds},
            tensors={n: t.cpu().numpy() for n, t in self.network.state_dict().items()},
            card=card,
        )

    @torch.no_grad()
    def joints(self, joints: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Joints (B, 7) in rad and velocities (B, 15, 7) -> joints (B, 15, 7) after each step."""
        joints, velocity = np.asarray(joints), np.asarray(velocity)
        rows = len(joints)
        if joints.shape != (rows, JOINTS) or velocity.shape != (rows, STEPS, JOINTS):
            raise MismatchError(
                f"joints {joints.shape} and velocities {velocity.shape} were given, expected "
                f"(B, {JOINTS}) and (B, {STEPS}, {JOINTS})"
            )
        like = next(self.network.parameters())
        answer = self.network(torch.as_tensor(joints).to(like), torch.as_tensor(velocity).to(like))
        moved = self.network.moves(answer).double().cpu().numpy()
        return np.asarray(joints[:, None] + moved)

    def along(self, joints: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """As ``joints`` for any number K of steps: (B, K, 7), in blocks of 15.

        A block with fewer steps is filled up with its last velocity.
        """
        velocity = np.asarray(velocity)
        blocks = []
        for first in range(0, velocity.shape[1], STEPS):
            block = velocity[:, first : first + STEPS]
            count = block.shape[1]
            filled = np.concatenate([block, np.repeat(block[:, -1:], STEPS - count, 1)], 1)
            blocks.append(self.joints(joints, filled)[:, :count])
            joints = blocks[-1][:, -1]
        return np.concatenate(blocks, axis=1)


def _published(path: Path) -> AdapterNetwork:
    regular_file(path, "adapter", error=CheckpointError)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a pickle that is none makes torch do
        raise CheckpointError(
            f"{path} cannot be read as weights alone ({' '.join(str(error).split())[:160]}); give "
            "Ctrl-World's action adapter (.pth), or a folder that `worldeval train adapter` wrote"
        ) from error
    shapes = {n: tuple(t.shape) for n, t in state.items()} if _is_state(state) else {}
    hidden = shapes.get("net.0.bias", (0,))[0]
    network = AdapterNetwork(hidden or 1, PUBLISHED)
    expected = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    if shapes != expected:
        wrong = sorted(n for n in shapes.keys() | expected if shapes.get(n) != expected.get(n))
        raise CheckpointError(
            f"{path} is no action adapter: {wrong[:3]} are not as expected (net.0, net.2 and net.4 "
            f"of {(STEPS + 1) * JOINTS} inputs and {STEPS * JOINTS} answers); give Ctrl-World's"
        )
    check_weights(network.state_dict(), state, path)
    network.load_state_dict(state)
    return network


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(t, Tensor) for t in value.values())
