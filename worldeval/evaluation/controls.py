"""Control policies: recorded expert actions, random, standing still and mirrored actions.

In: the robot, the suite and, where there is one, a store of recorded episodes that begin at the
suite's start states. Out: policies with the reserved names of ``ranking.leaderboard.controls`` and
the few start states from which `worldeval evaluate` rolls them out beside the others. They never
rank: what is imagined of them tells on which tasks imagination is not to be believed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worldeval.errors import WorldEvalError
from worldeval.evaluation.given import Opened
from worldeval.evaluation.policy_options import PolicyOptions, tell
from worldeval.ranking.leaderboard.controls import EXPERT, MIRRORED, RANDOM, STILL
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.rollout.suite import Suite
    from worldeval.types import Policy, World

PER_TASK = 2
"""Start states of each task: enough to notice a judge that takes whatever moves for a success."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Control policies and where they begin."""

    opened: tuple[Opened, ...]
    suite: Suite

    @property
    def policies(self) -> tuple[Policy, ...]:
        return tuple(one.policy for one in self.opened)


def control_uris(robot: RobotSpec, recorded: str | None, *, mirrored_axis: int = 0) -> list[str]:
    """The controls that this robot and these recordings (a store's path) allow, experts first.

    Without recordings there are none of the expert and none mirrored. A robot that is told where to
    be has neither random nor mirrored motions.
    """
    places = robot.control_mode in ABSOLUTE_MOTIONS
    uris = [f"zero?name={STILL}"]
    if not places:
        uris.insert(0, f"random?name={RANDOM}")
    if recorded is not None:
        uris.insert(0, f"replay:{recorded}?name={EXPERT}")
        if not places:
            uris.append(f"faulty:replay:{recorded}?mirrored_axis={mirrored_axis}&name={MIRRORED}")
    return uris


def open_controls(
    world: World, suite: Suite, recorded: EpisodeStore | None, taken: Collection[str] = ()
) -> Controls:
    """The controls of an evaluation of ``suite``. What cannot act here is left out, and reported.

    recorded: episodes of experts, of which those are replayed that are known to have succeeded and
    that end within a rollout. taken: names of policies that are given already.
    """
    from worldeval.rollout.fit import check_fit

    solved = set() if recorded is None else _solved(recorded, suite, world.robot)
    begins = [start for start in suite.starts if start.start_id in solved]
    few = replace(suite, starts=tuple(begins)) if begins else suite
    few = few.subset(per_task=PER_TASK)
    store = str(recorded.root.absolute()) if recorded is not None and begins else None
    if store is not None and "?" in store:
        store = None  # no URI can name it
    opened = []
    for uri in control_uris(world.robot, store):
        if uri.rpartition("name=")[2] in taken:
            continue
        try:
            policy = PolicyOptions().open(uri, world.robot)
            check_fit(world, policy, few)
        except WorldEvalError as error:
            tell(f"the control {uri} is left out: {error}")
        else:
            opened.append(Opened(uri=uri, policy=policy))
    return Controls(opened=tuple(opened), suite=few)


def _solved(recorded: EpisodeStore, suite: Suite, robot: RobotSpec) -> set[str]:
    """Start states of the suite from which one recorded episode succeeded, soon enough."""
    table = recorded.metadata()
    if not len(recorded) or not {"start_id", "success"} <= set(table.columns):
        return set()
    most = suite.chunks * robot.frames_per_chunk + 1
    found = table[~table["start_id"].duplicated(keep=False)]
    found = found[(found["success"] == True) & (found["length"] > 1)]  # noqa: E712
    return set(found.loc[found["length"] <= most, "start_id"].map(str))
