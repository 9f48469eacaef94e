"""How far each way of turning commands into poses is from where DROID's arm really went.

Enters: a dataset in the layout of Ctrl-World (15 Hz) and learned adapters. Leaves: a table in
Markdown: error of the flange in mm and degrees 0.2, 0.5 and 1 s after the start of a chunk, mean
over all windows of 15 steps of the split, of

    standing still; recorded poses (absolute, and as steps added up); commanded poses, joints, and
    velocities (integrated, and through each learned adapter).

    python benchmarks/adapters.py --source ../shared/droid --adapter ../shared/parity/*.pth
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from worldeval.data.readers.ctrl_world import CtrlWorldDataset
from worldeval.data.readers.raw import RawEpisode
from worldeval.motion import panda
from worldeval.motion.adapters import adapter_for
from worldeval.motion.rotations import euler_from_matrix, matrix_from_euler
from worldeval.policies.joint_adapter import LearnedAdapter
from worldeval.policies.joint_adapter_training import flange_errors

STEPS = 15
SHOWN = {"0.2 s": 3, "0.5 s": 8, "1 s": 15}  # control steps at 15 Hz; 8 are 0.53 s


@dataclass(frozen=True, kw_only=True)
class Options:
    """See the module's docstring."""

    source: Path = Path("../shared/droid")
    split: str = "val"
    adapter: tuple[Path, ...] = ()
    """Learned adapters: a .pth or a folder of `worldeval train adapter`."""


def main(options: Options) -> None:
    dataset = CtrlWorldDataset(options.source, options.split)
    episodes = [dataset.episode(identity) for identity in dataset.ids]
    count = sum(max(0, len(raw.cartesian_position) - STEPS) for raw in episodes)
    print(f"{len(episodes)} episodes, {count} windows; mm / degrees\n")
    print("| from | " + " | ".join(SHOWN) + " |")
    print("|---" * (1 + len(SHOWN)) + "|")
    for name, space, learned in rows(options.adapter):
        errors = [error_of(raw, name, space, learned) for raw in episodes]
        place, turn = (np.concatenate([e[i] for e in errors]).mean(0) for i in (0, 1))  # (15,)
        cells = (f"{place[k - 1]:.1f} / {turn[k - 1]:.2f}" for k in SHOWN.values())
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def rows(adapters: tuple[Path, ...]) -> Iterator[tuple[str, str, Path | None]]:
    """Name of the row, action space, learned adapter."""
    yield "standing still", "absolute_pose", None
    yield "recorded poses", "absolute_pose", None
    yield "recorded poses, step by step", "delta_pose", None
    yield "recorded joints", "joint_position", None
    yield "commanded poses", "absolute_pose", None
    yield "commanded joints", "joint_position", None
    yield "commanded velocities, integrated", "joint_velocity", None
    for path in adapters:
        yield f"commanded velocities, learned: {path.name}", "joint_velocity", path


def error_of(
    raw: RawEpisode, name: str, space: str, learned: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """mm and degrees (N, 15) for the N windows of an episode."""
    joints = raw.joint_position
    assert joints is not None
    starts = np.arange(len(joints) - STEPS)
    here = starts[:, None] + np.arange(STEPS)  # rows at which a command is given
    true = raw.cartesian_position[here + 1]  # where the arm is after it
    grip = np.zeros((*here.shape, 1))
    pose = np.concatenate([raw.cartesian_position, np.zeros((len(joints), 1))], -1)[starts]
    if name == "standing still":
        values = np.repeat(raw.cartesian_position[starts, None], STEPS, axis=1)
    elif name == "recorded poses":
        values = true
    elif name == "recorded poses, step by step":
        values = steps_between(raw.cartesian_position)[here]
    elif name == "recorded joints":
        values = joints[here + 1]
    elif name == "commanded poses":
        values = raw.actions["cartesian_position"][here]
    elif name == "commanded joints":
        values = raw.actions["joint_position"][here]
    else:
        values = raw.actions["joint_velocity"][here]
    model = None if learned is None else LearnedAdapter.load(learned)
    adapter = adapter_for(panda.panda(space, steps_per_frame=1), model)
    # poses need no joints here, which spares the search for them
    known = joints[starts] if space.startswith("joint") else None
    poses, _ = adapter.advance(pose, known, np.concatenate([values, grip], -1))
    return flange_errors(poses[..., :6], true)


def steps_between(poses: np.ndarray) -> np.ndarray:
    """Delta poses (N-1, 6) that lead from each of the poses (N, 6) to the next."""
    turns = matrix_from_euler(poses[:, 3:6])
    delta = euler_from_matrix(turns[1:] @ np.swapaxes(turns[:-1], -1, -2))
    return np.concatenate([np.diff(poses[:, :3], axis=0), delta], -1)


if __name__ == "__main__":
    main(tyro.cli(Options))
