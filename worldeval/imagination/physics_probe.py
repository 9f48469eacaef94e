"""The same motions in physics and in imagination: contacts, grippers, hidden places, long rollouts.

In: an ``Imagination`` of the embedded robot, a judge, an inverse dynamics network. Out: a
``PhysicsProbe``. Motions (``worlds/probe_motions.py``) are carried out in the simulator once, and
imagined from the same first frames; both are kept as stores in ``out`` and not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from worldeval.data.fit import robot_extra, store_fields
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import to_frames, to_model
from worldeval.errors import MismatchError
from worldeval.imagination.contacts import (
    Contact,
    ContactRow,
    GripRow,
    contact_rows,
    grip_rows,
    read_travel,
)
from worldeval.imagination.env import Imagination
from worldeval.imagination.probe import Motion, MotionProbe, named_slopes, probe_motion
from worldeval.imagination.probing import motion_of
from worldeval.imagination.replay import imagine_replays
from worldeval.imagination.trust.inverse_dynamics import InverseDynamics
from worldeval.metrics.fidelity import psnr_db
from worldeval.policies.loading import load_policy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.types import Episode, Judge, Outcome
from worldeval.worlds.probe_motions import (
    CONTACT_KINDS,
    GRIPS,
    POLICY,
    MotionJob,
    carry_out,
    start_of,
)
from worldeval.worlds.sawyer import ROBOT, TASKS

if TYPE_CHECKING:
    from worldeval.worlds.metaworld import MetaWorld
    from worldeval.worlds.movable import Places

FAITHFUL_KINDS = ("expert", POLICY, "random", "human")
"""Motions that a world model has to follow equally."""
GRIP_TASKS = ("window-open", "window-close", "faucet-open", "faucet-close")
MEMORY_TASKS = ("drawer-open", "window-open", "faucet-open", "push")
"""One a scene."""
LONG_CHUNKS = 40
LONG_SEEN = (1, 5, 10, 20, 30, 40)
TRUE_PLACE = 1
"""Number of the picture in which the object is where it truly was (``movable.Places``)."""
BLUR_PX = 1
"""True frames are blurred by a mean over (2 BLUR_PX + 1)^2 pixels to try the detector."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to carry out: starts a task of each kind of motion, and of each gripper."""

    starts: int = 1
    grips: int = 2
    long: int = 2


