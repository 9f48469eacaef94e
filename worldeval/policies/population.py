"""A population of truly different policies, split by family, to train and to test a ranking on.

Enters: a store of demonstrations. Leaves: trained networks and ``population.json``: for each member
its name, family, role and URI. Families are networks (``cloning/families.py``) and faults
(``faulty.py``). Whole families have one role each: "training" (a world model and a judge may learn
from their rollouts), "validation" (settings are chosen on them) and "reported" (nothing is trained
or chosen on them; the figures of a model card are theirs). None of them ever looks through a world
model's autoencoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from worldeval.data.atomic import write_atomically
from worldeval.data.files import load_json
from worldeval.errors import ConfigError, DataError
from worldeval.policies.cloning.config import BCTrainConfig

ROLES = ("training", "validation", "reported")
FILE = "population.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network to train: its family and what differs from the defaults of ``BCTrainConfig``."""

    name: str
    family: str
    role: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One policy of the population."""

    name: str
    family: str
    role: str
    uri: str


def _recipe(name: str, role: str, steps: int, family: str = "film", **settings: Any) -> Recipe:
    return Recipe(name=name, family=family, role=role, steps=steps, settings=settings)


RECIPES = (
    # the network of the shipped candidates, other data, seeds and lengths
    _recipe("film-good", "training", 900),
    _recipe("film-middle", "training", 350, demonstrations=16),
    _recipe("film-poor", "training", 200, demonstrations=5, use_state=False),
    _recipe("keypoints-good", "training", 600, "keypoints"),
    _recipe("keypoints-poor", "training", 250, "keypoints", demonstrations=8),
    _recipe("plain-good", "validation", 900, "plain"),
    _recipe("plain-middle", "validation", 400, "plain", demonstrations=20),
    _recipe("plain-poor", "validation", 200, "plain", demonstrations=6, label_gain=0.7),
    _recipe("patches-good", "reported", 800, "patches"),
    _recipe("patches-middle", "reported", 350, "patches", demonstrations=25),
    _recipe("thumbnails-good", "reported", 900, "thumbnails"),
    _recipe("thumbnails-poor", "reported", 250, "thumbnails", demonstrations=10),
    _recipe("nearest-many", "reported", 0, "nearest", remembered=6000),
    _recipe("nearest-few", "reported", 0, "nearest", remembered=700, demonstrations=8),
)
"""The networks, trained on one store of demonstrations."""

FAULTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    # family, role, network, arguments of the fault
    ("gain", "training", "film-good", {"gain": 0.6}),
    ("grip", "training", "film-good", {"grip": 0.55}),
    ("noise", "training", "keypoints-good", {"noise": 0.6}),
    ("gripper-late", "training", "film-good", {"gripper_delay_steps": 15}),
    ("gripper-frozen", "training", "film-good", {"gripper": "open"}),
    ("deaf", "training", "keypoints-good", {"deaf": True}),
    ("slip", "validation", "plain-good", {"slip_after_steps": 25}),
    ("stop", "validation", "plain-good", {"stop_after_steps": 60}),
    ("offset", "validation", "plain-good", {"bias": [0.0, 0.15, 0.1]}),
    ("bias", "reported", "patches-good", {"bias": [0.15, 0.0, 0.0]}),
    ("delay", "reported", "patches-good", {"delay_steps": 8}),
    ("half-speed", "reported", "patches-good", {"gain": 0.5}),
    ("weak-grip", "reported", "patches-good", {"grip": 0.45}),
    ("mirror", "reported", "patches-good", {"mirrored_axis": 0}),
    ("stale", "reported", "patches-good", {"stale_chunks": 1}),
    ("blind", "reported", "patches-good", {"blind": ["left"]}),
    ("shaky", "reported", "thumbnails-good", {"noise": 0.5}),
)
"""Faults of trained members: what breaks in a lab that has a good policy."""


def train_population(
    store: str | Path,
    out: str | Path,
    robot: Any,
    *,
    roles: Sequence[str] = ROLES,
    steps_factor: float = 1.0,
    threads: int = 1,
    progress: bool = True,
) -> list[Member]:
    """Train what is missing of the population into ``out`` and write ``population.json``.

    steps_factor: of all training lengths, for a quick look. Calling again goes on.
    """
    from worldeval.policies.cloning.training import train_policies

    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise ConfigError(f"role is {unknown[0]!r}, expected some of {', '.join(ROLES)}")
    out = Path(out)
    base = BCTrainConfig(store=str(store), corrupted_share=0.0)
    configs = {
        recipe.name: replace(
            base,
            family=recipe.family,
            loop=replace(
                base.loop,
                steps=max(1, round(recipe.steps * steps_factor)),
                threads=threads,
                seed=number + 1,
            ),
            **recipe.settings,
        )
        for number, recipe in enumerate(RECIPES)
        if recipe.role in roles
    }
    folders = train_policies(configs, out, robot, progress=progress)
    members = [
        Member(
            name=recipe.name, family=recipe.family, role=recipe.role, uri=str(folders[recipe.name])
        )
        for recipe in RECIPES
        if recipe.name in folders
    ]
    for family, role, network, wrong in FAULTS:
        if network not in folders or role not in roles:
            continue
        name = f"{network}-{family}"
        arguments = {"name": name, **wrong}
        query = "&".join(f"{key}={_text(value)}" for key, value in arguments.items())
        uri = f"faulty:{folders[network]}?{query}"
        members.append(Member(name=name, family=f"fault {family}", role=role, uri=uri))
    write_population(out, members)
    return members


def write_population(folder: Path, members: Sequence[Member]) -> Path:
    """Write ``folder/population.json``; paths in it are as they were given."""
    text = json.dumps({"members": [asdict(member) for member in members]}, indent=1) + "\n"
    path = folder / FILE
    write_atomically(path, lambda staging: _write(staging, text))
    return path


def read_population(path: str | Path, role: str | None = None) -> list[Member]:
    """The members of a role (None: all) from a ``population.json`` or its folder."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        members = [Member(**entry) for entry in load_json(path)["members"]]
    except FileNotFoundError:
        raise DataError(f"there is no {path}; make it with `worldeval train population`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a population ({error}); make it anew") from error
    if role is None:
        return members
    if role not in ROLES:
        raise ConfigError(f"role is {role!r}, expected one of {', '.join(ROLES)}")
    return [member for member in members if member.role == role]


def families_of(path: str | Path) -> dict[str, str]:
    """Policy -> family, of all members of a population."""
    return {member.name: member.family for member in read_population(path)}


def _text(value: Any) -> str:
    return quote(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))


def _write(path: Path, text: str) -> None:
    path.write_text(text)
