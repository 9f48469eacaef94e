from __future__ import annotations

from pathlib import Path

import numpy as np

from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.controls import control_uris
from worldeval.policies.loading import load_policy
from worldeval.ranking.leaderboard.controls import CONTROLS, RANDOM, STILL
from worldeval.robots import RobotSpec
from worldeval.types import Observation


def test_controls_have_their_names_and_the_mirrored_one_turns_the_experts_motion(
    toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    uris = control_uris(toy_robot, str(Path(toy_store.root)))
    controls = {policy.spec.name: policy for policy in (load_policy(u, toy_robot) for u in uris)}
    assert set(controls) == set(CONTROLS)
    seen = [
        Observation(images={}, state={}, instruction="", rollout_id="right/training/03", step=0)
    ]
    done = {}
    for name, policy in controls.items():
        policy.reset(["right/training/03"], [""], [0])
        done[name] = np.asarray(policy.act(seen))[0]
    expert, mirrored = done["control-expert"], done["control-mirrored"]
    np.testing.assert_allclose(mirrored[:, 0], -expert[: len(mirrored), 0])
    np.testing.assert_allclose(mirrored[:, 1:], expert[: len(mirrored), 1:])
    assert not done[STILL][:, :-1].any() and done[RANDOM][:, :-1].any()


def test_without_recordings_there_is_no_expert(toy_robot: RobotSpec) -> None:
    names = [load_policy(uri, toy_robot).spec.name for uri in control_uris(toy_robot, None)]
    assert names == [RANDOM, STILL]
