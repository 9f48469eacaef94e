"""Every command that the documentation prints has the verb and the options that it names, and every
link leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from worldeval import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
    ROOT / "checkpoints/README.md",
]
PROGRAM = re.compile(r"^(?:\S*/)?worldeval (?!.*\.\.\.)")


def printed(text: str) -> list[str]:
    """Each line of a code block that calls the program."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            parts = (" ".join(part.split()) for part in line.split("&&"))
            found += [part for part in parts if PROGRAM.match(part) and "MY_VERB" not in part]
    return found


def commands() -> list[tuple[str, str]]:
    """(page, command) of all pages."""
    return [(page.name, command) for page in PAGES for command in printed(page.read_text())]


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_printed_command_is_understood(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command, comments=True)[1:]
    names = [" ".join(words[:2]), words[0]]
    verb = next((cli.VERBS[name] for name in names if name in cli.VERBS), None)
    assert verb, f"{page}: there is no verb {words[0]!r}"
    module, kind = verb[0].split(":")
    monkeypatch.setattr(
        getattr(import_module(f"worldeval.commands.{module}"), kind), "run", lambda self: None
    )
    assert cli.main(words) == 0, f"{page}: {command}"


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 25


def test_links_and_pictures_of_the_pages_exist() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            inside = not target.startswith(("http:", "https:", "mailto:"))
            if inside and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_every_benchmark_is_listed() -> None:
    folder = ROOT / "benchmarks"
    listed = (folder / "README.md").read_text().split("## Every file")[1].split("\n## ")[0]
    files = {path.name for path in folder.rglob("*.*") if "__pycache__" not in path.parts}
    assert not [name for name in files - {"README.md"} if f"{name}`" not in listed]


def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    site = str(tmp_path / "site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", site]
    done = subprocess.run(
        build,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "site/api/evaluation/index.html").read_text()
    assert "until_sure" in page and "Evaluation" in page
    assert (tmp_path / "site/benchmarks/trust/index.html").exists()
