"""How policies are run: the options that all verbs with rollouts share, and opening by them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worldeval.errors import ConfigError, WorldEvalError

if TYPE_CHECKING:
    from worldeval.robots import RobotSpec
    from worldeval.types import Policy


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """How far a policy is trusted."""

    policy_timeout: float = 100.0
    """Seconds that a policy may take for one answer (making it: ten times as long); then its
    rollout is an error and the others go on. 0 waits for ever. Servers have timeout_s instead."""
    isolate: bool = False
    """Run each policy in a process of its own: one that hangs, aborts, forks or eats memory costs
    its own rollouts alone. Results are the same; every policy takes some 0.3 GB more."""
    policy_memory: float | None = None
    """With --isolate: GiB that a policy's process may take; more is an error of its rollout."""

    @property
    def limit_s(self) -> float | None:
        return self.policy_timeout or None

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        from worldeval.policies.guard import check_limit

        check_limit(self.limit_s)
        if self.policy_memory is not None and not self.isolate:
            raise ConfigError(
                "policy_memory was given without --isolate; only a process of its own can be "
                "given a bound, so say --isolate too"
            )

    def open(self, uri: str, robot: RobotSpec) -> Policy:
        """The policy of a URI, checked against ``robot`` and guarded as the options say."""
        from worldeval.policies.isolation import NOT_ISOLATED, IsolatedPolicy
        from worldeval.policies.loading import load_policy

        self.check()
        scheme = uri.partition("?")[0].partition(":")[0]
        if not self.isolate or scheme in NOT_ISOLATED:
            return load_policy(uri, robot, limit_s=self.limit_s)
        return IsolatedPolicy(uri, robot, limit_s=self.limit_s, memory_gib=self.policy_memory)


def close_policies(policies: Iterable[Policy]) -> None:
    """Close every policy; what one of them raises is reported, and costs nothing."""
    from worldeval.policies.guard import guarded

    for policy in policies:
        try:
            guarded(policy).close()
        except WorldEvalError as error:
            tell(f"{error} (in close(); its rollouts are kept)")


def tell(sentence: str) -> None:
    """One line to whoever reads errors, while the command goes on."""
    print(f"worldeval: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
