from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from worldeval.data import provenance
from worldeval.data.provenance import (
    MANIFEST,
    jsonable,
    read_manifest,
    same_run,
    write_manifest,
)
from worldeval.errors import ConfigError, StoreError
from worldeval.types import Outcome


@dataclass(frozen=True, kw_only=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path = Path("runs/x")
    rate: float = 0.5
    inner: Inner = Inner()
    workers: int = 2


def test_what_is_kept(tmp_path: Path) -> None:
    write_manifest(
        tmp_path / "a" / "b", command="rollout", config=Config(), seed=3, extra={"device": "cpu"}
    )
    kept = read_manifest(tmp_path / "a" / "b")
    assert kept["command"] == "rollout" and kept["seed"] == 3
    assert kept["config"] == {
        "out": "runs/x",
        "rate": 0.5,
        "inner": {"sizes": [1, 2]},
        "workers": 2,
    }
    assert kept["extra"] == {"device": "cpu"}
    assert kept["versions"]["numpy"] == np.__version__
    assert kept["versions"]["python"].startswith(f"3.{sys.version_info.minor}")
    assert kept["machine"]["cpus"] >= 1 and kept["machine"]["ram_bytes"] > 2**20
    assert kept["argv"] == sys.argv and kept["time"].endswith("+00:00")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == [MANIFEST]  # nothing temporary


def test_continuing_keeps_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "result").touch()
    write_manifest(tmp_path, command="rollout", config=Config(), seed=3)
    first = read_manifest(tmp_path)
    write_manifest(tmp_path, command="rollout", config=Config(), seed=3)
    second = read_manifest(tmp_path)
    assert second["time"] == first["time"] and second["config"] == first["config"]
    assert second["id"] == first["id"] and same_run(first, second)
    assert len(first["resumed"]) == 0 and len(second["resumed"]) == 1
    assert "time" in second["resumed"][0]


def test_two_runs_of_one_second_are_two(tmp_path: Path) -> None:
    for name in "ab":
        write_manifest(tmp_path / name, command="rollout", config=Config(), seed=3)
    one, other = (read_manifest(tmp_path / name) for name in "ab")
    other |= {"time": one["time"]}
    assert one["argv"] == other["argv"] and not same_run(one, other)
    del other["id"]  # of a version that did not write one
    assert same_run(one, other) and not same_run(one, {**other, "time": "another"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": Config(rate=0.25)}, "was begun with rate = 0.5, now it is 0.25"),
        ({"config": Config(inner=Inner(sizes=(1, 3)))}, "inner.sizes.1 = 2, now it is 3"),
        ({"config": Config(inner=Inner(sizes=(1,)))}, r"inner.sizes = \[1, 2\], now it is \[1\]"),
        ({"config": {"rate": 0.5}}, "was begun with out = 'runs/x', now it is '\\(absent\\)'"),
        ({"command": "record"}, "command = 'rollout', now it is 'record'"),
        ({"seed": 4}, "seed = 3, now it is 4"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "result").touch()
    given = {"command": "rollout", "config": Config(), "seed": 3}
    path = write_manifest(tmp_path, **given)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        write_manifest(tmp_path, **{**given, **change})
    assert path.read_bytes() == before
    write_manifest(tmp_path, **{**given, **change}, allow_changes=True)


def test_allowed_changes(tmp_path: Path) -> None:
    (tmp_path / "result").touch()
    write_manifest(tmp_path, command="rollout", config=Config(), seed=3)
    changed = Config(workers=8, inner=Inner(sizes=(1, 5)))
    write_manifest(
        tmp_path, command="rollout", config=changed, seed=3, allow_changes=("workers", "inner")
    )
    with pytest.raises(ConfigError, match="begun with inner.sizes.1 = 5"):
        write_manifest(
            tmp_path, command="rollout", config=Config(), seed=3, allow_changes=("workers",)
        )


def test_a_command_that_failed_before_it_did_anything_blocks_nothing(tmp_path: Path) -> None:
    write_manifest(tmp_path, command="prepare", config={"rate": 1}, seed=3)
    (tmp_path / "empty" / "folders").mkdir(parents=True)
    (tmp_path / ".lock").touch()
    write_manifest(tmp_path, command="prepare", config={"rate": 2}, seed=3)
    assert read_manifest(tmp_path)["config"] == {"rate": 2}
    (tmp_path / "empty" / "result").touch()
    with pytest.raises(ConfigError, match="begun with rate = 2, now it is 3"):
        write_manifest(tmp_path, command="prepare", config={"rate": 3}, seed=3)


def test_damaged_and_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no run.json"):
        read_manifest(tmp_path)
    for text in ("{", json.dumps({"format": "other"})):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ConfigError, match="run.json"):
            write_manifest(tmp_path, command="rollout", config={}, seed=0)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        write_manifest(tmp_path / "file" / "run", command="rollout", config={}, seed=0)


def test_json_of_settings() -> None:
    assert jsonable(
        {
            "a": np.float32(0.5),
            "b": np.arange(2),
            "c": {3, 1},
            "d": Outcome.ERROR,
            "e": float("nan"),
            1: None,
        }
    ) == {"a": 0.5, "b": [0, 1], "c": [1, 3], "d": "error", "e": "nan", "1": None}
    with pytest.raises(ConfigError, match="a setting of type object"):
        jsonable(object())


def test_git_of_a_foreign_repository_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "worldeval"
    package.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance.worldeval, "__file__", str(package / "__init__.py"))
    assert provenance.git_state() is None
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() is None


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, worldeval.data.provenance as p; p.versions(); "
        "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_option_that_came_later_and_is_not_given_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "result").touch()
    before = {"store": "a", "inner": {"steps": 3}}
    write_manifest(tmp_path, command="train", config=before, seed=0)
    now = {"store": "a", "inner": {"steps": 3, "robot": None}, "robot": None}
    write_manifest(tmp_path, command="train", config=now, seed=0)
    with pytest.raises(ConfigError, match=r"inner\.robot = None, now it is 'so101'"):
        inner = {"steps": 3, "robot": "so101"}
        write_manifest(tmp_path, command="train", config={**now, "inner": inner}, seed=0)
