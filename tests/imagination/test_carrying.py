"""Imagined actions carried out where it is known what comes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError
from worldeval.imagination.carrying import carry_out
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_starts


def rolled_out(out: Path, world: ToyWorld) -> EpisodeStore:
    suite = Suite(name="toy", robot=world.robot.name, chunks=6, starts=toy_starts(count=3))
    store = open_rollouts(out, world.robot)
    for name, mistakes in (("good", 0.0), ("poor", 0.6)):
        policy = ToyPolicy(name=name, mistakes=mistakes, robot=world.robot)
        run(world, policy, suite, store, batch=4, seed=0, progress=False)
    store.close()
    return store


def test_imagined_rollouts_get_what_their_actions_truly_do(tmp_path: Path) -> None:
    unknowing, truth = ToyWorld(truth=False), ToyWorld()
    imagined = rolled_out(tmp_path / "imagined", unknowing)
    assert imagined.metadata()["success"].isna().all()
    labelled = carry_out(imagined, truth, tmp_path / "out", progress=False)
    expected = rolled_out(tmp_path / "true", truth).metadata().set_index("key")["success"]
    found = labelled.metadata().set_index("key")["success"]
    assert found.astype(bool).to_dict() == expected.astype(bool).to_dict()
    assert 0 < found.astype(bool).sum() < len(found)
    first = labelled.episode(0)
    ours = imagined.by_key(first.key)
    np.testing.assert_array_equal(first.actions, ours.actions[: first.length - 1])
    assert first.success_at is not None and first.extra["policy"] == ours.extra["policy"]
    again = carry_out(imagined, truth, tmp_path / "out", progress=False)
    assert len(again) == len(labelled)


def test_what_is_no_rollout_is_refused(tmp_path: Path) -> None:
    empty = open_rollouts(tmp_path / "empty", ToyWorld().robot)
    with pytest.raises(DataError, match="holds 0 episodes"):
        carry_out(empty, ToyWorld(), tmp_path / "out", progress=False)
