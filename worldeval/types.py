"""The words that all rooms of worldeval share. numpy only; importing this costs nothing.

Axis legend (law for every shape comment in this package)::

    B  rollout in a batch        C    image or latent channel     M  memory frame
    T  frame                     H W  pixels                      N  token
    V  view (camera)             A    action dimension            P  pose dimension
    K  control step in a chunk   S    control step within a frame J  joint

Video inside models is float32 ``(B, T, V, C, H, W)`` in [-1, 1]; *frames* at the borders (worlds,
policies, judges, files) are uint8 ``(B, T, V, H, W, C)`` RGB. ``data/video.py`` alone converts.
Frame 0 of an episode is its start; frame t+1 is what is seen after the S control steps of action
row t. A rollout's row order never mixes with its identity: everything is keyed by ``rollout_id``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from worldeval.robots import RobotSpec


class Outcome(StrEnum):
    """How a rollout ended. Unknown is a value: neither UNDECIDED nor ERROR is ever a failure."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNDECIDED = "undecided"
    ERROR = "error"

    @property
    def decided(self) -> bool:
        """Success or failure: what counts in a rate."""
        return self in (Outcome.SUCCESS, Outcome.FAILURE)


@dataclass(frozen=True, kw_only=True)
class StartState:
    """Where a rollout starts: a task, a seed of its scene, and the words of the instruction.

    ``start_id`` is unique in a suite (``"drawer-open/evaluation/0003"``); ``seed`` fixes the
    scene, so the same start state serves a simulator and a recorded first frame.
    """

    start_id: str
    task: str
    seed: int
    split: str
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one rollout shows a policy. Images are (H, W, 3) uint8 RGB, states (D,) float32.

    state: "pose" (P,) and, of a robot with joints, "joint_position" (J,) rad, "gripper_position"
        (G,) and "cartesian_position" (P-G,): the pose in two parts, under the names of DROID.
    """

    images: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]
    instruction: str
    rollout_id: str
    step: int
    """Control steps since the start."""


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """A batch of action chunks in physical units, and the poses they command.

    actions: (B, K, A) float32, as the robot's controller takes them.
    poses: (B, T, P) float32, the commanded pose at each of the T = K / S frames to come.
    joints: (B, T, J) float32 rad at these frames; None for a robot without joints.
    """

    actions: np.ndarray
    poses: np.ndarray
    joints: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class WorldStep:
    """What a world answers to a batch of chunks; rows are those that were stepped.

    frames: (B, T, V, H, W, C) uint8, the T new frames.
    poses: (B, T, P) float32, the commanded poses at these frames.
    success: (B, T) bool, the world's own flag at each new frame; None where it has none
        (imagination cannot know: a judge decides).
    info: one JSON-able dict per row (retrieved memory frames, sampler, evaluations, seconds).
    joints: (B, T, J) float32 rad at these frames; None for a robot without joints.
    """

    frames: np.ndarray
    poses: np.ndarray
    success: np.ndarray | None
    info: Sequence[dict[str, Any]]
    joints: np.ndarray | None = None


class World(Protocol):
    """A batch of rollouts that can be reset and stepped by action chunks.

    A policy must not be able to tell which world it is in; a ranking must not either.

    What some worlds also have is said by ``LimitedWorld`` and ``RowsWorld``; what keeps to one of
    them is taken for it.
    """

    name: str
    robot: RobotSpec

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        """Begin ``len(starts)`` rollouts. ``seeds`` drive the world's own randomness, one per
        rollout.

        Returns the start frames as a step with T = 1 (``poses`` is the start pose).
        Raises StartStateError for a start state that this world does not have.
        """
        ...

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        """Advance the rollouts ``rows`` (indices into the last reset) by whole frames."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class LimitedWorld(World, Protocol):
    """A world that is stepped by so many frames at a time at most, as a world model is."""

    frames_per_step: int | None
    """1 or more; None: any number, as of a world without it."""


