"""The public surface: small, sorted, complete, and free until it is used."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import worldeval

ROOT = Path(worldeval.__file__).parent


def test_the_public_names_are_sorted_and_each_has_a_home() -> None:
    assert worldeval.__all__ == sorted(worldeval.__all__)
    assert set(worldeval._HOMES) == set(worldeval.__all__) - {"__version__"}
    assert dir(worldeval) == worldeval.__all__


def test_what_a_type_checker_sees_is_what_is_loaded() -> None:
    """The imports under TYPE_CHECKING and the table of homes name the same things."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    seen = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("worldeval.")
        for alias in node.names
    }
    renamed = worldeval._RENAMED
    homes = {n: (f"worldeval.{home}", renamed.get(n, n)) for n, home in worldeval._HOMES.items()}
    assert seen == homes


@pytest.mark.parametrize("name", sorted(worldeval._HOMES))
def test_every_public_name_can_be_loaded(name: str) -> None:
    assert getattr(worldeval, name) is not None


def test_all_names_and_the_help_are_there_without_the_simulator() -> None:
    code = (
        "import sys, pydoc\n"
        "sys.modules.update(dict.fromkeys(('metaworld', 'mujoco', 'gymnasium')))\n"
        "from worldeval import *\n"
        "import worldeval\n"
        "assert 'evaluate' in pydoc.render_doc(worldeval)\n"
        "try: MetaWorld()\n"
        "except WorldEvalError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the simulator is not installed" in done.stdout


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        worldeval.Nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, worldeval, worldeval.cli\n"
        "print(*sorted({'torch', 'numpy', 'tyro', 'pandas', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "room",
    [
        "data",
        "data/store",
        "data/readers",
        "motion",
        "rollout",
        "ranking",
        "reports/ranking",
        "commands",
    ],
)
def test_rooms_without_torch_do_not_import_it(room: str) -> None:
    """Importing every module of these rooms leaves torch alone (it may be loaded when used)."""
    # The settings of these trainings, which their verbs show, lie beside the torch code.
    known = {"train_adapter", "train_ctrl_world", "train_judge", "train_margin", "train_path",
             "train_progress", "train_trust", "train_world_model"}  # fmt: skip
    names = sorted({path.stem for path in (ROOT / room).glob("[a-z]*.py")} - known)
    modules = [f"worldeval.{room.replace('/', '.')}.{name}" for name in names]
    code = f"import sys, {', '.join(modules)}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"worldeval.{room} imports torch"


def test_the_installed_version_is_the_one_of_the_package() -> None:
    assert importlib.metadata.version("worldeval") == worldeval.__version__


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("worldeval.imagination.trust.calibration", "torch"),  # read by every ranking
        ("worldeval.judging.path", "accelerate"),  # a judge that only looks
        ("worldeval.judging.margin", "accelerate"),
    ],
)
def test_who_only_reads_does_not_import_what_computes(module: str, heavy: str) -> None:
    code = f"import sys, {module}\nsys.exit({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"{module} imports {heavy}"
