"""A finished rollout stands for what made it, not for a name: each thing that can change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.worlds.recorded import RecordedWorld
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot()
POLICY = """
import json
from pathlib import Path
from worldeval.worlds.toy import ToyPolicy
{extra}

class Mine(ToyPolicy):
    def __init__(self, robot, weights=None, name="mine"):
        super().__init__(robot=robot, name=name)
"""


class Command:
    """``worldeval rollout`` in a folder of its own, given again and again."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.suite = Suite(name="s", robot="toy", chunks=1, starts=toy_starts(count=2))
        self.save(self.suite)
        self.write("mine.py", POLICY.format(extra=""))

    def save(self, suite: Suite) -> None:
        suite.save(self.folder / "s.json")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def __call__(self, *uris: str, out: str = "out") -> tuple[int, str]:
        words = ["rollout", "--world", "toy", "--suite", "s.json", "--threads", "1", "--out", out]
        for uri in uris or ("python:mine.py:Mine",):
            words += ["--policy", uri]
        code = cli.main(words)
        said = self._capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    def refused(self, *parts: str, uri: str = "python:mine.py:Mine") -> None:
        code, said = self(uri)
        assert code == 2, said
        assert all(part in said for part in parts), said
        assert self(uri, out="another")[0] == 0


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def test_the_same_again_rolls_out_nothing(command: Command) -> None:
    assert command()[0] == 0
    code, said = command()
    assert code == 0 and "0 rollouts (+ 4 from before)" in said and "cannot be checked" not in said
    assert len(EpisodeStore.open("out")) == 4


@pytest.mark.parametrize("argument", ["w.npz", "weights", "deep/w.npz"])
def test_weights_behind_an_argument(argument: str, command: Command) -> None:
    file = f"{argument}/model.bin" if argument == "weights" else argument
    uri = f"python:mine.py:Mine?weights={argument}"
    command.write(file, "one")
    assert command(uri)[0] == 0
    command.write(file, "two")
    command.refused("another policy", f"weights={argument} was", "choose another folder", uri=uri)
    command.write(file, "one")
    assert command(uri)[0] == 0


IMPORTS = {
    "import network": "network.py",
    "from network import LAYERS": "network.py",
    "from package.inner import LAYERS": "package/inner.py",
    "from package import inner": "package/inner.py",
    "import importlib; importlib.import_module('network')": "network.py",
    "TABLE = json.loads((Path(__file__).parent / 'table.json').read_text())": "table.json",
    "import sys; sys.path.insert(0, str(Path(__file__).parent / 'lib')); import far": "lib/far.py",
}


@pytest.mark.parametrize("extra", IMPORTS)
def test_what_the_code_leads_to(extra: str, command: Command) -> None:
    changed = IMPORTS[extra]
    command.write("package/__init__.py", "")
    for name in ("network.py", "package/inner.py", "lib/far.py", "table.json"):
        command.write(name, "1" if name.endswith("json") else "LAYERS = 1\n")
    # the class is what is rolled out here; how its modules are found is not this test's concern
    command.write("mine.py", POLICY.format(extra=f"def unused():\n    {extra}\n"))
    assert command()[0] == 0
    command.write(changed, "2" if changed.endswith("json") else "LAYERS = 2\n")
    command.refused("another policy", f"{changed} was")


def test_a_module_of_a_module(command: Command) -> None:
    command.write("mine.py", POLICY.format(extra="def unused():\n    import network\n"))
    command.write("network.py", "def unused():\n    from package.inner import LAYERS\n")
    command.write("package/__init__.py", "")
    command.write("package/inner.py", "from . import deeper\n")
    command.write("package/deeper.py", "LAYERS = 1\n")
    assert command()[0] == 0
    command.write("package/deeper.py", "LAYERS = 2\n")
    command.refused("package/deeper.py was")


def test_the_code_itself_and_what_has_nothing_to_do_with_it(command: Command) -> None:
    assert command()[0] == 0
    command.write("other.py", "LAYERS = 2\n")
    command.write("log.txt", "written by the policy")
    assert command()[0] == 0
    command.write("mine.py", POLICY.format(extra="LAYERS = 2"))
    command.refused("mine.py:Mine", "choose another folder")


