from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError, MismatchError, PolicyError
from worldeval.policies.checking import try_policy
from worldeval.policies.cloning.behaviour_cloning import BehaviourCloning, load, save
from worldeval.policies.cloning.config import BCConfig
from worldeval.policies.cloning.network import BCNetwork, buckets_of, scaled, unscaled
from worldeval.policies.loading import load_policy
from worldeval.robots import RobotSpec
from worldeval.types import Observation

SMALL = {"channels": (8, 8, 16), "hidden": 32, "text_dim": 16}


def policy_of(robot: RobotSpec, **settings: object) -> BehaviourCloning:
    torch.manual_seed(0)
    network = BCNetwork(BCConfig.for_robot(robot, **{**SMALL, **settings}))
    return BehaviourCloning(network, name="clone")


def observed(robot: RobotSpec, seed: int, words: str = "open the drawer") -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        images={v: rng.integers(0, 256, (*robot.image_size, 3), np.uint8) for v in robot.views},
        state={"pose": rng.uniform(robot.pose_low, robot.pose_high).astype(np.float32)},
        instruction=words,
        rollout_id=str(seed),
        step=0,
    )


def test_a_batch_equals_its_rows_one_by_one(toy_robot: RobotSpec) -> None:
    policy = policy_of(toy_robot)
    seen = [
        observed(toy_robot, i, words)
        for i, words in enumerate(["open the drawer", "push", "", "close the window with care"])
    ]
    together = policy.act(seen)
    assert together.shape == (4, 6, 4)
    alone = np.concatenate([policy.act([one]) for one in seen])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(policy.act(seen[::-1])[::-1], together, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("blindness", "changed"),
    [
        ({"use_text": False}, {"instruction": "close it"}),
        ({"use_state": False}, {"state": {}}),
        ({"cameras": ("top",)}, {"images": "no wrist"}),
    ],
)
def test_a_blind_policy_does_not_feel_what_others_do(
    toy_robot: RobotSpec, blindness: dict, changed: dict
) -> None:
    seen = observed(toy_robot, 0)
    other = observed(toy_robot, 1)
    if "images" in changed:
        altered = replace(seen, images={**seen.images, "wrist": other.images["wrist"]})
        gone = replace(seen, images={"top": seen.images["top"]})
    elif "state" in changed:
        altered, gone = replace(seen, state=other.state), replace(seen, state={})
    else:
        altered = gone = replace(seen, **changed)
    whole, blind = policy_of(toy_robot), policy_of(toy_robot, **blindness)
    assert np.abs(whole.act([seen]) - whole.act([altered])).max() > 1e-5
    np.testing.assert_array_equal(blind.act([seen]), blind.act([gone]))


def test_what_it_needs_and_does_not_get_is_named(toy_robot: RobotSpec) -> None:
    policy, seen = policy_of(toy_robot), observed(toy_robot, 0)
    with pytest.raises(PolicyError, match="needs camera 'wrist'"):
        policy.act([replace(seen, images={"top": seen.images["top"]})])
    with pytest.raises(PolicyError, match=r"shape \(8, 24, 3\).*resize"):
        policy.act([replace(seen, images={v: i[:8] for v, i in seen.images.items()})])
    with pytest.raises(PolicyError, match="needs state 'pose'"):
        policy.act([replace(seen, state={})])


def test_a_checkpoint_gives_the_same_policy_back(tmp_path: Path, toy_robot: RobotSpec) -> None:
    policy, seen = policy_of(toy_robot), [observed(toy_robot, i) for i in range(3)]
    folder = save(tmp_path / "clone", policy.network, name="clone")
    for uri in (str(folder), f"bc:{folder}"):
        again = load_policy(uri, toy_robot)
        assert again.spec == policy.spec
        np.testing.assert_allclose(again.act(seen), policy.act(seen), atol=5e-3)  # float16
    other = load_policy(f"bc:{folder}?name=other&execute=2", toy_robot)
    assert (other.spec.name, other.spec.execute) == ("other", 2)
    assert try_policy(other, toy_robot).shape == (2, 6, 4)
    with pytest.raises(MismatchError, match="rate_hz"):
        load_policy(str(folder), replace(toy_robot, control_hz=20.0))


def test_checkpoints_of_other_kinds_or_shapes_are_refused(
    tmp_path: Path, toy_robot: RobotSpec
) -> None:
    policy = policy_of(toy_robot)
    folder = save(tmp_path / "clone", policy.network, name="clone")
    config, tensors = checkpoint.load(folder, kind="policy-bc")
    checkpoint.save(tmp_path / "judge", kind="judge", config=config, tensors=tensors)
    with pytest.raises(CheckpointError, match="'judge'"):
        load(tmp_path / "judge")
    config["network"]["hidden"] = 64
    checkpoint.save(tmp_path / "wide", kind="policy-bc", config=config, tensors=tensors)
    with pytest.raises(CheckpointError, match="does not fit"):
        load(tmp_path / "wide")
    config["network"]["hiden"] = config["network"].pop("hidden")
    checkpoint.save(tmp_path / "typo", kind="policy-bc", config=config, tensors=tensors)
    with pytest.raises(CheckpointError, match="did you mean 'hidden'"):
        load(tmp_path / "typo")


def test_scaling_is_undone_and_clips() -> None:
    low, high = (-2.0, 0.0), (2.0, 0.5)
    values = torch.tensor([[-2.0, 0.0], [0.0, 0.25], [2.0, 0.5]])
    torch.testing.assert_close(
        scaled(values, low, high), torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    )
    torch.testing.assert_close(unscaled(scaled(values, low, high), low, high), values)
    torch.testing.assert_close(
        unscaled(torch.tensor([[9.0, -9.0]]), low, high), torch.tensor([[2.0, 0.0]])
    )


def test_words_are_padded_and_weighted_to_a_mean() -> None:
    ids, weights = buckets_of(["open the drawer", "push", ""], 64)
    assert ids.shape == weights.shape == (3, 5)  # three words and two pairs
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    assert int((weights[1] > 0).sum()) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cameras": ()}, "cameras is empty"),
        ({"image_size": (12, 24)}, "image_size"),
        ({"channels": (8, 12, 16)}, "multiples of 8"),
        ({"execute": 7}, "execute is 7"),
        ({"chanels": (8, 8, 8)}, "did you mean 'channels'"),
    ],
)
def test_unusable_settings_raise(toy_robot: RobotSpec, settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BCConfig.for_robot(toy_robot, **settings)
