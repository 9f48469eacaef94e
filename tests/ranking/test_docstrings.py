"""The examples in the docstrings of the statistics hold, and nothing heavy is imported."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

import worldeval.ranking as ranking

MODULES = [
    "agreement",
    "bradley_terry",
    "comparisons",
    "judged_rates",
    "letters",
    "planning",
    "sequential",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    # import_module: the package has functions of the same names as some of its modules.
    module = importlib.import_module(f"worldeval.ranking.{name}")
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_public_names_are_sorted_and_explained():
    names = ranking.__all__
    assert sorted(names) == names
    for name in names:
        assert getattr(ranking, name).__doc__, name


def test_importing_the_statistics_imports_nothing_heavy():
    code = (
        "import sys, worldeval.ranking\n"
        "heavy = {'torch', 'scipy', 'pandas', 'statsmodels', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
