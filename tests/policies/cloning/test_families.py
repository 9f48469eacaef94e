"""Networks of other families, faults of policies, and the population that is made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.policies.conftest import toy_episode
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.motion.faults import Fault
from worldeval.policies.cloning.behaviour_cloning import load
from worldeval.policies.cloning.config import FAMILIES, BCConfig, BCTrainConfig
from worldeval.policies.cloning.families import FAMILIES as NETWORKS
from worldeval.policies.cloning.families import NearestNetwork, network_of, thumbnails
from worldeval.policies.cloning.training import train_policy
from worldeval.policies.faulty import FaultyPolicy
from worldeval.policies.loading import load_policy
from worldeval.policies.population import (
    FAULTS,
    RECIPES,
    Member,
    read_population,
    train_population,
    write_population,
)
from worldeval.policies.scripted import RandomPolicy
from worldeval.robots import RobotSpec
from worldeval.types import Observation


def inputs(config: BCConfig, batch: int = 4) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    views, (height, width) = len(config.cameras), config.image_size
    images = torch.rand(batch, views, 3, height, width, generator=rng) * 2 - 1
    poses = torch.rand(batch, len(config.pose_low), generator=rng) * 2 - 1
    words = torch.randint(config.text_buckets, (batch, 3), generator=rng)
    return images, poses, words, torch.full((batch, 3), 1 / 3)


@pytest.fixture
def network_config(toy_robot: RobotSpec) -> BCConfig:
    return BCConfig.for_robot(replace(toy_robot, image_size=(16, 32)), channels=(8, 8, 16))


def test_the_families_are_those_that_are_configured() -> None:
    assert tuple(NETWORKS) == FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_four_equals_four_of_one(family: str, network_config: BCConfig) -> None:
    remembered = 10 if family == "nearest" else 0
    config = replace(network_config, family=family, remembered=remembered)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_of(config).eval()
    if isinstance(network, NearestNetwork):
        network.remember(*inputs(config, 10), torch.randn(10, config.chunk, 4))
    given = inputs(config)
    with torch.no_grad():
        whole = network(*given)
        alone = torch.cat([network(*(part[i : i + 1] for part in given)) for i in range(4)])
    assert whole.shape == (4, config.chunk, len(config.action_low))
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(whole[0], whole[1])


def test_the_nearest_sample_answers(network_config: BCConfig) -> None:
    config = replace(network_config, family="nearest", remembered=4)
    network = NearestNetwork(config)
    images, poses, words, weights = inputs(config)
    targets = torch.randn(4, config.chunk, 4)
    network.remember(images, poses, words, weights, targets)
    network.sharpness.data.fill_(1e4)  # so sharp that the second nearest does not count
    with torch.no_grad():
        torch.testing.assert_close(network(images, poses, words, weights), targets)


def test_thumbnails_average_areas() -> None:
    image = torch.arange(64.0).reshape(1, 1, 1, 8, 8)
    expected = torch.tensor([[13.5, 17.5, 45.5, 49.5]])
    torch.testing.assert_close(thumbnails(image, 2), expected)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"family": "fil"}, "family is 'fil'"),
        ({"family": "nearest"}, "remembered is 0"),
        ({"remembered": 5}, "remembered is 5"),
    ],
)
def test_what_cannot_be_is_refused(network_config: BCConfig, wrong, said) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(network_config, **wrong)


def small(store: EpisodeStore, **settings) -> BCTrainConfig:
    base = BCTrainConfig(store=str(store.root), channels=(8, 8, 16), hidden=16, **settings)
    return replace(base, loop=replace(base.loop, steps=2, batch=4, warmup=1))


@pytest.mark.parametrize("family", ["plain", "keypoints", "thumbnails", "nearest"])
def test_every_family_is_trained_saved_and_loaded(
    family: str, tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    config = small(toy_store, family=family, remembered=20 if family == "nearest" else 0)
    folder = train_policy(config, tmp_path / family, toy_robot, progress=False)
    policy = load(folder)
    assert policy.network.config.family == family
    observation = seen(toy_robot)
    answer = policy.act([observation])
    assert answer.shape == (1, toy_robot.chunk_steps, toy_robot.action_dim)
    assert np.isfinite(answer).all()


def test_too_many_samples_to_remember(
    tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    config = small(toy_store, family="nearest", remembered=100_000)
    with pytest.raises(ConfigError, match="remembered is 100000, but 20 demonstrations"):
        train_policy(config, tmp_path / "n", toy_robot, progress=False)


def seen(robot: RobotSpec, rollout: str = "a", level: int = 7, x: float = 0.0) -> Observation:
    height, width = robot.image_size
    return Observation(
        images={view: np.full((height, width, 3), level, np.uint8) for view in robot.views},
        state={"pose": np.array([x, 0.0, 0.1, -1.0], np.float32)},
        instruction="go to the left",
        rollout_id=rollout,
        step=0,
    )


class Watching:
    """Keeps what it is shown, and answers ones."""

    def __init__(self, robot: RobotSpec) -> None:
        self.spec = replace(
            RandomPolicy(robot).spec, name="watching", cameras=robot.views, state_keys=("pose",)
        )
        self.shown: list[Observation] = []
        self.told: list[str] = []

    def reset(self, rollout_ids, instructions, seeds) -> None:
        self.told = list(instructions)

    def act(self, observations) -> np.ndarray:
        self.shown += observations
        return np.ones((len(observations), self.spec.chunk, self.spec.action_dim), np.float32)

    def close(self) -> None:
        self.shown.clear()


def test_faults_of_perception(toy_robot: RobotSpec) -> None:
    inner = Watching(toy_robot)
    policy = FaultyPolicy(
        inner, toy_robot, Fault(), name="late", deaf=True, blind=["wrist"], stale_chunks=1
    )
    policy.reset(["a", "b"], ["go", "go"], [1, 2])
    assert inner.told == ["", ""]
    for level in (1, 2, 3):
        policy.act([seen(toy_robot, "a", level), seen(toy_robot, "b", 10 * level)])
    assert [o.images["top"].max() for o in inner.shown] == [1, 10, 1, 10, 2, 20]
    assert not any(o.images["wrist"].any() for o in inner.shown)
    assert {o.instruction for o in inner.shown} == {""}


def test_faults_of_action_belong_to_their_rollout(toy_robot: RobotSpec) -> None:
    """A rollout is the same alone and beside another, and the same again after a reset."""
    answers = []
    for rollouts in (["a"], ["a", "b"], ["b", "a"]):
        policy = FaultyPolicy(
            Watching(toy_robot), toy_robot, Fault(noise=0.2, delay_steps=4, gain=0.5), name="n"
        )
        policy.reset(rollouts, ["go"] * len(rollouts), [ord(r) for r in rollouts])
        chunks = [policy.act([seen(toy_robot, r) for r in rollouts]) for _ in range(2)]
        answers.append(np.stack(chunks)[:, rollouts.index("a")])
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
    assert np.abs(answers[0][0, :4, :3]).max() < 1  # late: noise alone


def test_what_is_not_carried_out_does_not_pass_through_the_fault(toy_robot: RobotSpec) -> None:
    inner = Watching(toy_robot)
    inner.spec = replace(inner.spec, execute=2)
    policy = FaultyPolicy(inner, toy_robot, Fault(stop_after_steps=3), name="stops")
    policy.reset(["a"], ["go"], [0])
    assert policy.spec.chunk == 2
    moving = [policy.act([seen(toy_robot)])[0, :, 0] for _ in range(2)]
    np.testing.assert_array_equal(np.concatenate(moving), [1, 1, 1, 0])


def test_a_fault_by_uri(tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec) -> None:
    folder = train_policy(small(toy_store), tmp_path / "net", toy_robot, progress=False)
    policy = load_policy(f"faulty:{folder}?gain=0.5&bias=[0.1,0,0]&blind=top", toy_robot)
    assert policy.spec.name == "net (blind=('top',), gain=0.5, bias=(0.1, 0, 0))"
    assert load_policy(f"faulty:{folder}?grip=0.2&name=weak", toy_robot).spec.name == "weak"
    with pytest.raises(ConfigError, match="blind is .'tob'., but policy 'net' sees"):
        load_policy(f"faulty:{folder}?blind=tob", toy_robot)
    with pytest.raises(ConfigError, match="did you mean 'gain'"):
        load_policy(f"faulty:{folder}?gian=2", toy_robot)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("bias=0.1", "bias is 0.1, expected a list"),
        ('bias=["a"]', "bias.0. is 'a', expected a finite number"),
        ("gain=1e400", "gain is inf, expected a finite number"),
        ("gain=fast", "gain is 'fast', expected a finite number"),
        ("blind=5", "blind is 5, expected the name of a view"),
        ("mirrored_axis=-1", "mirrored_axis is -1"),
        ("bias=[1,2]", "bias has 2 numbers"),
    ],
)
def test_arguments_of_a_fault_are_refused_before_anything_is_rolled_out(
    tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec, query: str, said: str
) -> None:
    folder = train_policy(small(toy_store), tmp_path / "net", toy_robot, progress=False)
    with pytest.raises(ConfigError, match=said):
        load_policy(f"faulty:{folder}?{query}", toy_robot)


def test_faults_of_motion_mean_nothing_where_actions_are_places(toy_robot: RobotSpec) -> None:
    absolute = replace(toy_robot, control_mode="absolute_pose")
    with pytest.raises(ConfigError, match="gain, delay_steps cannot be wrong with robot"):
        FaultyPolicy(Watching(toy_robot), absolute, Fault(gain=0.5, delay_steps=2), name="half")
    FaultyPolicy(Watching(toy_robot), absolute, Fault(grip=0.5), name="weak", deaf=True)


def test_what_the_policy_has_to_tell_passes_through_its_fault(toy_robot: RobotSpec) -> None:
    inner = Watching(toy_robot)
    assert FaultyPolicy(inner, toy_robot, Fault(), name="n").run_notes() == ()
    assert not FaultyPolicy(inner, toy_robot, Fault(), name="n").watches_itself

    class Server(Watching):
        watches_itself = True

        def run_notes(self) -> list[str]:
            return ["3 numbers were clipped"]

    policy = FaultyPolicy(Server(toy_robot), toy_robot, Fault(), name="n")
    assert policy.run_notes() == ("3 numbers were clipped",) and policy.watches_itself


def test_episodes_in_which_nothing_is_done_teach_nothing(
    tmp_path: Path, toy_robot: RobotSpec
) -> None:
    from worldeval.rollout.recording import open_rollouts

    with open_rollouts(tmp_path / "s", toy_robot, images="lossless") as store:
        episode = toy_episode(toy_robot, "left", 0)
        store.append(replace(episode, frames=episode.frames[:1], poses=episode.poses[:1],
                             actions=episode.actions[:0], expert_actions=None,
                             success_at=episode.success_at[:1]))  # fmt: skip
        stored = store.root
    config = replace(small(EpisodeStore.open(stored)), idle_share=0.0)
    with pytest.raises(DataError, match="none of the 1 episodes has a frame"):
        train_policy(config, tmp_path / "n", toy_robot, progress=False)


def test_families_have_one_role_each() -> None:
    roles: dict[str, set[str]] = {}
    for recipe in RECIPES:
        roles.setdefault(recipe.family, set()).add(recipe.role)
    for family, role, network, _ in FAULTS:
        roles.setdefault(f"fault {family}", set()).add(role)
        assert network in {recipe.name for recipe in RECIPES}
        assert role == next(recipe.role for recipe in RECIPES if recipe.name == network)
    assert all(len(found) == 1 for found in roles.values())
    reported = [r for r in RECIPES if r.role == "reported"] + [
        f for f in FAULTS if f[1] == "reported"
    ]
    assert len(reported) >= 12
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)


@pytest.mark.heavy
def test_a_population_is_trained_and_rolled_out_by_its_uris(
    tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worldeval.policies import population

    recipes = tuple(
        replace(
            r, settings={**r.settings, "remembered": 20} if r.family == "nearest" else r.settings
        )
        for r in RECIPES
        if r.family != "patches"
    )
    monkeypatch.setattr(population, "RECIPES", recipes)
    members = train_population(
        toy_store.root, tmp_path, toy_robot, steps_factor=0.001, progress=False
    )
    assert read_population(tmp_path) == members
    for member in members:
        assert load_policy(member.uri, toy_robot).spec.name == member.name


def test_a_population_is_kept_and_read_by_role(tmp_path: Path) -> None:
    members = [
        Member(name=role, family="film", role=role, uri=f"x/{role}")
        for role in ("training", "validation", "reported")
    ]
    write_population(tmp_path, members)
    assert read_population(tmp_path) == members
    assert read_population(tmp_path / "population.json", "reported") == members[2:]
    with pytest.raises(ConfigError, match="role is 'test'"):
        read_population(tmp_path, "test")
    with pytest.raises(DataError, match="there is no"):
        read_population(tmp_path / "nowhere.json")
    (tmp_path / "population.json").write_text(json.dumps({"members": [{"name": "a"}]}))
    with pytest.raises(DataError, match="is not a population"):
        read_population(tmp_path)
