"""Fine-tuning of cloned policies: the first network, and what is drawn from which store.

Enters: a BCTrainConfig and the episodes that were loaded for it. Leaves: the network of the policy
to start from, or one sentence why it cannot learn from these stores; a ``Sampler`` over them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from worldeval.data.fit import check_made_for, robot_of_checkpoint
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.policies.checking import check_spec
from worldeval.policies.cloning import behaviour_cloning
from worldeval.policies.cloning.choosing import Sampler, weights
from worldeval.policies.cloning.config import BCTrainConfig
from worldeval.policies.cloning.data import Demonstrations
from worldeval.policies.cloning.families import NearestNetwork
from worldeval.policies.cloning.network import PolicyNetwork
from worldeval.robots import RobotSpec

OF_THE_NETWORK = (
    "family", "remembered", "cameras", "use_text", "use_state", "channels", "hidden",
)  # fmt: skip
"""Settings that the policy to start from decides."""


def first_network(config: BCTrainConfig, robot: RobotSpec) -> PolicyNetwork:
    """The network of ``config.start_from`` in float32, if it can learn what ``robot`` does.

    Raises ConfigError for a setting that would be another network, MismatchError for a policy of
    another robot, rate or other bounds.
    """
    assert config.start_from is not None
    policy = behaviour_cloning.load(config.start_from)
    network = policy.network.config
    if isinstance(policy.network, NearestNetwork):
        raise ConfigError(
            f"{config.start_from} is of the family nearest, which remembers and is not trained; "
            "give another policy to start from"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in OF_THE_NETWORK:
        asked, own = getattr(config, name), getattr(network, name)
        if asked not in (defaults[name], own):
            raise ConfigError(
                f"{name} is {asked!r}, but the policy to start from has {own!r}; leave it out, or "
                "train a new policy without --start-from"
            )
    kept = robot_of_checkpoint(config.start_from)
    check_made_for(f"policy {config.start_from}", kept, robot, rates=False)
    check_spec(policy.spec, robot)
    for name, own, found in (
        ("action bounds", network.action_low, robot.action_low),
        ("action bounds", network.action_high, robot.action_high),
    ):
        if not np.allclose(own, found, rtol=1e-6, atol=0):
            raise MismatchError(
                f"policy {policy.spec.name!r} has {name} {tuple(own)}, robot {robot.name!r} of the "
                f"stores has {tuple(found)}; give the policy's own robot (--robot), or train a "
                "new policy"
            )
    if len(network.pose_low) != robot.pose_dim:
        raise MismatchError(
            f"policy {policy.spec.name!r} knows poses of {len(network.pose_low)} numbers, robot "
            f"{robot.name!r} of the stores has {robot.pose_dim}; give stores of its robot"
        )
    return policy.network.train()


def sampler_of(
    config: BCTrainConfig, data: Demonstrations, episodes: Sequence[Sequence[int]]
) -> Sampler:
    """What draws the samples: rows of the chosen ``episodes`` of each store.

    Stores that do not have the column of ``config.advantage`` are drawn evenly, but one must.
    """
    sources = []
    for place, some in zip(data.places, episodes, strict=True):
        rows = data.rows_of(some, idle_share=config.idle_share)
        if not len(rows):
            raise DataError(
                f"{place}: none of the {len(some)} episodes has a frame at which there is "
                "something to do; give a store of demonstrations (`worldeval record`)"
            )
        sources.append(rows)
    shares = [share for _, share in config.sources]
    given = None if None in shares else [share for share in shares if share is not None]
    if config.advantage is None:
        return Sampler(sources, given)
    if not any(config.advantage in table.columns for table in data.tables):
        raise DataError(
            f"no store has a column {config.advantage!r} to weigh its episodes by; "
            f"{data.places[-1]} has {list(data.tables[-1].columns)}"
        )
    relative = []
    for place, table, some, rows in zip(data.places, data.tables, episodes, sources, strict=True):
        each = np.ones(len(rows))
        if config.advantage in table.columns:
            of = weights(table, some, config.advantage, config.temperature, place)
            for episode, weight in of.items():
                held = data.rows[episode]
                each[(rows >= held.start) & (rows < held.stop)] = weight
        relative.append(each)
    return Sampler(sources, given, relative)
