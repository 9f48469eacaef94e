"""The recipes of docs/extending.md, followed to the letter."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, make_dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from worldeval import cli
from worldeval.data import checkpoint
from worldeval.data.readers.own import OwnDataset
from worldeval.judging import loading as judges
from worldeval.policies import loading as policies
from worldeval.ranking.agreement import Agreement
from worldeval.ranking.agreement_statistics import STATISTICS, Statistic
from worldeval.ranking.leaderboard import build_leaderboard
from worldeval.reports.ranking import text
from worldeval.reports.ranking.truth import agreement_section
from worldeval.robots import RobotSpec, read_robot
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.synthesis import rules
from worldeval.types import Episode
from worldeval.world_model import memory, sampler
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
TOY = toy_robot(image_size=(16, 16))


def test_every_file_and_name_on_the_page_exists() -> None:
    files = set(re.findall(r"`((?:worldeval|tests|apps)/[\w/.-]+\.\w+)`", PAGE))
    assert len(files) > 10
    assert not [name for name in files if not (ROOT / name).exists()]


def test_every_command_on_the_page_has_the_options_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = [line.split()[1:] for line in PAGE.splitlines() if line.startswith("worldeval ")]
    assert len(commands) > 8
    for words in commands:
        if words[0] == "MY_VERB":
            continue
        module, name = cli.VERBS[words[0]][0].split(":")
        kind = getattr(import_module(f"worldeval.commands.{module}"), name)
        monkeypatch.setattr(kind, "run", lambda self: None)
        assert cli.main(words) == 0, words


def test_robot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "my_robot.toml"
    assert cli.main(["robots", "--robot", "so101", "--out", str(mine)]) == 0
    mine.write_text(mine.read_text().replace('name = "so101"', 'name = "mine"'))
    assert cli.main(["robots", "--robot", str(mine)]) == 0
    assert "mine" in capsys.readouterr().out
    assert read_robot(mine) == replace(read_robot("so101"), name="mine")


def test_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        name = "mine"

        @classmethod
        def load(cls, folder: Path, *, device: str = "cpu") -> Mine:
            return cls()

    module = ModuleType("worldeval.judging.mine")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(judges.LEARNED, "my-judge", "mine:Mine")
    checkpoint.save(tmp_path / "made", kind="my-judge", config={}, tensors={})
    assert judges.load_judge(tmp_path / "made").name == "mine"


def test_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(denoise: Any, x: torch.Tensor, sigmas: Any) -> torch.Tensor:
        clean: torch.Tensor = denoise(x, sigmas[0])
        return clean

    monkeypatch.setitem(sampler.SOLVERS, "at-once", at_once)
    config = sampler.SamplerConfig(solver="at-once")
    drawn = sampler.sample(lambda x, sigma: 0 * x + 3, torch.ones(2, 4), config)
    assert torch.equal(drawn, torch.full((2, 4), 3.0))


def test_memory_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(memory.STRATEGIES, "first", lambda past, future, slots: [0])
    past, future = np.zeros((5, 3)), np.zeros((2, 3))
    indices, valid = memory.retrieve(memory.strategy("first"), past, future, 3)
    assert valid.tolist() == [False, False, True]
    assert indices[-1] == 0


def test_policy_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_protocol")
    module.load = lambda place, robot: ToyPolicy(robot=robot, name=place)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(policies.WITH_PLACE, "mine", "my_protocol:load")
    assert policies.load_policy("mine:there", TOY).spec.name == "there"


def test_world_and_policy(tmp_path: Path) -> None:
    class Mine(ToyWorld):
        """A world of one's own."""

    world = Mine(robot=TOY, name="mine")
    suite = Suite(name="s", robot="toy", chunks=2, starts=toy_starts(count=2))
    store = open_rollouts(tmp_path / "out", TOY, images="lossless")
    run(world, ToyPolicy(robot=TOY), suite, store, batch=2, progress=False)
    assert len(list(store)) == len(suite.starts)


