"""The proof's plan: every command can be typed, arms are of equal size, results become a page."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from worldeval import cli

FOLDER = Path(__file__).parents[1] / "benchmarks/improvement"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look there
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def arms() -> Any:
    return module("arms")


def plan(arms: Any, out: Path) -> tuple[Any, list[Any]]:
    settings = arms.Settings(
        out=out, policies=("checkpoints/policies/short",), targets=("push", "reach"),
        recorded=Path("recorded"), starts=Path("starts"), suite=Path("suite.json"),
        held_out=Path("held-out.json"), held_out_starts=Path("starts"), judge=Path("judge"),
        world_model=Path("world"),
    )  # fmt: skip
    policy = settings.policies[0]
    training = arms.training_steps(settings, policy)
    made = ["base", *(step.arm for step in training if step.arm)]
    steps = arms.data_steps(settings, policy) + training
    return settings, steps + arms.measuring_steps(settings, policy, made, ["pick-place"])


def test_every_command_of_the_plan_can_be_typed(
    arms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module("run")
    settings, steps = plan(arms, tmp_path)
    assert len({step.name for step in steps}) == len(steps)
    ran: list[Any] = []
    for step in steps:
        if step.local:
            assert step.local in run.LOCAL
            continue
        words = run.sized(step.words, settings, settings.policies[0])
        verb = " ".join(words[:2]) if " ".join(words[:2]) in cli.VERBS else words[0]
        home, name = cli.VERBS[verb][0].split(":")
        kind = getattr(import_module(f"worldeval.commands.{home}"), name)
        monkeypatch.setattr(kind, "run", lambda self: ran.append(self))
        assert cli.main(words) == 0, words
    assert len(ran) == sum(not step.local for step in steps)


def test_all_arms_take_the_same_steps_and_the_same_number_of_episodes(
    arms: Any, tmp_path: Path
) -> None:
    run = module("run")
    settings, steps = plan(arms, tmp_path)
    home = tmp_path / "short"
    home.mkdir()
    (home / "size.json").write_text(json.dumps({"size": 16}))
    trained = {}
    for step in steps:
        if step.words[:2] == ("train", "policy"):
            words = run.sized(step.words, settings, settings.policies[0])
            value = {w: words[i + 1] for i, w in enumerate(words) if w.startswith("--") and i + 1 < len(words)}  # fmt: skip  # noqa: E501
            trained[step.arm] = value
            assert value["--loop.steps"] == "400"
            assert "--only-successful" in words
    whole = {arm for arm in trained if not str(arm).startswith("dose-")}
    assert {trained[arm]["--demonstrations"] for arm in whole} == {"16"}
    assert trained["dose-0.125"]["--demonstrations"] == "2"
    assert trained["mix-0.9"]["--mix"] == "0.9"
    assert "--mix" not in trained["extra-steps"]
    assert {
        "finetuned", "advantage", "unselected", "oracle-selected", "real-filtered", "extra-steps",
        "paraphrase-only", "reset-only", "second-round", "as-told", "real-retold",
    } <= trained.keys()  # fmt: skip


def test_targets_of_one_policy_are_its_own(arms: Any, tmp_path: Path) -> None:
    settings, _ = plan(arms, tmp_path)
    settings = dataclasses.replace(settings, targets=("push", "other=reach,drawer-open"))
    assert settings.tasks_of("checkpoints/policies/short") == ("push",)
    assert settings.tasks_of("runs/other/") == ("reach", "drawer-open")


def test_a_policy_of_few_recordings_is_taught_no_others_again(arms: Any, tmp_path: Path) -> None:
    settings, _ = plan(arms, tmp_path)
    for name, share in (("few", 6), ("all", None)):
        (tmp_path / name).mkdir()
        card = {"card": {"training": {"demonstrations": share}}}
        (tmp_path / name / "config.json").write_text(json.dumps(card))
    assert arms.recorded_of(settings, str(tmp_path / "few")) == tmp_path / "few" / "recorded"
    assert arms.recorded_of(settings, str(tmp_path / "all")) == settings.recorded


def test_the_page_compares_start_state_by_start_state(tmp_path: Path) -> None:
    proof = module("proof")
    rows = []
    for policy in ("one", "two"):
        for arm, solved in (("base", 2), ("finetuned", 9), ("real-filtered", 5), ("mix-0.3", 6)):
            for group in ("true", "others", "reworded"):
                outcomes = {f"s{i}": "success" if i < solved else "failure" for i in range(10)}
                rows.append(
                    {"policy": policy, "arm": arm, "targeted": group != "others",
                     "group": group, "successes": solved, "trials": 10, "size": 8, "mix": 0.5,
                     "seed": 0, "outcomes": outcomes}
                )  # fmt: skip
    forecast = {"policy": "one", "targeted": True, "group": "imagined"}
    for arm, words in (("base", "sf"), ("finetuned", "ssuf")):
        named = {"s": "success", "f": "failure", "u": "undecided"}
        told = {f"s{i}": named[word] for i, word in enumerate(words)}
        rows.append({**forecast, "arm": arm, "outcomes": told})
    said = {"command": "run.py", "missing": ["two/train-merged: failed"], "rows": rows}
    (tmp_path / "results.json").write_text(json.dumps(said))
    text = proof.write_proof(tmp_path).read_text()
    assert "| finetuned | 2 | 8 | 90.0 % [70, 97] (18/20) | +70.0" in text
    assert "## Targeted tasks, in words that no arm has learned from" in text
    assert "p 0.00012" in text  # 14 of 14 pairs that differ
    assert "two/train-merged: failed" in text
    assert "| one | 50 % | 67 % | +17 | +70 |" in text
    assert "| finetuned | 9/10 | 9/10 | 90.0 % |" in text
    assert (tmp_path / "mix-curve.png").is_file() and (tmp_path / "arms.png").is_file()
