"""A policy whose actions are disturbed a little, so that it sees what it would not come to alone.

Enters: a policy and, by rollout, how large the noise is. Leaves: a policy. The noise wanders
slowly (its correlation decays over some ten control steps), for white noise averages out before
it leads anywhere; grippers are spared. Each rollout's depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from worldeval.policies.guard import guarded
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec
from worldeval.types import Observation, Policy

CORRELATION = 0.9
"""From one control step to the next."""
OF_PLACES = 0.1
"""Where an action says where to be, noise is this share of what it is for motions."""


class ExploringPolicy:
    """``policy`` with noise of standard deviation ``noise[rollout_id]``, in shares of the largest
    action; rollouts that are not named have none."""

    def __init__(self, policy: Policy, robot: RobotSpec, noise: Mapping[str, float]) -> None:
        self.policy, self.noise = policy, noise
        # What is not carried out gets no noise: it would be counted as done.
        self.spec = replace(policy.spec, chunk=policy.spec.execute)
        self.watches_itself = getattr(policy, "watches_itself", False)
        self._low = np.asarray(robot.action_low, np.float64)
        self._high = np.asarray(robot.action_high, np.float64)
        scale = OF_PLACES if robot.control_mode in ABSOLUTE_MOTIONS else 1.0
        self._scale = np.zeros(robot.action_dim)
        moving = list(robot.moving_axes)
        self._scale[moving] = scale * ((self._high - self._low) / 2)[moving]
        self._rngs: dict[str, np.random.Generator] = {}
        self._last: dict[str, np.ndarray] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.policy.reset(rollout_ids, instructions, seeds)
        self._rngs = {
            rollout: np.random.default_rng([seed, 2])
            for rollout, seed in zip(rollout_ids, seeds, strict=True)
        }
        self._last = {
            rollout: rng.standard_normal(len(self._scale)) for rollout, rng in self._rngs.items()
        }

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        chosen = np.asarray(self.policy.act(observations))
        if chosen.ndim != 3 or len(chosen) != len(observations):
            return chosen  # whoever asked says what is wrong with it
        return np.stack(
            [
                self._disturbed(chunk[: self.spec.chunk], observation.rollout_id)
                for chunk, observation in zip(chosen, observations, strict=True)
            ]
        )

    def _disturbed(self, chunk: np.ndarray, rollout: str) -> np.ndarray:
        size = self.noise.get(rollout, 0.0)
        if not size or chunk.shape[-1] != len(self._scale):
            return chunk
        rng, fresh = self._rngs[rollout], np.sqrt(1 - CORRELATION**2)
        done = np.array(chunk, np.float32)
        for step in range(len(done)):
            drawn = rng.standard_normal(len(self._scale))
            self._last[rollout] = CORRELATION * self._last[rollout] + fresh * drawn
            inside = np.clip(done[step], self._low, self._high)
            moved = inside + size * self._scale * self._last[rollout]
            moved = np.clip(moved, self._low, self._high)
            done[step] = np.where(self._scale > 0, moved, done[step])
        return done

    def run_notes(self) -> tuple[str, ...]:
        """What the policy itself has to tell of a run."""
        return guarded(self.policy).run_notes()

    def close(self) -> None:
        self.policy.close()