def test_statistic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = Statistic(
        of=lambda rates: (rates.real_gaps * rates.predicted_gaps > 0).mean(axis=(1, 2)),
        label="Share of pairs in order",
        meaning="How many pairs keep their order.",
        short="in order",
        best="1 is best",
    )
    monkeypatch.setitem(STATISTICS, "in_order", mine)
    # The field is the one line in ranking/agreement.py.
    fields = [("in_order", float | None, None)]
    wider = make_dataclass("Agreement", fields, bases=(Agreement,), frozen=True, kw_only=True)
    monkeypatch.setattr(sys.modules["worldeval.ranking.agreement"], "Agreement", wider)
    rows = [
        {"policy": p, "task": t, "start_id": f"{t}/{k}", "outcome": o}
        for p, many in (("a", 1), ("b", 3), ("c", 5))
        for t in ("push", "reach")
        for k in range(6)
        for o in ["success" if k < many else "failure"]
    ]
    board = build_leaderboard(pd.DataFrame(rows), pd.DataFrame(rows), bootstrap_draws=20)
    saved = json.loads(board.to_json(tmp_path / "leaderboard.json").read_text())
    assert saved["agreement"]["in_order"] == pytest.approx(6 / 9)
    assert "in order       0.667" in text.render(board)
    assert "How many pairs keep their order." in agreement_section(board)


def test_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Mine:
        """One still episode, as a dataset of one's own would be read."""

        def __init__(self, source: Path, split: str, robot: RobotSpec) -> None:
            self.robot, self.ids = robot, ("first",)

        def episode(self, identity: str) -> Episode:
            robot, frames = self.robot, 6
            return Episode(
                key=identity,
                task="wait",
                instruction="wait",
                views=robot.views,
                frames=np.zeros((frames, len(robot.views), 16, 16, 3), np.uint8),
                poses=np.zeros((frames, robot.pose_dim), np.float32),
                actions=np.zeros((frames - 1, robot.steps_per_frame, robot.action_dim), np.float32),
            )

    module = ModuleType("my_reader")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = OwnDataset("my_reader:Mine", tmp_path, "train", TOY)
    assert found.episode(found.ids[0]).steps().shape[1:] == (TOY.steps_per_frame, TOY.action_dim)


def test_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Greet:
        """Greet somebody."""

        name: str = "you"

        def run(self) -> None:
            print("hello", self.name)

    Greet.__module__ = "worldeval.commands.greet"
    module = ModuleType("worldeval.commands.greet")
    module.Greet = Greet  # type: ignore[attr-defined]
    module.__dict__["dataclass"] = dataclass
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.VERBS, "greet", ("greet:Greet", "greet somebody"))
    assert cli.main(["greet", "--name", "world"]) == 0
    assert capsys.readouterr().out == "hello world\n"


def test_the_recipe_of_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder of rules is one that can be selected by; nothing else is written."""
    source = (Path(rules.__file__).parent / "quota.py").read_text()
    (tmp_path / "longest.py").write_text(
        source.replace("within the quota", "long enough").replace(
            "per_task: int | None = None, per_instruction: int | None = None",
            "per_task: int | None = 2, per_instruction: int | None = None",
        )
    )
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    chosen = rules.chosen_rule("longest?per_task=1")
    assert (chosen.rule.stage, str(chosen)) == (
        "long enough", "longest?per_task=1&per_instruction=null",
    )  # fmt: skip
    assert "longest" in rules.known_rules() and "success" in rules.known_rules()


def test_tab_of_the_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    from fastapi import APIRouter

    from apps.inspector import server
    from apps.inspector.context import Context

    tab = ModuleType("apps.inspector.tabs.greeting")
    monkeypatch.setitem(sys.modules, tab.__name__, tab)
    monkeypatch.setattr(server, "TABS", (*server.TABS, "greeting"))
    tab.TITLE = "Greeting"  # type: ignore[attr-defined]
    tab.build = lambda context: None  # type: ignore[attr-defined]

    def routes(context: Context) -> APIRouter:
        router = APIRouter()
        router.get("/greeting")(lambda: {"hello": "you"})
        return router

    tab.routes = routes  # type: ignore[attr-defined]
    context = Context([tmp_path], tmp_path / "cache")
    with testclient.TestClient(server.make_server(context)) as client:
        assert client.get("/inspector/greeting").json() == {"hello": "you"}
    assert server.tabs()["greeting"].TITLE == "Greeting"  # what the page makes tabs of
