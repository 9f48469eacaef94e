"""Motions that are probed: carried out alike, and read back from their own pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

# Not mujoco itself, which must not be imported before it has been told how to draw.
pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)

from worldeval.imagination.contacts import SEEN_M, read_travel
from worldeval.types import Episode
from worldeval.worlds.metaworld import MetaWorld
from worldeval.worlds.movable import Movable
from worldeval.worlds.probe_motions import MotionJob, carry_out


@pytest.fixture(scope="module")
def world() -> Iterator[MetaWorld]:
    made = MetaWorld()
    yield made
    made.close()


def motion(world: MetaWorld, task: str, kind: str, index: int = 0, chunks: int = 5) -> Episode:
    return carry_out(MotionJob(task=task, kind=kind, index=index, chunks=chunks), world)


def travel(episode: Episode) -> float:
    return max(episode.extra["object_travel_m"])


def read(world: MetaWorld, episode: Episode) -> float:
    simulation = world.simulation(episode.task)
    simulation.reset(int(episode.extra["seed"]))
    before = simulation.data.qpos.copy()
    places = Movable(simulation).places(world, np.array(episode.extra["joints_read"]))
    assert np.array_equal(simulation.data.qpos, before)
    assert places.travel_m[0] == 0 and len(places.frames) == len(places.travel_m)
    return read_travel(episode.frames[episode.extra["read_at"]], places.frames, places.travel_m)


@pytest.mark.parametrize("task", ["window-close", "button-press"])
def test_an_expert_moves_the_object_and_one_beside_does_not_and_frames_show_both(world, task):
    moved = motion(world, task, "expert")
    assert travel(moved) > 0.05 and read(world, moved) == pytest.approx(travel(moved), abs=0.02)
    kind, index = ("beside", 1) if task == "window-close" else ("above", 0)
    stayed = motion(world, task, kind, index)
    assert travel(stayed) < 0.005 and read(world, stayed) < SEEN_M
    assert stayed.extra["read_at"] == len(stayed.frames) - 1


def test_with_another_gripper_the_hand_moves_alike(world: MetaWorld):
    own, opened = (motion(world, "window-close", f"grip-{grip}") for grip in ("own", "open"))
    assert np.array_equal(own.actions[..., :3], opened.actions[..., :3])
    assert (opened.actions[..., 3] == -1).all() and not np.array_equal(own.actions, opened.actions)


def test_a_motion_is_repeated_to_the_byte_by_its_job_and_by_its_actions(world: MetaWorld):
    job = MotionJob(task="push", kind="human", index=0, chunks=2)
    first = carry_out(job, world)
    again = carry_out(job, world, first.actions.reshape(-1, 4))
    assert np.array_equal(first.frames, again.frames)
    assert first.extra["object_travel_m"] == again.extra["object_travel_m"]
    assert first.extra["start_id"] == job.key
