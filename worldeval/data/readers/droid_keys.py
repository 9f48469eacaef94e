"""How a LeRobot dataset of DROID spells its columns: key maps are data (``key_maps/*.json``).

Enters: a JSON file. Leaves: a ``KeyMap`` that says whether it fits the features of a dataset.
DROID goes around under rival names, and a wrong guess would be a silent mix-up, so widths are
compared too, a map must fit entirely, and a dataset that no map fits is refused with the keys that
it has. Users give their own map as a file of the same form::

    {"name": "mine",
     "views": {"exterior_1": "camera.left", "exterior_2": "camera.right", "wrist": "camera.hand"},
     "cartesian_position": {"column": "state", "width": 14, "from": 0, "to": 6},
     "joint_position":     {"column": "state", "width": 14, "from": 6, "to": 13},
     "gripper":            {"column": "state", "width": 14, "from": 13, "to": 14},
     "actions": {"joint_velocity": {"column": "action", "width": 7}},
     "instructions": ["language_instruction"], "success": "done_well", "control_hz": 15}

``cartesian_position`` may be left out where there are joints (forward kinematics gives it);
``actions``, ``instructions``, ``success`` and ``control_hz`` may be left out altogether, the last
for what ``info.json`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldeval.data.readers.lerobot_columns import key_map_content
from worldeval.errors import ConfigError, DataError
from worldeval.motion.panda import VIEWS

FOLDER = Path(__file__).parent / "key_maps"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of ``width`` numbers, and the part [first, last) of it that is meant."""

    name: str
    width: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Where a dataset keeps what we need; see the module's docstring."""

    name: str
    views: Mapping[str, str]
    gripper: Column
    cartesian_position: Column | None = None
    joint_position: Column | None = None
    actions: Mapping[str, Column] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    success: str | None = None
    control_hz: float | None = None

    def __post_init__(self) -> None:
        if set(self.views) != set(VIEWS):
            raise ConfigError(
                f"key map {self.name!r}: views are {sorted(self.views)}, expected "
                f"{', '.join(VIEWS)}"
            )
        if self.cartesian_position is None and self.joint_position is None:
            raise ConfigError(
                f"key map {self.name!r} has neither cartesian_position nor joint_position; name "
                "the column of one"
            )
        widths = (("cartesian_position", 6), ("joint_position", 7), ("gripper", 1))
        for name, expected in widths:
            column = getattr(self, name)
            if column is not None and column.last - column.first != expected:
                raise ConfigError(
                    f"key map {self.name!r}: {name} takes {column.last - column.first} numbers of "
                    f"{column.name!r}, expected {expected}"
                )

    def lacking(self, features: Mapping[str, Any]) -> list[str]:
        """What this map wants and the dataset does not have; an empty list if it fits."""
        columns = [self.gripper, *self.actions.values()]
        columns += [c for c in (self.cartesian_position, self.joint_position) if c is not None]
        missing = [view for view in self.views.values() if view not in features]
        for column in columns:
            feature = features.get(column.name)
            shape = feature.get("shape") if isinstance(feature, Mapping) else None
            if feature is None:
                missing.append(column.name)
            elif shape not in ([column.width], (column.width,)):
                missing.append(f"{column.name} of width {column.width} (it has {shape!r})")
        return list(dict.fromkeys(missing))


def read_key_map(path: str | Path) -> KeyMap:
    """A key map from its JSON file. Raises ConfigError naming what is wrong."""
    path = Path(path)
    known = {
        "name", "source", "views", "cartesian_position", "joint_position", "gripper", "actions",
        "instructions", "success", "control_hz",
    }  # fmt: skip
    content = key_map_content(path, known)
    try:
        return KeyMap(
            name=content.get("name", path.stem),
            views=dict(content["views"]),
            gripper=_column(content["gripper"]),
            cartesian_position=_optional(content.get("cartesian_position")),
            joint_position=_optional(content.get("joint_position")),
            actions={name: _column(c) for name, c in content.get("actions", {}).items()},
            instructions=tuple(content.get("instructions", ())),
            success=content.get("success"),
            control_hz=content.get("control_hz"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"key map {path} is incomplete ({type(error).__name__}: {error}); write it like "
            f"{FOLDER / 'droid_1_0_1.json'}"
        ) from error


def known_key_maps() -> list[KeyMap]:
    """The maps that come with worldeval, the most specific first."""
    maps = [read_key_map(path) for path in sorted(FOLDER.glob("*.json"))]
    return sorted(maps, key=lambda m: m.cartesian_position is None)


def choose_key_map(
    features: Mapping[str, Any], maps: Sequence[KeyMap], where: Path | str
) -> KeyMap:
    """The first map that fits. Raises DataError with the keys found and the maps tried."""
    for candidate in maps:
        if not candidate.lacking(features):
            return candidate
    tried = "; ".join(f"{m.name} lacks {', '.join(m.lacking(features))}" for m in maps)
    found = ", ".join(f"{name} {feature.get('shape')}" for name, feature in features.items())
    raise DataError(
        f"{where}: no key map fits. Found {found}. Tried {tried}. Write a map of your own like "
        f"{FOLDER / 'droid_1_0_1.json'} and give it (--key-map FILE)"
    )


def _column(content: Mapping[str, Any]) -> Column:
    width = int(content["width"])
    first, last = int(content.get("from", 0)), int(content.get("to", width))
    if not 0 <= first < last <= width:
        raise ConfigError(
            f"key map: column {content['column']!r} takes {first}..{last} of {width} numbers"
        )
    return Column(name=str(content["column"]), width=width, first=first, last=last)


def _optional(content: Mapping[str, Any] | None) -> Column | None:
    return None if content is None else _column(content)
