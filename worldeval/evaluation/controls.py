"""Control policies: recorded expert actions, random, standing still and mirrored actions.

In: the robot and, where there is one, a store of recorded expert episodes that begin at the suite's
start states. Out: policies with the reserved names of ``ranking.leaderboard.controls``, to be
rolled out from a few start states beside those that are evaluated. Who rolls out adds them::

    policies += control_policies(world.robot, recorded)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldeval.motion.faults import Fault
from worldeval.policies.faulty import FaultyPolicy
from worldeval.policies.replay import ReplayPolicy
from worldeval.policies.scripted import RandomPolicy, ZeroPolicy
from worldeval.ranking.leaderboard.controls import EXPERT, MIRRORED, RANDOM, STILL
from worldeval.robots import ABSOLUTE_MOTIONS, RobotSpec

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.types import Policy


def control_policies(
    robot: RobotSpec, recorded: EpisodeStore | None = None, *, mirrored_axis: int = 0
) -> list[Policy]:
    """The controls that this robot and these recordings allow, the experts first.

    Without recordings there are none of the expert and none mirrored. A robot that is told where to
    be has neither random nor mirrored motions.
    """
    places = robot.motion in ABSOLUTE_MOTIONS
    controls: list[Policy] = []
    if recorded is not None:
        controls.append(ReplayPolicy(recorded, robot, name=EXPERT))
    if not places:
        controls.append(RandomPolicy(robot, name=RANDOM))
    controls.append(ZeroPolicy(robot, name=STILL))
    if recorded is not None and not places:
        expert = ReplayPolicy(recorded, robot, name=EXPERT)
        fault = Fault(mirrored_axis=mirrored_axis)
        controls.append(FaultyPolicy(expert, robot, fault, name=MIRRORED))
    return controls
