"""Do a world, a policy and a suite belong together? Asked once, before the first step.

Enters: the three. Leaves: nothing, or an error that names the first disagreement. And: are all
policies called differently, since a rollout is known by the name of its policy?
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.errors import ConfigError, MismatchError
from worldeval.policies.checking import check_policy
from worldeval.rollout.suite import Suite
from worldeval.types import Policy, World


def check_names(uris: Sequence[str], policies: Sequence[Policy]) -> None:
    """Raise ConfigError if two of ``policies``, loaded from ``uris``, have one name: the rollouts
    of one would be taken for those of the other."""
    first: dict[str, str] = {}
    for uri, policy in zip(uris, policies, strict=True):
        name = policy.spec.name
        if name in first:
            rename = f"{uri}{'&' if '?' in uri else '?'}name=another"
            how = f"with --policy {rename!r} if it takes a name, else in its PolicySpec"
            if uri.startswith("object:"):
                how = "in its PolicySpec"
            raise ConfigError(
                f"two policies are called {name!r}: {first[name]!r} and {uri!r}; rename one {how}, "
                "or give one only"
            )
        first[name] = uri


def check_fit(world: World, policy: Policy, suite: Suite) -> None:
    """Compare world, policy and suite before the first step; raise on any disagreement."""
    robot = world.robot
    if suite.robot != robot.name:
        raise MismatchError(
            f"suite {suite.name!r} is for robot {suite.robot!r}, world {world.name!r} has "
            f"{robot.name!r}; choose a suite for this robot"
        )
    check_policy(policy, robot)
