"""The rooms stand as drawn: layers, four that know nothing of each other, no circle."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import worldeval

ROOT = Path(worldeval.__file__).parent
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Lowest first; a module imports its own row and the rows above it in this list.
LAYERS = [
    {"errors", "terminal"},
    {"registry", "settings", "shipped"},
    {"tracking"},
    {"robots"},
    {"types"},
    {"motion"},
    {"data"},
    {"learning", "metrics"},
    {"policies", "judging", "ranking", "worlds"},
    {"world_model", "rollout", "judge_calibration"},
    {"imagination", "bench", "testing"},
    {"reports"},
    {"doctor"},
    {"evaluation"},
    {"live", "synthesis", "gym"},
    {"lerobot_env"},
    {"commands", "cli", "fault", "__main__", "__init__"},
]
# A policy cannot tell which world it is in, nor a ranking who judged it.
SIDE_BY_SIDE = {"policies", "world_model", "ranking", "judging"}


def imports(path: Path) -> set[str]:
    """Modules of worldeval that a file imports, also late, inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # `from worldeval import terminal` names a module behind the import.
            inside = {f"worldeval.{a.name}" for a in node.names if a.name != "__version__"}
            found |= inside if node.module == "worldeval" else {node.module or ""}
    return {name for name in found if name.startswith("worldeval.")}


@cache
def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports) and where, for all files of the package."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT)
        here = inside.with_suffix("").parts[0]
        for name in sorted(imports(path)):
            there = name.split(".")[1]
            # The public names of worldeval itself are loaded when they are used.
            if there != here and there not in worldeval.__all__:
                found[here, there].append(f"{inside} imports {name}")
    return found


def test_no_room_imports_from_a_higher_layer() -> None:
    height = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    wrong = [w for (a, b), where in arrows().items() if height[b] > height[a] for w in where]
    assert not wrong


def test_policies_world_model_ranking_and_judging_do_not_know_each_other() -> None:
    wrong = [w for (a, b), where in arrows().items() if {a, b} <= SIDE_BY_SIDE for w in where]
    assert not wrong


def test_no_rooms_import_each_other_in_a_circle() -> None:
    leads_to = defaultdict(set)
    for a, b in arrows():
        leads_to[a].add(b)

    def circle(way: list[str]) -> list[str]:
        """The first circle that the way runs into, or nothing."""
        for room in sorted(leads_to[way[-1]]):
            if room in way:
                return [*way[way.index(room) :], room]
            if room not in clear and (found := circle([*way, room])):
                return found
        clear.add(way[-1])
        return []

    clear: set[str] = set()
    for start in sorted(leads_to):
        found = circle([start])
        assert not found, [w for step in pairwise(found) for w in arrows()[step]]


# Still to be mended: the table of benchmarks/trust.md is made with the verb itself.
WITH_VERBS = {"trust.py: worldeval.commands.trust"}


def test_benchmarks_reach_neither_into_the_command_line_nor_for_private_names() -> None:
    wrong = set()
    for path in sorted(BENCHMARKS.glob("*.py")):
        for name in imports(path):
            if name.startswith("worldeval.commands"):
                wrong.add(f"{path.name}: {name}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("worldeval"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                wrong |= {f"{path.name}: {n}" for n in names if n.startswith("_")}
    assert wrong == WITH_VERBS


def test_apps_know_the_public_names_and_reports_alone() -> None:
    wrong = set()
    for path in sorted((ROOT.parent / "apps").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom | ast.Import) or getattr(node, "level", 0):
                continue
            module = getattr(node, "module", None)
            names = [f"{module}.{a.name}" if module else a.name for a in node.names]
            for name in names:
                there = name.split(".")
                if there[0] == "worldeval" and there[1] not in {*worldeval.__all__, "reports"}:
                    wrong.add(f"{path.name}: {name}")
    assert not wrong
