"""What a policy's URI leads to on the disk. What a changed part does to a run: test_resuming."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from worldeval.errors import ConfigError
from worldeval.policies import loading, source_code
from worldeval.policies.content import policy_content


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("class Mine: ...\n")
    (tmp_path / "w.npz").write_bytes(b"weights")
    (tmp_path / "keys.toml").write_text("rate_hz = 20\n")
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("random?speed=0.3", set()),
        ("zero", set()),
        ("keyboard?keys=llduco", set()),
        ("openpi://localhost:8000", set()),
        ("openpi://localhost:8000?keys=keys.toml", {"keys=keys.toml"}),
        ("roboarena://localhost:8000?keys=./keys.toml", {"keys=./keys.toml"}),
        ("python:mine.py:Mine?name=w.npz", {"mine.py"}),
        ("python:mine.py:Mine?speed=2&w=w.npz", {"mine.py", "w=w.npz"}),
        (f"python:mine.py:Mine?w={quote(json.dumps(['w.npz']))}", {"mine.py", "w=w.npz"}),
        (f"python:mine.py:Mine?w={quote(json.dumps({'a': 'w.npz'}))}", {"mine.py", "w=w.npz"}),
        ("python:mine.py:Mine?w=a.npz,w.npz", {"mine.py", "w=w.npz"}),
        ("python:mine.py:Mine?config=weights:w.npz", {"mine.py", "config=w.npz"}),
        ("python:json:load", set()),
        ("python:absent:Mine", set()),
        ("nothing", set()),
    ],
)
def test_parts(uri: str, parts: set[str]) -> None:
    assert set(policy_content(uri)) == parts


def test_a_policy_behind_a_fault_is_what_it_is_made_of(folder: Path) -> None:
    plain = policy_content("python:mine.py:Mine")
    assert policy_content("faulty:python:mine.py:Mine?gain=0.5&name=half") == plain
    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "# changed\n")
    assert policy_content("faulty:python:mine.py:Mine?gain=0.5") != plain


def test_an_address_of_a_file_names_it_too(folder: Path) -> None:
    uri = f"python:mine.py:Mine?w=file://{folder / 'w.npz'}"
    assert len(policy_content(uri)) == 2


def test_a_file_beside_the_code_and_not_where_we_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert set(policy_content("python:../mine.py:Mine?w=w.npz")) == {"mine.py", "w=w.npz"}


def test_a_scheme_of_another_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lab").mkdir()
    (folder / "lab" / "__init__.py").write_text("")
    (folder / "lab" / "policy.py").write_text("from .net import LAYERS\ndef make(): ...\n")
    (folder / "lab" / "net.py").write_text("LAYERS = 1\n")
    (folder / "weights").mkdir()
    (folder / "weights" / "w.bin").write_bytes(b"1")
    entry = importlib.metadata.EntryPoint("lab", "lab.policy:make", "worldeval.policies")
    monkeypatch.setattr(loading, "_entries", lambda: [entry])
    first = policy_content("lab:weights")
    assert {"scheme lab", "lab/policy.py", "lab/net.py", "what it names"} <= set(first)
    assert set(policy_content("lab")) == set(first) - {"what it names"}
    (folder / "weights" / "w.bin").write_bytes(b"2")
    second = policy_content("lab:weights")
    assert {name for name in first if first[name] != second[name]} == {"what it names"}


def test_an_installed_package_is_known_by_its_files_and_version() -> None:
    found = policy_content("python:yaml:load")
    assert found["PyYAML (installed)"] == importlib.metadata.version("PyYAML")
    assert "yaml/__init__.py" in found  # wherever it is installed


def test_packages_of_another_environment_that_this_one_takes_in_are_installed_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = folder / "base" / "lib" / "site-packages"
    (packages / "deep").mkdir(parents=True)
    (packages / "deep" / "__init__.py").write_text("from deep import more\n")
    (packages / "deep" / "more.py").write_text("")
    (folder / "mine.py").write_text("import deep\n")
    monkeypatch.syspath_prepend(packages)  # as a .pth file does
    source_code._places.cache_clear()
    try:
        assert set(policy_content("python:mine.py:Mine")) == {"mine.py"}
    finally:
        source_code._places.cache_clear()


def test_the_folder_that_is_written_to_is_no_part(folder: Path) -> None:
    (folder / "data" / "out").mkdir(parents=True)
    (folder / "data" / "w.bin").write_bytes(b"1")
    uri, out = "python:mine.py:Mine?root=data", folder / "data" / "out"
    before = policy_content(uri, but=out)
    (out / "run.json").write_text("{}")
    assert policy_content(uri, but=out) == before != policy_content(uri)


def test_circles_and_broken_code_end(folder: Path) -> None:
    (folder / "mine.py").write_text("import a\n")
    (folder / "a.py").write_text("import b, mine\n")
    (folder / "b.py").write_text("import a\nthis is no python\n")
    assert set(policy_content("python:mine.py:Mine")) == {"mine.py", "a.py", "b.py"}


def test_more_files_than_are_followed_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_code, "MOST_FILES", 1)
    (folder / "mine.py").write_text("import a, b\n")
    for name in ("a.py", "b.py"):
        (folder / name).write_text("")
    assert len(policy_content("python:mine.py:Mine")) == 1
    assert caplog.text.count("more than 1 source files") == 1


def test_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert set(policy_content("python:mine.py:Mine?w=pipe")) == {"mine.py"}
    (folder / "w.npz").chmod(0)
    if os.geteuid():
        with pytest.raises(ConfigError, match="cannot be read"):
            policy_content("python:mine.py:Mine?w=w.npz")


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("f'{here}/w.npz'", "w.npz"),
        ("here + '/weights/w.npz'", "weights/w.npz"),
        ("Path(here, 'weights', 'last', 'w.npz')", "weights/last/w.npz"),
        ("Path(__file__).with_suffix('.npz')", "mine.npz"),
        ("Path(here).glob('*.pickle')", "w.pickle"),
        ("open(f'{here}/parts.py')", "parts.py"),
        ("import_module('parts.network')", "parts/network.py"),
    ],
)
def test_files_that_the_code_names_in_pieces(folder: Path, code: str, path: str) -> None:
    (folder / "mine.py").write_text(f"x = {code}\n")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"'before'")
    before = policy_content("python:mine.py:Mine")
    file.write_bytes(b"'retrained'")
    assert policy_content("python:mine.py:Mine") != before
