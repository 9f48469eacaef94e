"""Are the rollouts that a store holds already those that would be made now?

Enters: a store, a policy's name, a suite, a world. Leaves: nothing, or a ConfigError that names the
rollout and both sides. A start state is more than its name: its task, instruction and seeds are
kept with every rollout, and so is a digest of the first frame where the world knows it beforehand.
(What decides how the policy acts, and the world model, stands in run.json: ``provenance.py``.)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError
from worldeval.rollout.recording import START, rollout_key, start_digest
from worldeval.rollout.suite import Suite, rollout_seed
from worldeval.types import StartState, World

log = logging.getLogger(__name__)


def check_held(
    store: EpisodeStore, policy: str, suite: Suite, world: World, *, seed: int | None = None
) -> None:
    """Raise ConfigError if ``store`` holds a rollout of ``policy`` from a start state of another
    content than that of the same name in ``suite``. seed: of all randomness; the suite's if None.

    Of rollouts whose first frame an earlier version did not digest, a line is logged.
    """
    seed = suite.seed if seed is None else seed
    unknown = 0
    for start in suite.starts:
        key = rollout_key(policy, start.start_id)
        if key not in store:
            continue
        kept, now = store.facts(store.index_of(key)), _facts(policy, start, world, seed)
        for name, value in now.items():
            if name in kept and kept[name] is not None and kept[name] != value:
                raise ConfigError(
                    f"{store.root} holds a rollout {key!r} with {name} {kept[name]!r}, now it is "
                    f"{value!r}: its start state has changed; choose another folder to roll it out "
                    "anew, or go back to what it was"
                )
        unknown += START in now and kept.get(START) is None
    if unknown:
        log.warning(
            "%s: %d rollouts of %r were made by a version that kept no digest of their first "
            "frame: whether the start states have changed since cannot be checked",
            store.root,
            unknown,
            policy,
        )


def _facts(policy: str, start: StartState, world: World, seed: int) -> Mapping[str, Any]:
    facts: dict[str, Any] = {
        "policy": policy,
        "start_id": start.start_id,
        "task": start.task,
        "instruction": start.instruction,
        "split": start.split,
        "start_seed": start.seed,
        "seed": rollout_seed(seed, start.start_id, "world"),
        "world": world.name,
    }
    digest = start_digest(world, start)
    return facts if digest is None else {**facts, START: digest}