@dataclass(frozen=True, kw_only=True)
class PhysicsProbe:
    """What was measured against the simulator.

    motions: gain and drift by kind; drift of the long motions has ``LONG_CHUNKS`` numbers.
    returned_db: PSNR of the wrist view over the last two chunks of motions out and back, imagined;
        ceiling_db: of true frames through the autoencoder, which no imagination exceeds.
    long_db: by chunk of ``LONG_SEEN``: (chunk, imagined, repeated first frame).
    """

    motions: tuple[MotionProbe, ...]
    by_kind: tuple[ContactRow, ...]
    by_task: tuple[ContactRow, ...]
    grips: tuple[GripRow, ...]
    returned_db: float | None
    ceiling_db: float | None
    long_db: tuple[tuple[int, float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "motions": [probe.to_dict() for probe in self.motions],
            "contacts_by_kind": [row.to_dict() for row in self.by_kind],
            "contacts_by_task": [row.to_dict() for row in self.by_task],
            "grippers": [row.to_dict() for row in self.grips],
            "returned_psnr_db": {"imagined": self.returned_db, "ceiling": self.ceiling_db},
            "long_psnr_db": [
                {"chunk": chunk, "imagined": imagined, "repeated_first_frame": repeated}
                for chunk, imagined, repeated in self.long_db
            ],
        }


def probe_physics(
    world: Imagination,
    network: InverseDynamics,
    judge: Judge,
    policy: str,
    out: Path,
    *,
    size: Size,
    chunks: int = 10,
    batch: int = 8,
) -> PhysicsProbe:
    """Carry out, imagine, measure; resumable. policy: URI of one that acts in the simulator.

    Raises MismatchError for a world of another robot than the simulator's,
    MissingDependencyError where the simulator is not installed.
    """
    from worldeval.worlds.metaworld import MetaWorld

    if world.robot != ROBOT:
        raise MismatchError(
            f"the simulator has robot {ROBOT.name!r}, the world model is of {world.robot.name!r}; "
            "against physics only worlds of the simulator's robot are probed"
        )
    short = _short_jobs(size, chunks)
    far = [MotionJob(task=t, kind="long", index=i, chunks=LONG_CHUNKS) for t, i in _long(size)]
    physics = MetaWorld()
    try:
        acted = _acted(physics, policy, [job for job in short if job.kind == POLICY], out, batch)
        true = _carried_out(physics, short, out / "physics", acted)
        true_far = _carried_out(physics, far, out / "physics-long", {})
        pairs = _imagined(world, true, out / "imagined", chunks, batch)
        pairs_far = _imagined(world, true_far, out / "imagined-long", LONG_CHUNKS, batch)
        decoded = _through(world)
        contacts = [
            _contact(physics, true_one, imagined_one, decoded)
            for true_one, imagined_one in tqdm(
                pairs((*CONTACT_KINDS, POLICY)), desc="reading", disable=None
            )
        ]
    finally:
        physics.close()
    grips = [
        (t.task, str(t.extra["kind"]).removeprefix("grip-"), _solved(judge, i), bool(t.success))
        for t, i in pairs([f"grip-{grip}" for grip in GRIPS])
    ]
    returned, ceiling = _returned(list(pairs(["memory"])), decoded)
    return PhysicsProbe(
        motions=(
            *(_motion(network, kind, list(pairs([kind]))) for kind in FAITHFUL_KINDS),
            _motion(network, "long", list(pairs_far(["long"]))),
        ),
        by_kind=tuple(contact_rows(contacts, "kind")),
        by_task=tuple(contact_rows(contacts, "task")),
        grips=tuple(grip_rows(grips)),
        returned_db=returned,
        ceiling_db=ceiling,
        long_db=tuple(_fading(list(pairs_far(["long"])), world.robot.frames_per_chunk)),
    )


Pairs = Callable[[Sequence[str]], Iterator[tuple[Episode, Episode]]]
"""Kinds of motion -> (true, imagined) episodes."""


def _short_jobs(size: Size, chunks: int) -> list[MotionJob]:
    kinds = [(t, k, size.starts) for t in TASKS for k in (*CONTACT_KINDS, POLICY)]
    kinds += [(t, f"grip-{grip}", size.grips) for t in GRIP_TASKS for grip in GRIPS]
    kinds += [(t, "memory", size.starts) for t in MEMORY_TASKS]
    return [
        MotionJob(task=task, kind=kind, index=index, chunks=chunks)
        for task, kind, count in kinds
        for index in range(count)
    ]


def _long(size: Size) -> list[tuple[str, int]]:
    return [(MEMORY_TASKS[n % len(MEMORY_TASKS)], n // len(MEMORY_TASKS)) for n in range(size.long)]


def _acted(
    physics: MetaWorld, uri: str, jobs: list[MotionJob], out: Path, batch: int
) -> dict[str, np.ndarray]:
    """Start_id -> the actions (K, A) that a policy chooses in the simulator."""
    policy = load_policy(uri, physics.robot)
    starts = tuple(start_of(job) for job in jobs)
    suite = Suite(name="probe", robot=ROBOT.name, chunks=jobs[0].chunks, starts=starts)
    store = open_rollouts(out / "policy", physics.robot)
    try:
        run(physics, policy, suite, store, batch=batch)
        table = store.metadata()
        return {
            str(row["start_id"]): store.trajectory(int(i)).actions.reshape(-1, ROBOT.action_dim)
            for i, row in table.iterrows()
        }
    finally:
        store.close()
        policy.close()


def _carried_out(
    physics: MetaWorld, jobs: Sequence[MotionJob], out: Path, acted: dict[str, np.ndarray]
) -> EpisodeStore:
    store = EpisodeStore.open_or_create(
        out, **store_fields(ROBOT), images="lossless", extra=robot_extra(ROBOT)
    )
    todo = [job for job in jobs if job.key not in store]
    try:
        for job in tqdm(todo, desc="carrying out", unit="motion", disable=None):
            store.append(carry_out(job, physics, acted.get(job.key)))
    finally:
        store.close()
    return EpisodeStore.open(out)


def _imagined(world: Imagination, true: EpisodeStore, out: Path, chunks: int, batch: int) -> Pairs:
    here = Imagination(world.frame_rollouts, world.robot, true)
    imagined = imagine_replays(here, true, out, chunks=chunks, batch=batch)
    table = imagined.metadata()
    place = {str(name): int(row) for row, name in zip(table.index, table["start_id"], strict=True)}
    kinds = true.metadata()["kind"].tolist()

    def pairs(wanted: Sequence[str]) -> Iterator[tuple[Episode, Episode]]:
        for row in (row for row, kind in enumerate(kinds) if kind in wanted):
            episode = true.episode(row)
            yield episode, imagined.episode(place[episode.key])

    return pairs


def _through(world: Imagination) -> Callable[[np.ndarray], np.ndarray]:
    """Frames (N, V, H, W, C) as the world's autoencoder gives them back."""
    codec = world.frame_rollouts.autoencoder

    @torch.inference_mode()
    def decoded(frames: np.ndarray) -> np.ndarray:
        video = torch.from_numpy(to_model(frames)).to(world.frame_rollouts.device)
        return to_frames(codec.decode(codec.encode(video)).float().cpu().numpy())

    return decoded


def _contact(
    physics: MetaWorld,
    true: Episode,
    imagined: Episode,
    decoded: Callable[[np.ndarray], np.ndarray],
) -> Contact:
    extra, moment = true.extra, int(true.extra["read_at"])
    places = _places(physics, true)
    pictures = decoded(places.frames)
    # The detector is tried without the picture of the true place, which would be too easy.
    others, travel = np.delete(pictures, TRUE_PLACE, 0), np.delete(places.travel_m, TRUE_PLACE)
    return Contact(
        task=true.task,
        kind=str(extra["kind"]),
        true_m=float(max(extra["object_travel_m"])),
        imagined_m=read_travel(imagined.frames[moment], pictures, places.travel_m),
        sharp_m=read_travel(true.frames[moment], others, travel),
        blurred_m=read_travel(_blurred(true.frames[moment]), others, travel),
        psnr_db=psnr_db(true.frames[1:], imagined.frames[1 : len(true.frames)]),
    )


def _places(physics: MetaWorld, true: Episode) -> Places:
    from worldeval.worlds.movable import Movable

    simulation = physics.simulation(true.task)
    simulation.reset(int(true.extra["seed"]))
    return Movable(simulation).places(physics, np.array(true.extra["joints_read"], np.float64))


def _blurred(frame: np.ndarray) -> np.ndarray:
    """(V, H, W, C) uint8 with the mean of its neighbourhood in every pixel."""
    reach = range(-BLUR_PX, BLUR_PX + 1)
    padded = np.pad(frame, ((0, 0), (BLUR_PX,) * 2, (BLUR_PX,) * 2, (0, 0)), mode="edge")
    height, width = frame.shape[1:3]
    parts = [
        padded[:, BLUR_PX + y : BLUR_PX + y + height, BLUR_PX + x : BLUR_PX + x + width]
        for y in reach
        for x in reach
    ]
    return np.mean(parts, axis=0).round().astype(np.uint8)


def _solved(judge: Judge, imagined: Episode) -> bool:
    return judge.judge([imagined])[0].outcome is Outcome.SUCCESS


def _motion(
    network: InverseDynamics, kind: str, pairs: list[tuple[Episode, Episode]]
) -> MotionProbe:
    true = motion_of(network, (t for t, _ in pairs))
    imagined = motion_of(network, (i for _, i in pairs))
    names = network.config.pose_names
    hands = [_hand_motion(t, network.config.most_frames) for t, _ in pairs]
    return probe_motion(
        kind, imagined, true, names, physics=named_slopes(Motion.joined(hands), names[:3])
    )


def _hand_motion(true: Episode, most_frames: int) -> Motion:
    """Commanded and true changes of the hand's place (N, 3) in metres."""
    hand = np.array(true.extra["hand_m"], np.float64)
    after = np.arange(1, len(hand))
    before = np.maximum(after - most_frames, 0)
    poses = true.poses[:, :3].astype(np.float64)
    return Motion(
        commanded=poses[after] - poses[before],
        read=hand[after] - hand[before],
        chunk=(after - 1) // most_frames,
    )


def _returned(
    pairs: list[tuple[Episode, Episode]], decoded: Callable[[np.ndarray], np.ndarray]
) -> tuple[float | None, float | None]:
    if not pairs:
        return None, None
    wrist, last = ROBOT.views.index("wrist"), 2 * ROBOT.frames_per_chunk
    found, ceiling = [], []
    for true, imagined in pairs:
        frames = true.frames[-last:]
        found.append(psnr_db(frames[:, wrist], imagined.frames[: len(true.frames)][-last:, wrist]))
        ceiling.append(psnr_db(frames[:, wrist], decoded(frames)[:, wrist]))
    return float(np.mean(found)), float(np.mean(ceiling))


def _fading(
    pairs: list[tuple[Episode, Episode]], frames_per_chunk: int
) -> Iterator[tuple[int, float, float]]:
    for chunk in LONG_SEEN:
        span = slice(1 + (chunk - 1) * frames_per_chunk, 1 + chunk * frames_per_chunk)
        levels = [
            (psnr_db(t.frames[span], i.frames[span]), _repeated_db(t.frames, span))
            for t, i in pairs
        ]
        if levels:
            imagined, repeated = np.mean(levels, axis=0).tolist()
            yield chunk, imagined, repeated


def _repeated_db(frames: np.ndarray, span: slice) -> float:
    return psnr_db(frames[span], np.broadcast_to(frames[:1], frames[span].shape))
