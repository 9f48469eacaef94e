"""``worldeval app`` and ``worldeval reindex`` from anywhere, and first mistakes in one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import worldeval
from worldeval.cli import main

pytest.importorskip("gradio")


@pytest.mark.parametrize("clone_on_path", [False, True])
def test_a_clone_s_inspector_is_found_from_any_folder(tmp_path: Path, clone_on_path: bool) -> None:
    """As from an editable install: with the package alone on the path, or with the clone too."""
    packages, here = tmp_path / "packages", tmp_path / "here"
    (here / "apps").mkdir(parents=True)
    (here / "apps" / "__init__.py").touch()
    packages.mkdir()
    package = Path(worldeval.__file__).parent
    (packages / "worldeval").symlink_to(package)
    done = subprocess.run(
        [sys.executable, "-m", "worldeval", "reindex", "nowhere"],
        cwd=here,
        env={
            **os.environ,
            "PYTHONPATH": str(package.parent if clone_on_path else packages),
        },
        capture_output=True,
        text=True,
    )
    assert "there is no folder nowhere" in done.stderr
    assert done.returncode not in (0, 70), done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("told", [["--port", "99999"], ["--host", "no.such.host.invalid"], []])
def test_a_place_where_nobody_can_listen(
    told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        told = told or ["--port", str(other.getsockname()[1])]
        assert main(["app", str(tmp_path), "--cache", str(tmp_path / "cache"), *told]) != 0
    captured = capsys.readouterr()
    assert "cannot listen at" in captured.err and told[1] in captured.err
    assert "http://" not in captured.out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "", "no.such.host.invalid"])
def test_who_lets_everybody_in_is_told(host: str) -> None:
    from apps.inspector.app import Options, open_to_all

    said = open_to_all(Options(roots=(), host=host, port=7861))
    assert said is not None and "\n" not in said
    assert "without --auth" in said and "--auth USER:PASSWORD" in said and "ssh -L 7861:" in said
    assert open_to_all(Options(roots=(), host=host, auth=("lab", "secret"))) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_who_listens_to_this_machine_alone_is_told_nothing(host: str) -> None:
    from apps.inspector.app import Options, open_to_all

    assert open_to_all(Options(roots=(), host=host)) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_judge_that_is_none_is_told_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--judge", "--progress"):
        assert main(["app", str(tmp_path), option, str(tmp_path / "none")]) != 0
        captured = capsys.readouterr()
        assert "none" in captured.err and "http://" not in captured.out