@runtime_checkable
class RowsWorld(World, Protocol):
    """A world that begins some rollouts anew while the others go on."""

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin the rollouts ``rows`` (indices into the last reset); their start frames, T = 1."""
        ...


@runtime_checkable
class StartsWorld(World, Protocol):
    """A world that knows where rollouts may begin, for evaluations without a suite."""

    own_chunks: int
    """How many chunks a rollout lasts, 1 or more."""
    own_seed: int
    """Of the randomness of its rollouts, as a suite's."""

    def own_starts(self) -> tuple[StartState, ...]: ...


@runtime_checkable
class BranchingWorld(World, Protocol):
    """A world that goes back to any moment of a rollout and on from there, exactly."""

    def snapshot(self, row: int) -> Any:
        """All that decides how the rollout goes on; later steps do not change it."""
        ...

    def restore(self, row: int, state: Any, frames: int | None = None) -> None:
        """Go on with ``row`` from a snapshot. frames: how many of its frames, the start frame among
        them, count as seen; all if None."""
        ...


def frames_at_a_time(world: World) -> int | None:
    """The most frames by which ``world`` is stepped at a time; None: any number."""
    return world.frames_per_step if isinstance(world, LimitedWorld) else None


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """What a policy needs and gives, compared with the robot before the first step."""

    name: str
    cameras: tuple[str, ...]
    image_size: tuple[int, int] | None
    """(H, W) it wants; None takes what the world has."""
    state_keys: tuple[str, ...]
    action_space: str
    """Name of the action space, equal to ``RobotSpec.action_space``."""
    action_dim: int
    chunk: int
    """Control steps in one answer."""
    execute: int
    """Control steps of it that are carried out before the policy is asked again; any number from 1
    to ``chunk``. Where they end between two frames, it is shown the newest frame and state again
    with the ``step`` that has come, and what it answers fills up the frame."""
    rate_hz: float
    """Control rate for which its actions are meant."""


class Policy(Protocol):
    """Maps observations of a batch of rollouts to action chunks."""

    spec: PolicySpec

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """A new batch begins; forget everything about earlier ones."""
        ...

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """(B, chunk, A) float32 in physical units, row i for ``observations[i]``."""
        ...

    def close(self) -> None: ...


@dataclass(kw_only=True)
class Episode:
    """One episode, recorded or imagined: T+1 frames and the T actions between them.

    frames: (T+1, V, H, W, C) uint8, views in the order of ``views``.
    poses: (T+1, P) float32 commanded poses.
    actions: (T, S, A) float32, the S control steps that lead from frame t to t+1.
    joints: (T+1, J) float32 rad, or None for a robot without joints.
    success_at: (T+1,) bool, the world's own flag at each frame, or None where unknown.
    expert_actions: (T, S, A) what an expert would have done instead, or None.
    instruction: the words given to the policy. task: the suite's name of the task.
    success: whether the episode counts as solved; None where nobody has judged it.
    key: unique name in its store; a store never holds two episodes of one key.
    extra: flat, JSON-able facts (seed, policy, kind, judge, ...), kept as columns.
    """

    key: str
    task: str
    instruction: str
    views: tuple[str, ...]
    frames: np.ndarray
    poses: np.ndarray
    actions: np.ndarray
    success_at: np.ndarray | None = None
    expert_actions: np.ndarray | None = None
    success: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    joints: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Number of frames, T+1."""
        return len(self.frames)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a verdict took. Judges that ask nobody have no tokens and no requests."""

    seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = None
    """None where the price is not known."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of one rollout."""

    key: str
    """Key of the judged episode."""
    outcome: Outcome
    probability: float | None
    """Of success, where the judge has one."""
    judge: str
    """Name and version of who judged."""
    reason: str = ""
    frames: tuple[int, ...] = ()
    """Numbers of the frames that were looked at, ascending."""
    solved_at: int | None = None
    """Of a success: the first frame at which the rollout, had it ended there, would have been
    judged one. None where the judge does not tell."""
    cost: Cost = Cost()


class Judge(Protocol):
    """Turns episodes into verdicts; never sees which world or policy they come from."""

    name: str

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]: ...
