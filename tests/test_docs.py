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
from worldeval.policies.loading import ALONE, SERVERS, WITH_PLACE

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


def rows_with_tests() -> list[tuple[str, str, list[Path]]]:
    """(page, first cells of the row, the tests that it names) of all tables."""
    found = []
    for page in PAGES:
        for line in page.read_text().splitlines():
            tests = [ROOT / name for name in re.findall(r"`(tests/[\w/.]+\.py)`", line)]
            if tests and line.lstrip().startswith("|"):
                found.append((page.name, line[: line.index("`tests/")], tests))
    return found


DOORS = {
    "policies.md": [*ALONE, *(name for name in WITH_PLACE if name not in SERVERS)],
    "policy_servers.md": [*SERVERS, "serve-policy", "lerobot-reward"],
    "worlds.md": ["imagination", "metaworld", "hybrid", "recorded", "gym", "ws"],
    "rankings.md": ["vlm", "lerobot-reward", "human"],
    "clusters.md": ["--workers", "--executor ray", "--shard", "--mirror s3", "--index postgresql"],
}
"""What a page's table is to have a row of."""


@pytest.mark.parametrize(
    ("page", "door"), [(p, door) for p, doors in DOORS.items() for door in doors]
)
def test_every_door_has_a_row_whose_test_goes_through_it(page: str, door: str) -> None:
    name = re.compile(rf"`[^`]*(?<![\w+-]){re.escape(door)}(?![\w+-])")
    tests = [test for where, row, some in rows_with_tests() if where == page and name.search(row)
             for test in some]  # fmt: skip
    assert tests, f"no table of docs/{page} has a row of {door} with the test that runs it"
    sources = "".join(test.read_text() for test in tests)
    words = door.split()
    assert all(re.search(rf"(?<![\w+]){re.escape(word)}", sources) for word in words), (door, tests)


def test_the_tests_that_tables_name_are_there() -> None:
    named = [test for _, _, tests in rows_with_tests() for test in tests]
    assert len(named) > 30 and not [test for test in named if not test.is_file()]


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