def test_a_module_by_its_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(command.folder / "src"))
    command.write("src/robots_of_mine/__init__.py", "")
    command.write("src/robots_of_mine/policy.py", POLICY.format(extra="from .net import LAYERS"))
    command.write("src/robots_of_mine/net.py", "LAYERS = 1\n")
    uri = "python:robots_of_mine.policy:Mine"
    assert command(uri)[0] == 0
    command.write("src/robots_of_mine/net.py", "LAYERS = 2\n")
    command.refused("net.py was", uri=uri)


CHANGES: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "instruction": (lambda s: {"instruction": "do not"}, "instruction 'push"),
    "seed": (lambda s: {"seed": s.seed + 1}, "start_seed"),
    "task": (lambda s: {"task": "push-blue"}, "task 'push-red'"),
    "split": (lambda s: {"split": "other"}, "split"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_start_states_of_the_same_names(what: str, command: Command) -> None:
    change, said = CHANGES[what]
    assert command()[0] == 0
    first, *others = command.suite.starts
    changed = replace(first, **change(first))
    command.save(replace(command.suite, starts=(changed, *others)))
    code, told = command()
    assert code == 2 and "its start state has changed" in told and what in told, told


def test_a_suite_may_grow(command: Command) -> None:
    starts = toy_starts(count=3)
    command.save(replace(command.suite, starts=starts[:2]))
    assert command()[0] == 0
    command.save(replace(command.suite, starts=starts))
    code, said = command()
    assert code == 0 and "4 rollouts (+ 2 from before)" in said


def test_two_policies_of_one_name(command: Command) -> None:
    command.write("other.py", POLICY.format(extra=""))
    code, said = command("python:mine.py:Mine", "python:other.py:Mine")
    assert code == 2 and "two policies are called 'mine'" in said
    assert "'python:mine.py:Mine'" in said and "'python:other.py:Mine'" in said
    assert "?name=another" in said and not Path("out").exists()
    assert command("python:mine.py:Mine", "python:other.py:Mine?name=another")[0] == 0
    assert command("random?speed=0.5", "random?speed=0.2", out="third")[0] == 2


def test_a_folder_of_the_version_before_goes_on_and_says_so(
    command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    assert command()[0] == 0
    manifest = json.loads(Path("out/run.json").read_text())
    del manifest["content"]
    Path("out/run.json").write_text(json.dumps(manifest))
    for _ in range(2):
        caplog.clear()
        assert command()[0] == 0
        assert "no digest of policy python:mine.py:Mine" in caplog.text
    command.write("mine.py", POLICY.format(extra="LAYERS = 2"))
    assert command()[0] == 2


def recordings(folder: Path, level: int) -> RecordedWorld:
    with open_rollouts(folder, ROBOT, images="lossless") as store:
        if not len(store):
            suite = Suite(name="s", robot="toy", chunks=1, starts=toy_starts(count=2))
            policy = ToyPolicy(robot=ROBOT, name="source", mistakes=0.0)
            run(ToyWorld(robot=ROBOT, jitter_m=0.01 * level), policy, suite, store, batch=2,
                seed=level, progress=False)  # fmt: skip
    return RecordedWorld(folder, ROBOT)


def test_recordings_that_were_made_again(tmp_path: Path) -> None:
    suite = Suite(name="s", robot="toy", chunks=1, starts=toy_starts(count=2))
    with open_rollouts(tmp_path / "out", ROBOT) as store:
        world = recordings(tmp_path / "one", 1)
        run(world, ToyPolicy(robot=ROBOT), suite, store, batch=2, progress=False)
        report = run(world, ToyPolicy(robot=ROBOT), suite, store, batch=2, progress=False)
        assert report.resumed == 4
        world = recordings(tmp_path / "two", 2)
        with pytest.raises(ConfigError, match="start_digest .* its start state has changed"):
            run(world, ToyPolicy(robot=ROBOT), suite, store, batch=2, progress=False)


def test_another_seed_of_all_chance(tmp_path: Path) -> None:
    suite = Suite(name="s", robot="toy", chunks=1, starts=toy_starts(count=2))
    with open_rollouts(tmp_path, ROBOT) as store:
        run(ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT), suite, store, batch=2, progress=False)
        with pytest.raises(ConfigError, match="with seed "):
            run(ToyWorld(robot=ROBOT), ToyPolicy(robot=ROBOT), replace(suite, seed=1), store,
                batch=2, progress=False)  # fmt: skip
