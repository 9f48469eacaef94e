"""Going on with a policy: several stores at given shares, solved episodes, weighed episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval import cli
from worldeval.data import checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.policies.cloning.choosing import Sampler, weights
from worldeval.policies.cloning.config import BCTrainConfig, Selection
from worldeval.policies.cloning.data import Demonstrations
from worldeval.policies.cloning.training import train_policy
from worldeval.robots import RobotSpec, write_robot

FEW = {"steps": 4, "batch": 8, "warmup": 1, "report_every": 2, "validate_every": 4}


def few(config: BCTrainConfig, **settings: Any) -> BCTrainConfig:
    return replace(config, loop=replace(config.loop, **{**FEW, **settings}))


@pytest.fixture
def base(tmp_path: Path, toy_store: EpisodeStore, toy_robot: RobotSpec) -> Path:
    config = few(BCTrainConfig(store=str(toy_store.root), channels=(8, 8, 16), hidden=32))
    return train_policy(config, tmp_path / "base", toy_robot, progress=False)


@pytest.fixture
def imagined(tmp_path: Path, toy_store: EpisodeStore) -> EpisodeStore:
    """Rollouts that nobody has judged, with an advantage each and no expert."""
    layout = toy_store.layout
    store = EpisodeStore.create(
        tmp_path / "imagined",
        **{
            name: getattr(layout, name)
            for name in (
                *("views", "image_size", "pose_names", "action_names", "steps_per_frame"),
                *("fps", "robot_type", "images"),
            )
        },
    )
    for number in range(6):
        episode = toy_store.episode(number)
        store.append(
            replace(
                episode,
                key=f"imagined/{number}",
                success=None,
                success_at=None,
                expert_actions=None,
                extra={"advantage": 0.1 * number},
            )
        )
    store.close()
    return EpisodeStore.open(store.root)


def verdicts(path: Path, rows: dict[str, str]) -> Path:
    lines = [f"{key},{outcome},0.5" for key, outcome in rows.items()]
    path.write_text("\n".join(["key,outcome,probability", *lines]) + "\n")
    return path


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(folder, kind="policy-bc")[1]


def test_no_learning_leaves_the_policy_that_it_began_with(
    tmp_path: Path, base: Path, toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    config = few(BCTrainConfig(data=(str(toy_store.root),), start_from=str(base)))
    still = replace(config, loop=replace(config.loop, learning_rate=1e-30))
    folder = train_policy(still, tmp_path / "still", toy_robot, progress=False)
    before, after = tensors(base), tensors(folder)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    card = checkpoint.read_header(folder)["card"]["training"]
    assert card["start_from"] == checkpoint.digest(base)
    moved = tensors(train_policy(config, tmp_path / "moved", toy_robot, progress=False))
    assert any(not np.array_equal(before[name], moved[name]) for name in before)


def test_a_batch_has_the_share_of_each_store(
    toy_store: EpisodeStore, imagined: EpisodeStore, toy_robot: RobotSpec
) -> None:
    from worldeval.policies.cloning.choosing import choose
    from worldeval.policies.cloning.fine_tuning import sampler_of

    config = BCTrainConfig(data=(str(toy_store.root), str(imagined.root)), mix=(0.3,))
    data = Demonstrations.load([s for s, _ in config.sources], [Selection()], toy_robot)
    chosen = [choose(table, Selection())[0] for table in data.tables]
    assert min(chosen[1]) == len(toy_store)  # numbers go on from the first store
    sampler = sampler_of(config, data, chosen)
    rows = sampler.draw(np.random.default_rng(0), 20_000)
    first = np.isin(rows, data.rows_of(chosen[0]))
    assert abs(first.mean() - 0.3) < 0.01
    # frames and actions are those of the store that the row is of
    shown = data.rows[len(toy_store) + 2][0]
    np.testing.assert_array_equal(data.frames[shown], imagined.frames(2)[0])
    assert not data.has_expert[shown]
    weighed = sampler_of(replace(config, advantage="advantage", temperature=0.1), data, chosen)
    rows = weighed.draw(np.random.default_rng(0), 40_000)
    assert abs(np.isin(rows, data.rows_of(chosen[0])).mean() - 0.3) < 0.01
    counts = [np.isin(rows, list(data.rows[e])).sum() for e in chosen[1]]
    by_number = dict(zip(chosen[1], counts, strict=True))
    first_number = len(toy_store)
    # neighbours differ by 0.1 in advantage: by a factor of e at a temperature of 0.1
    for number in range(1, 6):
        ratio = by_number[first_number + number] / by_number[first_number + number - 1]
        assert abs(ratio / np.e - 1) < 0.25


def test_a_share_of_nothing_does_not_load_the_store(
    tmp_path: Path, toy_store: EpisodeStore
) -> None:
    config = BCTrainConfig(data=("nowhere", str(toy_store.root)), mix=(0.0,))
    assert [store for store, _ in config.sources] == [str(toy_store.root)]


def test_weights_are_those_of_advantage_weighted_regression(imagined: EpisodeStore) -> None:
    table = imagined.metadata()
    found = weights(table, range(6), "advantage", 0.1, "here")
    wanted = np.exp(np.arange(6))
    np.testing.assert_allclose(list(found.values()), wanted / wanted.mean())
    even = weights(table.assign(advantage=2.0), range(6), "advantage", None, "here")
    np.testing.assert_allclose(list(even.values()), 1.0)
    one = weights(table.assign(advantage=[0.0] * 5 + [1e9]), range(6), "advantage", 1.0, "here")
    assert np.isfinite(list(one.values())).all()
    for wrong in (None, float("nan"), "much", True):
        spoilt = table.assign(advantage=[wrong, *table["advantage"][1:]])
        with pytest.raises(DataError, match=r"episode 'imagined/0' has advantage .* a number"):
            weights(spoilt, range(6), "advantage", None, "here")


def test_one_source_without_weights_is_drawn_as_before() -> None:
    rows = np.arange(100, 140)
    drawn = Sampler([rows]).draw(np.random.default_rng([0, 1, 5]), 16)
    np.testing.assert_array_equal(drawn, rows[np.random.default_rng([0, 1, 5]).integers(0, 40, 16)])


def test_only_what_the_verdicts_call_solved_is_learned(
    tmp_path: Path, base: Path, imagined: EpisodeStore, toy_robot: RobotSpec
) -> None:
    config = few(
        BCTrainConfig(store=str(imagined.root), start_from=str(base), only_successful=True)
    )
    with pytest.raises(DataError, match=r"none of 6 episodes is solved \(6 are not judged\)"):
        train_policy(config, tmp_path / "unjudged", toy_robot, progress=False)
    said = {"imagined/0": "success", "imagined/1": "failure", "imagined/2": "undecided"}
    table = verdicts(tmp_path / "said.csv", said)
    config = replace(config, verdicts=(str(table),))
    folder = train_policy(config, tmp_path / "judged", toy_robot, progress=False)
    assert checkpoint.read_header(folder)["card"]["episodes"] == 1
    train_policy(config, tmp_path / "judged", toy_robot, progress=False)  # it is there
    verdicts(table, {**said, "imagined/1": "success"})
    with pytest.raises(ConfigError, match="verdicts"):
        train_policy(config, tmp_path / "judged", toy_robot, progress=False)
    verdicts(table, {"elsewhere": "success"})
    with pytest.raises(DataError, match="none of the 1 verdicts is about an episode"):
        train_policy(config, tmp_path / "other", toy_robot, progress=False)


def test_another_first_policy_is_another_training(
    tmp_path: Path, base: Path, toy_store: EpisodeStore, toy_robot: RobotSpec
) -> None:
    config = few(BCTrainConfig(store=str(toy_store.root), start_from=str(base)))
    folder = train_policy(config, tmp_path / "tuned", toy_robot, progress=False)
    for other in (replace(config, start_from=str(folder)), replace(config, start_from=None)):
        with pytest.raises(ConfigError, match="start_from = "):
            train_policy(other, folder, toy_robot, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control_hz": 20.0, "steps_per_frame": 4}, "steps per frame 2|rate_hz"),
        ({"action_space": "joint-velocity"}, "action_space"),
        ({"action_high": (2.0,) * 4}, "action bounds"),
    ],
)
def test_a_policy_of_another_robot_is_refused(
    tmp_path: Path, base: Path, imagined: EpisodeStore, toy_robot: RobotSpec,
    change: dict[str, Any], said: str,
) -> None:  # fmt: skip
    config = few(BCTrainConfig(store=str(imagined.root), start_from=str(base)))
    other = replace(toy_robot, **change)
    with pytest.raises(MismatchError, match=said):
        train_policy(config, tmp_path / "tuned", other, progress=False)


def test_a_policy_that_cannot_be_fine_tuned_is_told_before_data_is_read(
    tmp_path: Path, base: Path, toy_robot: RobotSpec
) -> None:
    config = few(BCTrainConfig(store=str(tmp_path / "nowhere"), start_from=str(base)))
    with pytest.raises(ConfigError, match="family is 'nearest', but the policy to start from"):
        train_policy(replace(config, family="nearest", remembered=2), tmp_path / "tuned", toy_robot)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"store": "a", "data": ("b",)}, "store and data are both given"),
        ({"data": ("a", "b"), "mix": (0.2, 0.3)}, "2 shares for 2 stores"),
        ({"data": ("a", "b"), "mix": (1.5,)}, "shares from 0 to 1"),
        ({"data": ("a",), "mix": (0.5,)}, "1 shares for 1 stores"),
        ({"store": "a", "temperature": 1.0}, "without advantage"),
        ({"store": "a", "advantage": "x", "temperature": 0.0}, "more than 0"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BCTrainConfig(**settings)


def test_no_store_or_one_twice_is_said() -> None:
    with pytest.raises(ConfigError, match="nothing to learn from"):
        _ = BCTrainConfig().stores
    with pytest.raises(ConfigError, match="each store once"):
        _ = BCTrainConfig(data=("a", "a")).stores


def test_the_command_line_mixes_and_goes_on(
    tmp_path: Path, base: Path, toy_store: EpisodeStore, imagined: EpisodeStore,
    toy_robot: RobotSpec, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    robot = tmp_path / "toy.toml"
    write_robot(toy_robot, robot)
    words = (
        f"train policy --start-from {base} --data {toy_store.root} --data {imagined.root} "
        f"--mix 0.25 --advantage advantage --robot {robot} --out {tmp_path / 'tuned'}"
    ).split() + [f"--loop.{name.replace('_', '-')}={value}" for name, value in FEW.items()]
    assert cli.main(words) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "tuned/run.json").read_text())
    assert len(manifest["content"]) == 3
    assert cli.main(words) == 0
    assert cli.main([*words, "--candidate", "full"]) == 2
    assert "its recipes do not have" in capsys.readouterr().err
    assert cli.main([*words[:-1], "--hidden", "64", "--out", str(tmp_path / "wider")]) == 2
    assert "hidden is 64, but the policy to start from has 32" in capsys.readouterr().err
    assert cli.main(["train", "policy", "--out", str(tmp_path / "none")]) == 2
    assert "nothing to learn from" in capsys.readouterr().err
