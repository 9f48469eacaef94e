"""What ``evaluate`` takes: policies as URIs, objects and classes; controls; a second seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import worldeval as we
from tests.evaluation.test_demo import episode, make_shipped
from worldeval import cli, shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError, PolicyError, WorldEvalError
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.worlds.sawyer import ROBOT
from worldeval.worlds.toy import TOY_ROBOT, ToyPolicy, toy_starts


class Clumsy(ToyPolicy):
    def __init__(self, robot):
        super().__init__(robot=robot, name="clumsy", mistakes=1)
        self.closed = 0

    def close(self):
        self.closed += 1


def toy(tmp_path: Path, policies, **options) -> we.Evaluation:
    suite = tmp_path / "suite.json"
    if not suite.exists():
        Suite(name="s", robot="toy", chunks=4, starts=toy_starts(count=2)).save(suite)
    return we.evaluate(
        policies, out=tmp_path / "run", world="toy", suite=suite, threads=1, **options
    )


def test_objects_and_classes_are_policies_too(tmp_path: Path) -> None:
    lent = Clumsy(TOY_ROBOT)
    good = ToyPolicy(robot=TOY_ROBOT, name="good")
    run = toy(tmp_path, [good, lent, "random"])
    assert set(run.rollouts) == {"good", "clumsy", "random"} and lent.closed == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any(uri.endswith("Clumsy:clumsy") for uri in config["config"]["policies"])
    assert any("class Clumsy" in parts for parts in config["content"].values())
    again = toy(tmp_path, Clumsy, controls=False)  # a class, alone: the same policy
    assert {name: len(views) for name, views in again.rollouts.items()} == {
        "good": 4,
        "clumsy": 4,
        "random": 4,
    }


def test_an_object_with_other_weights_is_another_policy(tmp_path: Path) -> None:
    import torch

    first, second = Clumsy(TOY_ROBOT), Clumsy(TOY_ROBOT)
    for one in (first, second):
        one.network = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    second.network.load_state_dict(first.network.state_dict())
    toy(tmp_path, first)
    toy(tmp_path, second)
    with torch.no_grad():
        second.network.bias += 1
    with pytest.raises(ConfigError, match="another policy object.*weights of network"):
        toy(tmp_path, second)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (3, {}, "policies is 3 (int), expected a URI"),
        ([3], {}, "policies[0] is 3 (int)"),
        (None, {}, "policies is None"),
        ([], {}, "no policy was given"),
        ({"a": "random"}, {}, "policies is {'a': 'random'}"),
        ([Clumsy], {"isolate": True}, "cannot be isolated"),
        ([lambda: 1 / 0], {}, "could not be made (ZeroDivisionError"),
        ("random", {"batch": "8"}, "batch is '8', expected a whole number"),
        ("random", {"judge": 3}, "judge is 3"),
        ("random", {"truth": "nowhere.csv"}, "nowhere.csv does not exist"),
        ("random", {"until_sure": "worst"}, "until_sure is 'worst'"),
        ("random", {"seeds": (1, 1)}, "at most two different ones"),
        ("random", {"seeds": "one"}, "seeds"),
        ("random", {"seeds": -1}, "seed is -1"),
        ("random", {"tasks": 3}, "task is 3"),
        ("random", {"seeds": 1.5}, "seed is 1.5"),
        ("random", {"trust": "yes"}, "trust is 'yes', expected True or False"),
        ("random", {"controls": None}, "controls is None, expected True or False"),
        ("random", {"alpha": "0.05"}, "alpha is '0.05'"),
        ("random", {"judge": ["a"]}, "judge is ['a'] (list)"),
        ("random", {"truth": [1]}, "truth is [1], expected a path"),
        ([ToyPolicy(robot=TOY_ROBOT)] * 2, {}, "rename one in its PolicySpec"),
        ("random", {"world_model": 3}, "world_model is 3, expected a path"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, given, options, said: str
) -> None:
    with pytest.raises((ConfigError, PolicyError)) as error:
        toy(tmp_path, given, **options)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_an_evaluation_cannot_use_is_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    run = toy(tmp_path, [Clumsy, ToyPolicy(robot=TOY_ROBOT, name="good")])
    before = repr(run)
    truth = run.truth
    for wrong, said in (
        (truth[["policy", "task", "outcome"]], "start_id"),
        (
            truth[["key", "outcome"]].iloc[:1].assign(key="elsewhere"),
            "names none of the start states",
        ),
        (truth.iloc[:5], "have no true result"),
        (truth.iloc[:0], "names none of the start states"),
        (3, "truth is 3, expected a table"),
    ):
        with pytest.raises(WorldEvalError, match=said):
            run.rank(truth=wrong)
        assert repr(run) == before and run.rank()
    named_by_key = run.rank(truth=truth[["key", "outcome"]]).leaderboard().policies
    assert all(row.true is not None for row in named_by_key)
    before = repr(run)

    class Judge:
        name = "mine"

        def __init__(self, answer):
            self.answer = answer

        def judge(self, episodes):
            return self.answer(episodes)

    for judge, said in (
        (3, r"judge is 3 \(int\)"),
        (Judge(lambda episodes: 1 / 0), "judge 'mine' raised ZeroDivisionError"),
        (Judge(lambda episodes: [1] * len(episodes)), "expected a list with a worldeval.Verdict"),
        (Judge(lambda episodes: []), "answered about"),
    ):
        with pytest.raises(WorldEvalError, match=said):
            run.judge(judge)
        assert repr(run) == before
    with pytest.raises(MismatchError, match="has no rollout from"):
        run.only("nowhere")
    with pytest.raises(KeyError, match="there are those of"):
        run.rollouts["goood"]
    with pytest.raises(ConfigError, match="folder is 3"):
        we.Evaluation.open(3)


def test_a_truth_of_before_does_not_stand_in_the_way_of_more_start_states(tmp_path: Path) -> None:
    policies = [Clumsy, ToyPolicy(robot=TOY_ROBOT, name="good")]
    run = toy(tmp_path, policies, per_task=1)
    run.rank(truth=run.truth)
    assert all(row.true is not None for row in run.leaderboard().policies)
    board = toy(tmp_path, policies).leaderboard()
    assert all(row.true is None for row in board.policies)
    assert any("given before is not compared with" in note for note in board.notes)


def test_a_second_seed_tries_the_order(tmp_path: Path) -> None:
    run = toy(tmp_path, ["random", ToyPolicy(robot=TOY_ROBOT, name="good")], seeds=(7, 8))
    seeds = {view.episode().extra["seed"] for views in run.rollouts.values() for view in views}
    other = we.Evaluation.open(tmp_path / "run" / "other-seed")
    assert seeds.isdisjoint(
        view.episode().extra["seed"] for views in other.rollouts.values() for view in views
    )
    checks = {check.change: check for check in run.leaderboard().stability.checks}
    assert any("seed" in change for change in checks)
    with pytest.raises(ConfigError, match="begun with"):
        toy(tmp_path, ["random"], seeds=9)


@pytest.fixture
def imagined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_shipped(tmp_path / "checkpoints")
    monkeypatch.setenv("WORLDEVAL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path


def test_controls_are_imagined_from_a_few_start_states_and_never_rank(
    imagined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--policy", "random", "--threads", "1", "--chunks", "1"]
    assert cli.main([*words, "--controls", "--out", str(imagined / "run")]) == 0
    said = capsys.readouterr().out
    run = we.Evaluation.open(imagined / "run")
    assert {name: len(views) for name, views in run.rollouts.items()} == {
        "random": 6,
        "control-random": 4,
        "control-still": 4,
    }
    board = run.leaderboard()
    assert [row.name for row in board.policies] == ["random"]
    assert {row.control for row in board.controls.rows} == {"control-random", "control-still"}
    marked = sorted(board.controls.doubts)
    assert all(f"{task} is not to be believed" in said for task in marked) and marked
    page = (imagined / "run" / "report.html").read_text()
    assert ">Controls</h2>" in page and page.count("not to be believed") > len(marked)
    assert "control-random" not in [path.name for path in (imagined / "run" / "clips").iterdir()]

    assert cli.main([*words, "--no-controls", "--out", str(imagined / "bare")]) == 0
    assert set(we.Evaluation.open(imagined / "bare").rollouts) == {"random"}


def test_recorded_successes_are_the_experts(imagined: Path) -> None:
    suite = Suite.load(imagined / "checkpoints" / shipped.SUITE)
    with open_rollouts(imagined / "recorded", ROBOT, images="lossless") as store:
        for number, start in enumerate(suite.starts):
            one = episode(start.start_id, start, 4)
            store.append(replace(one, success=number != 0))
    assert len(EpisodeStore.open(imagined / "recorded")) == 6
    run = we.evaluate(
        "zero", out=imagined / "run", starts=imagined / "recorded", chunks=1, threads=1
    )
    began = {name: [view.start_id for view in views] for name, views in run.rollouts.items()}
    assert len(began["zero"]) == 6
    for name in ("control-expert", "control-random", "control-still", "control-mirrored"):
        assert len(began[name]) == 4 and suite.starts[0].start_id not in began[name]
