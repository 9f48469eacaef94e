"""What a seed decides: where hand, object and goals of a scene are. numpy only.

What enters: the name of a scene and a seed. What leaves: a ``Layout``. The task has no say in it,
so tasks of one scene start from the same picture.

Ranges are about 0.6 of Meta-World's, and the hand starts nearer to the objects, so that every task
fits in 120 control steps. Drawer, window and faucet start half open, so that "open" and "close"
are both meaningful, and neither succeeds by standing still.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldeval.errors import WorldError

HAND_OFFSET_M = np.array([0.04, 0.03, 0.03])

HAND_START_M = {
    "drawer": (0.0, 0.55, 0.22),
    "window": (0.0, 0.50, 0.22),
    "faucet": (0.0, 0.50, 0.22),
    "button": (0.0, 0.55, 0.24),
    "puck": (0.0, 0.55, 0.18),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything that a seed decides. goals_m are those of the puck scene."""

    hand_m: np.ndarray
    object_m: np.ndarray
    joint: float
    goals_m: dict[str, np.ndarray]


def layout(scene: str, seed: int) -> Layout:
    """Draw a scene; the task has no say in it."""
    rng = np.random.default_rng(seed)
    hand = np.array(HAND_START_M[scene]) + rng.uniform(-1, 1, 3) * HAND_OFFSET_M

    def between(low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
        return rng.uniform(low, high)

    joint, goals = 0.0, {}
    if scene == "drawer":
        place = between((-0.06, 0.9, 0.0), (0.06, 0.9, 0.0))
        joint = -rng.uniform(0.085, 0.115)
    elif scene == "window":
        place = between((-0.06, 0.74, 0.16), (0.06, 0.82, 0.16))
        joint = rng.uniform(0.10, 0.13)
    elif scene == "faucet":
        place = between((-0.05, 0.80, 0.0), (0.05, 0.84, 0.0))
        joint = rng.uniform(-0.25, 0.25)
    elif scene == "button":
        place = between((-0.07, 0.80, 0.115), (0.07, 0.86, 0.115))
    elif scene == "puck":
        place = between((-0.06, 0.61, 0.02), (0.06, 0.66, 0.02))
        goals = {
            "reach": between((-0.13, 0.82, 0.12), (-0.09, 0.86, 0.20)),
            "push": between((-0.03, 0.82, 0.02), (0.03, 0.87, 0.02)),
            "pick-place": between((0.09, 0.82, 0.12), (0.13, 0.86, 0.20)),
        }
    else:
        raise WorldError(f"scene {scene!r} does not exist")
    return Layout(hand_m=hand, object_m=place, joint=float(joint), goals_m=goals)
