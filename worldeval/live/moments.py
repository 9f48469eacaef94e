"""What a driven rollout remembers of each step, so that it can go back to any moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worldeval.data.provenance import jsonable
from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec
from worldeval.types import Episode, Outcome, StartState


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One step of a drive: who moved, by what, and how long it took.

    number: of the moment in its drive, 0 is the start. parent: the one it goes on from.
    frames: of its rollout so far, the start frame among them. by: "start", "keys", "poses" or
    "policy". what: the keys, or the policy's name. instruction: as the policy was given it.
    seconds: from the command to the pictures.
    """

    number: int
    parent: int | None
    frames: int
    by: str
    what: str = ""
    instruction: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A moment with what was seen in it. The start has one frame and no actions.

    frames: (T, V, H, W, 3) uint8. poses: (T, P). actions: (T, S, A). joints: (T, J) or None.
    success: (T,) or None. log: JSON-able facts of the world's. state: the world's snapshot after
    it; None where it has none.
    """

    moment: Moment
    frames: np.ndarray
    poses: np.ndarray
    actions: np.ndarray
    joints: np.ndarray | None
    success: np.ndarray | None
    log: Mapping[str, Any]
    state: Any = None

    def first(self, count: int, number: int) -> Step:
        """Its first ``count`` frames as a step of its own, called ``number``."""
        moment = replace(
            self.moment,
            number=number,
            frames=self.moment.frames - len(self.frames) + count,
        )
        return Step(
            moment=moment,
            frames=self.frames[:count],
            poses=self.poses[:count],
            actions=self.actions[:count],
            joints=None if self.joints is None else self.joints[:count],
            success=None if self.success is None else self.success[:count],
            log=self.log,
            state=self.state,
        )


def episode_of(
    path: Sequence[Step],
    *,
    key: str,
    start: StartState,
    robot: RobotSpec,
    facts: Mapping[str, Any],
) -> Episode:
    """The steps from the start on as an episode, as rollouts are kept; with who moved when."""
    steps = path[1:]
    if not steps:
        raise ConfigError("nothing has been driven yet; move first, then save")
    flags = [step.success for step in path if step.success is not None]
    known = np.concatenate(flags) if len(flags) == len(path) else None
    success = None if known is None else bool(known[1:].any())
    outcome = Outcome.UNDECIDED
    if success is not None:
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
    at, chunks = 0, []
    for step in steps:
        m = step.moment
        said = {"by": m.by, "what": m.what, "instruction": m.instruction, "took_s": m.seconds}
        chunks.append({"step": at, **said, **step.log})
        at += len(step.frames) * robot.steps_per_frame
    joints = [step.joints for step in path if step.joints is not None]
    return Episode(
        key=key,
        task=start.task,
        instruction=start.instruction,
        views=robot.views,
        frames=np.concatenate([step.frames for step in path]),
        poses=np.concatenate([step.poses for step in path]),
        actions=np.concatenate([step.actions for step in steps]),
        joints=np.concatenate(joints) if joints else None,
        success_at=known,
        success=success,
        extra={
            **facts,
            "start_id": start.start_id,
            "split": start.split,
            "start_seed": start.seed,
            "steps": at,
            "outcome": outcome.value,
            "error": "",
            "driven_by": ", ".join(dict.fromkeys(step.moment.by for step in steps)),
            "chunks": json.dumps(jsonable(chunks)),
        },
    )
