"""A policy behind a fault: half speed, a weak grip, a blind camera, late pictures.

Enters: any policy and what is wrong with it. Leaves: a policy. ``faulty:FOLDER?gain=0.5`` is the
policy in FOLDER at half speed; the arguments are those of ``motion/faults.py`` for what is carried
out, and ``deaf``, ``blind`` and ``stale_chunks`` for what is perceived. Faults know nothing of the
world they are in, so they act alike in truth and in imagination. Each rollout's noise depends on
its seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from worldeval.errors import ConfigError
from worldeval.motion.faults import Fault, FaultyStream
from worldeval.policies.guard import guarded
from worldeval.robots import RobotSpec
from worldeval.settings import settings_from
from worldeval.types import Observation, Policy


class FaultyPolicy:
    """``policy`` with a ``fault`` in its actions and others in its perception.

    deaf: it is not told the instruction. blind: views that are black to it. stale_chunks: it sees
    the pictures and the state of so many answers ago.
    """

    def __init__(
        self,
        policy: Policy,
        robot: RobotSpec,
        fault: Fault,
        *,
        name: str,
        deaf: bool = False,
        blind: Sequence[str] = (),
        stale_chunks: int = 0,
    ) -> None:
        unknown = sorted(set(blind) - set(policy.spec.cameras))
        if unknown:
            raise ConfigError(
                f"blind is {list(blind)}, but policy {policy.spec.name!r} sees "
                f"{list(policy.spec.cameras)}"
            )
        if stale_chunks < 0:
            raise ConfigError(f"stale_chunks is {stale_chunks!r}, expected 0 or more")
        FaultyStream(fault, robot, np.random.default_rng(0))  # raises for what does not fit
        self.policy, self.robot, self.fault = policy, robot, fault
        self.deaf, self.blind, self.stale_chunks = deaf, tuple(blind), stale_chunks
        # What is not carried out must not pass through the stream: it would be counted as done.
        self.spec = replace(policy.spec, name=name, chunk=policy.spec.execute)
        self.watches_itself = getattr(policy, "watches_itself", False)
        self._streams: dict[str, FaultyStream] = {}
        self._seen: dict[str, list[Observation]] = {}

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.policy.reset(rollout_ids, [""] * len(seeds) if self.deaf else instructions, seeds)
        self._streams = {
            rollout: FaultyStream(self.fault, self.robot, np.random.default_rng([seed, 1]))
            for rollout, seed in zip(rollout_ids, seeds, strict=True)
        }
        self._seen = {rollout: [] for rollout in rollout_ids}

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        chosen = self.policy.act([self._perceived(o) for o in observations])
        done = [
            self._streams[observation.rollout_id].carry_out(chunk[: self.spec.chunk])
            for observation, chunk in zip(observations, chosen, strict=True)
        ]
        return np.stack(done)

    def _perceived(self, observation: Observation) -> Observation:
        if self.stale_chunks:
            seen = self._seen[observation.rollout_id]
            seen.append(observation)
            del seen[: -self.stale_chunks - 1]
            observation = replace(observation, images=seen[0].images, state=seen[0].state)
        if self.blind:
            images = dict(observation.images)
            images |= {view: np.zeros_like(images[view]) for view in self.blind}
            observation = replace(observation, images=images)
        return replace(observation, instruction="") if self.deaf else observation

    def run_notes(self) -> tuple[str, ...]:
        """What the policy itself has to tell of a run."""
        return guarded(self.policy).run_notes()

    def close(self) -> None:
        self.policy.close()


def load(
    place: str,
    robot: RobotSpec,
    *,
    name: str | None = None,
    deaf: bool = False,
    blind: str | Sequence[str] = (),
    stale_chunks: int = 0,
    **fault: Any,
) -> FaultyPolicy:
    """The policy at ``place`` (a folder or a URI without arguments) with a fault.

    fault: fields of ``motion/faults.py``'s ``Fault``.
    """
    from worldeval.policies.loading import load_policy

    wrong = settings_from(Fault, fault)
    views = (blind,) if isinstance(blind, str) else blind
    if not isinstance(views, Sequence) or not all(isinstance(view, str) for view in views):
        raise ConfigError(f"blind is {blind!r}, expected the name of a view, or a list of names")
    policy = load_policy(place, robot)
    perceived: dict[str, Any] = {
        "deaf": deaf,
        "blind": tuple(views),
        "stale_chunks": stale_chunks,
    }
    told = [f"{k}={v}" for k, v in perceived.items() if v] + ([] if wrong.works else [str(wrong)])
    called = name or f"{policy.spec.name} ({', '.join(told) or 'as it is'})"
    return FaultyPolicy(policy, robot, wrong, name=called, **perceived)
