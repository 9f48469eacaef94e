"""A synthetic episode made again from what stands in it, and compared to the last bit.

Enters: a store and a key. Leaves: ``MadeAgain``: the episode as it comes out now, and whether it is
the same. The batch in which it was imagined is imagined again as a whole, with as many threads, for
floating-point sums depend on both.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from worldeval.data.provenance import machine, versions
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError, MismatchError
from worldeval.evaluation.opening import adapter_of, open_imagination, set_threads
from worldeval.policies.loading import load_policy
from worldeval.rollout.recording import rollout_key
from worldeval.synthesis.imagining import BATCH, EXACTLY, MADE_BY, RECIPE, Imagining
from worldeval.synthesis.making import VERSIONS, Making
from worldeval.synthesis.recipe import from_text
from worldeval.types import Episode


@dataclass(frozen=True, kw_only=True)
class MadeAgain:
    """episode: as it was imagined just now, before any coding. same: whether every bit of frames,
    poses and actions is as it was. reasons: what is different on this machine, if anything."""

    episode: Episode
    same: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if self.same:
            return f"{self.episode.key} was made again: every bit of it is the same"
        why = "; ".join(self.reasons) or "nothing that is known of the machine has changed"
        return f"{self.episode.key} was made again, and is another ({why})"


def make_again(store: EpisodeStore, key: str) -> MadeAgain:
    """Imagine the episode ``key`` of ``store`` again from its own facts alone.

    Raises DataError for an episode without them, MismatchError where policy, world model or start
    states have changed since.
    """
    facts = store.facts(store.index_of(key))
    missing = [name for name in (RECIPE, BATCH, MADE_BY, EXACTLY) if not facts.get(name)]
    if missing:
        raise DataError(
            f"episode {key!r} of {store.root} does not say how it was made (it has no "
            f"{missing[0]}), expected one of `worldeval synthesize`"
        )
    making = Making.from_text(str(facts[MADE_BY]), key)
    (own,) = from_text(str(facts[RECIPE]), key)
    batch = from_text(str(facts[BATCH]), key)
    if not Path(making.folder).is_dir():
        raise MismatchError(
            f"episode {key!r} was made in {making.folder}, which is no folder any more; what its "
            "policy is called is found from there"
        )
    with contextlib.chdir(making.folder), tempfile.TemporaryDirectory() as folder:
        making.check()
        set_threads(making.threads)
        options = making.options()
        world = open_imagination(options)
        policy = load_policy(making.policy, world.robot)
        try:
            imagining = Imagining(
                world=world,
                policy=policy,
                adapter=adapter_of(world.robot, options),
                making=making,
                robot_name=world.robot.name,
            )
            made = imagining.again(batch, Path(folder))
            episode = made.by_key(rollout_key(policy.spec.name, own.start_id))
        finally:
            policy.close()
            world.close()
    return MadeAgain(
        episode=episode,
        same=episode.extra[EXACTLY] == facts[EXACTLY],
        reasons=_differences(making),
    )


def _differences(making: Making) -> tuple[str, ...]:
    now = {**{name: versions()[name] for name in VERSIONS}, "processor": machine()["processor"]}
    then = {**making.versions, "processor": making.processor}
    return tuple(
        f"{name} was {then.get(name)}, now it is {value}"
        for name, value in now.items()
        if then.get(name) != value
    )
