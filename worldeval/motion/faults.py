"""What goes wrong between a controller and its robot: faults of a stream of actions.

What enters: the actions that a policy or an expert chose, in the robot's units. What leaves: the
actions that are carried out. The same faults make policies that fail in lifelike ways
(``policies/population.py``) and recordings from which a world model and a judge learn what such
failures look like (``worlds/counterfactuals.py``).

A ``Fault`` is a value; ``FaultyStream`` carries it out for one rollout and remembers what a delay
or a slipping grasp has to remember. How often it is asked does not matter: one chunk of twelve
steps equals twelve chunks of one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from worldeval.errors import ConfigError
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec

GRIPPERS = ("", "open", "closed", "inverted")
OF_MOTION = ("gain", "bias", "noise", "delay_steps", "mirrored_axis", "stop_after_steps")
"""Faults of all but the gripper; they mean something where actions are motions."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One or several faults; the defaults do nothing. Motion is all but the gripper.

    Applied in this order: delay, gain, mirror, bias, noise, stop; for the gripper: delay, what it
    is frozen to, slip, weakness.
    """

    gain: float = 1.0
    """Factor on the motion: 0.5 is half speed."""
    bias: tuple[float, ...] = ()
    """Added to the motion at every step, in shares of the largest action; () is none."""
    noise: float = 0.0
    """Standard deviation of white noise on the motion, in shares of the largest action."""
    delay_steps: int = 0
    """The motion comes so many control steps late."""
    mirrored_axis: int | None = None
    """This number of the motion has the wrong sign."""
    stop_after_steps: int | None = None
    """The arm stands still from this control step on."""
    gripper: str = ""
    """Frozen "open" or "closed", or "inverted"; "" works."""
    grip: float = 1.0
    """Share of the way from open to closed that the gripper closes at most: a weak grip."""
    gripper_delay_steps: int = 0
    slip_after_steps: int | None = None
    """The hand opens for good once it was told to be closed for so many steps."""

    def __post_init__(self) -> None:
        if self.gripper not in GRIPPERS:
            raise ConfigError(f"gripper is {self.gripper!r}, expected one of {GRIPPERS[1:]} or ''")
        if not 0 <= self.grip <= 1:
            raise ConfigError(f"grip is {self.grip!r}, expected 0 (open) to 1 (closed)")
        if self.noise < 0:
            raise ConfigError(f"noise is {self.noise!r}, expected 0 or more")
        for name in ("delay_steps", "gripper_delay_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 or more steps")

    @property
    def works(self) -> bool:
        """Whether nothing is wrong at all."""
        return self == Fault()

    def __str__(self) -> str:
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(f"{f.name}={getattr(self, f.name)}" for f in changed) or "none"


class FaultyStream:
    """One rollout's actions on their way through a fault."""

    def __init__(self, fault: Fault, robot: RobotSpec, rng: np.random.Generator) -> None:
        wrong = [name for name in OF_MOTION if getattr(fault, name) != getattr(Fault(), name)]
        if wrong and robot.control_mode in ABSOLUTE_MOTIONS:  # half of a place is not half speed
            raise ConfigError(
                f"{', '.join(wrong)} cannot be wrong with robot {robot.name!r}, whose actions say "
                f"where to be ({robot.control_mode}); faults of its gripper and of perception can"
            )
        dim = robot.action_dim
        self._told_where = robot.control_mode in ABSOLUTE_MOTIONS
        self.fault, self._rng = fault, rng
        self._low, self._high = np.array(robot.action_low), np.array(robot.action_high)
        self._gripper = list(robot.gripper_axes)
        self._moving = [i for i in range(dim) if i not in self._gripper]
        if fault.bias and len(fault.bias) != len(self._moving):
            raise ConfigError(
                f"bias has {len(fault.bias)} numbers, the motion of {robot.name!r} has "
                f"{len(self._moving)}"
            )
        if fault.mirrored_axis is not None and not 0 <= fault.mirrored_axis < len(self._moving):
            raise ConfigError(
                f"mirrored_axis is {fault.mirrored_axis}, the motion of {robot.name!r} has axes 0 "
                f"to {len(self._moving) - 1}"
            )
        positive = robot.gripper_sense == "close_positive"
        self._open = (self._low if positive else self._high)[self._gripper]
        self._closed = (self._high if positive else self._low)[self._gripper]
        still = np.zeros(dim)
        still[self._gripper] = self._open
        self._late_motion = [still] * fault.delay_steps
        self._late_gripper = [still] * fault.gripper_delay_steps
        self._steps = self._held = 0

    def carry_out(self, actions: np.ndarray) -> np.ndarray:
        """(K, A) chosen actions -> (K, A) float32 executed ones, inside the robot's bounds."""
        done = [self._one(action) for action in np.asarray(actions, np.float64)]
        carried = np.array(done)
        clipped = np.clip(carried, self._low, self._high)
        if self._told_where:  # nothing is wrong but grippers: arms go where they are told
            clipped[:, self._moving] = carried[:, self._moving]
        return clipped.astype(np.float32)

    def _one(self, chosen: np.ndarray) -> np.ndarray:
        fault, done = self.fault, np.empty_like(chosen)
        self._late_motion.append(chosen)
        self._late_gripper.append(chosen)
        motion = fault.gain * self._late_motion.pop(0)[self._moving]
        if fault.mirrored_axis is not None:
            motion[fault.mirrored_axis] *= -1
        reach = self._high[self._moving]
        if fault.bias:
            motion = motion + np.array(fault.bias) * reach
        if fault.noise:
            motion = motion + self._rng.normal(0.0, fault.noise, len(motion)) * reach
        if fault.stop_after_steps is not None and self._steps >= fault.stop_after_steps:
            motion = np.zeros_like(motion)
        done[self._moving] = motion
        done[self._gripper] = self._grip(self._late_gripper.pop(0)[self._gripper])
        self._steps += 1
        return done

    def _grip(self, wanted: np.ndarray) -> np.ndarray:
        fault, width = self.fault, self._closed - self._open
        closing = (wanted - self._open) / width if len(wanted) else wanted  # 0 open .. 1 closed
        if fault.gripper == "inverted":
            closing = 1 - closing
        elif fault.gripper:
            closing = np.full_like(closing, float(fault.gripper == "closed"))
        self._held = self._held + 1 if (closing > 0.5).any() else self._held
        if fault.slip_after_steps is not None and self._held > fault.slip_after_steps:
            closing = np.zeros_like(closing)
        return self._open + np.minimum(closing, fault.grip) * width
