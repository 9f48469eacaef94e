"""A recorded robot episode as its publisher laid it out, before it becomes an ``Episode``.

Enters: what a reader (``ctrl_world.py``, ``droid.py``) found in files. Leaves: poses, joints and
control steps on our clock, and frames in our size, each read when asked for.

Two clocks. Control runs at 15 Hz and frames at 5 Hz; frame t belongs to control row 3t::

    row    0  1  2  3  4  5  6 ...
    frame  0        1        2 ...

Frame t+1 is what is seen after the three poses of rows 3t+1, 3t+2, 3t+3, so these are the actions
of frame t (action space "absolute_pose"): replaying them gives back the recorded poses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldeval.data.readers.footage import CONTROL_HZ, FRAME_HZ, Footage, frame_stride, resized
from worldeval.errors import DataError
from worldeval.motion.panda import VIEWS
from worldeval.motion.rotations import angle_difference, wrap_angle

STEPS = 3
"""S: control rows per frame."""


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """One recorded episode; arrays have N rows at ``state_hz``, footage has its own rate.

    described_in: the file that errors name. frames: T+1, how many there are at 5 Hz.
    cartesian_position: (N, 6) x y z in m, then roll pitch yaw in rad: extrinsic xyz, that is
        R = Rz(yaw) Ry(pitch) Rx(roll), each wrapped into (-pi, pi].
    gripper: (N,) measured, 0 open to 1 closed. joint_position: (N, 7) rad, or None.
    actions: what was commanded, by DROID's names without "action." (``joint_velocity``, ...).
    latents: files of published latents, one per view, or None.
    instructions: different ones; none where nothing is known. notes: what was taken on trust.
    """

    id: str
    split: str
    described_in: Path
    instructions: tuple[str, ...]
    success: bool | None
    footage: tuple[Footage, ...]
    frames: int
    state_hz: float
    cartesian_position: np.ndarray
    gripper: np.ndarray
    joint_position: np.ndarray | None = None
    actions: Mapping[str, np.ndarray] = field(default_factory=dict)
    latents: tuple[Path, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state_hz not in (CONTROL_HZ, FRAME_HZ):
            raise DataError(
                f"{self.described_in}: states at {self.state_hz:g} Hz, expected {CONTROL_HZ:g} or "
                f"{FRAME_HZ:g}; resample them first"
            )
        if len(self.footage) != len(VIEWS):
            raise DataError(
                f"{self.described_in}: {len(self.footage)} videos, expected {len(VIEWS)}, of the "
                f"views {', '.join(VIEWS)}"
            )
        rows = len(self.cartesian_position)
        arrays: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {
            "cartesian_position": (self.cartesian_position, (rows, 6)),
            "gripper": (self.gripper, (rows,)),
        }
        if self.joint_position is not None:
            arrays["joint_position"] = (self.joint_position, (rows, 7))
        for name, array in self.actions.items():
            arrays[f"action.{name}"] = (array, (rows, *array.shape[1:]))
        for name, (array, shape) in arrays.items():
            if array.shape != shape:
                raise DataError(
                    f"{self.described_in}: {name} has shape {array.shape}, expected {shape}"
                )
            bad = ~(np.abs(array) <= np.finfo(np.float32).max)  # NaN too: it is kept as float32
            if bad.any():
                raise DataError(
                    f"{self.described_in}: {name} has NaN or infinity in row "
                    f"{int(np.argwhere(bad)[0][0])} ({int(bad.sum())} values in all)"
                )
        if self.frames < 1 or rows < (self.frames - 1) * self.stride + 1:
            raise DataError(
                f"{self.described_in}: {rows} rows of states at {self.state_hz:g} Hz are too few "
                f"for {self.frames} frames at {FRAME_HZ:g} Hz"
            )

    @property
    def key(self) -> str:
        return f"{self.split}/{self.id}"

    @property
    def stride(self) -> int:
        """Rows of states a frame."""
        return round(self.state_hz / FRAME_HZ)

    @property
    def recorded_steps(self) -> bool:
        """Whether the control steps between frames were recorded, or must be interpolated."""
        return self.stride == STEPS

    def poses(self) -> np.ndarray:
        """(T+1, 7) float32 at frame rate: cartesian position and gripper."""
        return self._rows()[:: self.stride][: self.frames]

    def joints(self) -> np.ndarray | None:
        """(T+1, 7) float32 rad at frame rate."""
        if self.joint_position is None:
            return None
        return self.joint_position[:: self.stride][: self.frames].astype(np.float32)

    def steps(self) -> np.ndarray:
        """(T, S, 7) float32: the absolute poses that lead from each frame to the next.

        Where only frames were recorded, the way between two is a straight line (angles along the
        shorter arc); its last step is the recorded pose in either case.
        """
        rows = self._rows()
        count = self.frames - 1
        if self.recorded_steps:
            return rows[1 : count * STEPS + 1].reshape(count, STEPS, 7)
        poses = self.poses()
        before, change = poses[:-1, None], np.diff(poses, axis=0)[:, None]  # (T, 1, 7)
        change[:, 0, 3:6] = angle_difference(poses[1:, 3:6], poses[:-1, 3:6])
        share = (np.arange(1, STEPS + 1, dtype=np.float32) / STEPS)[:, None]
        steps = before + share * change  # (T, S, 7)
        steps[..., 3:6] = wrap_angle(steps[..., 3:6])
        steps[:, -1] = poses[1:]
        return steps.astype(np.float32)

    def images(self, size: tuple[int, int]) -> np.ndarray:
        """(T+1, V, H, W, 3) uint8 at 5 Hz. Raises DataError if views differ in length."""
        counts = [footage.count() for footage in self.footage]
        if len(set(counts)) > 1:
            raise DataError(
                f"{self.described_in}: views of unequal length: "
                + ", ".join(f"{f.path} has {n}" for f, n in zip(self.footage, counts, strict=True))
                + " frames; record or cut them to one length"
            )
        frames = np.empty((self.frames, len(self.footage), *size, 3), np.uint8)
        for view, footage in enumerate(self.footage):
            stride = frame_stride(footage)
            expected = (self.frames - 1) * stride + 1
            if not expected <= counts[view] < expected + stride:
                raise DataError(
                    f"{footage.path} has {counts[view]} frames at {footage.hz:.3g} Hz, expected "
                    f"{expected} for the {self.frames} states at {FRAME_HZ:g} Hz in "
                    f"{self.described_in}"
                )
            seen = footage.read(stride)
            if len(seen) != self.frames:
                raise DataError(
                    f"{footage.path} decodes to {len(seen)} frames at {FRAME_HZ:g} Hz, expected "
                    f"{self.frames}; it is truncated or was changed"
                )
            for t, frame in enumerate(seen):
                frames[t, view] = resized(frame, size)
        return frames

    def extra(self) -> dict[str, Any]:
        """Facts for ``Episode.extra``."""
        facts: dict[str, Any] = {
            "source_id": self.id,
            "steps": "recorded" if self.recorded_steps else "interpolated",
        }
        if self.recorded_steps:  # the line that connects policies' actions with these rows
            facts["control_rows"] = len(self.cartesian_position)
        for number, text in enumerate(self.instructions[1:], start=2):
            facts[f"instruction_{number}"] = text
        return facts

    def _rows(self) -> np.ndarray:
        """(N, 7) float32."""
        return np.concatenate([self.cartesian_position, self.gripper[:, None]], axis=1).astype(
            np.float32
        )


def array_of(values: Any, name: str, where: Path) -> np.ndarray:
    """Numbers out of a file as float64. Raises DataError where they are none, or ragged."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: {name!r} is not a regular array of numbers ({error}); fetch it again"
        ) from error
