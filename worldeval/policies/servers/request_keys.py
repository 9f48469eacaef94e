"""What a policy server wants to be sent, as data: which camera and which state under which key.

Enters: a TOML file, or the name of a camera. Leaves: ``RequestKeys``, and images resized as these
servers expect them. For a robot of one's own the file is all there is to write::

    action_space = "toy-delta-position"        openpi://host:8000?keys=my_robot.toml
    action_dim = 4
    rate_hz = 20.0
    image_size = [224, 224]                    [] sends images as they are
    [images]
    "observation/image" = "top"
    [state]
    "observation/state" = ["pose"]             several are joined into one
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldeval.data.files import read_text
from worldeval.errors import ConfigError
from worldeval.settings import settings_from

MOST_PIXELS = 4096
"""Of one side of an image that is sent; more is a slip, and would take all memory."""


@dataclass(frozen=True, kw_only=True)
class RequestKeys:
    """What a server wants to be sent, and what its actions are.

    images: key of the request -> camera of the robot. state: key -> names of the robot's states
    (see ``Observation.state``), joined in this order. image_size: (H, W) of the padded images; None
    sends them as they are. actions: key of the answer; None where the answer is the array itself.
    """

    images: Mapping[str, str]
    state: Mapping[str, tuple[str, ...]]
    action_space: str
    action_dim: int
    rate_hz: float
    image_size: tuple[int, int] | None = (224, 224)
    prompt: str = "prompt"
    actions: str | None = "actions"

    def __post_init__(self) -> None:
        size = self.image_size
        whole = size is None or (
            len(size) == 2 and all(type(n) is int and 0 < n <= MOST_PIXELS for n in size)
        )
        if not whole:
            raise ConfigError(
                f"image_size is {size!r}, expected (height, width) of at most {MOST_PIXELS} pixels "
                "each, or none"
            )
        names = [*self.images, *self.state, self.prompt]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:  # one would be sent in place of the other
            raise ConfigError(
                f"{(*twice, '')[0]!r} is the key of more than one thing or empty, expected"
                " a key of its own for each of images, state and prompt"
            )
        if empty := [key for key, states in self.state.items() if not states]:
            raise ConfigError(f"state {empty[0]!r} lists nothing, expected names of states")

    @property
    def state_keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for names in self.state.values() for name in names))


def droid_keys(exterior: str = "exterior_2") -> RequestKeys:
    """What openpi's DROID policies are sent. exterior: camera that is their exterior image."""
    return RequestKeys(
        images={
            "observation/exterior_image_1_left": exterior,
            "observation/wrist_image_left": "wrist",
        },
        state={
            "observation/joint_position": ("joint_position",),
            "observation/gripper_position": ("gripper_position",),
        },
        action_space="joint_velocity",
        action_dim=8,
        rate_hz=15.0,
    )


def read_keys(path: str | Path) -> RequestKeys:
    """A TOML file with the fields of ``RequestKeys``."""
    text = read_text(path, "file of keys", error=ConfigError)
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"keys {path}: it cannot be read as TOML ({error})") from error
    known = {field.name for field in dataclasses.fields(RequestKeys)}
    needed = ("images", "state", "action_space", "action_dim", "rate_hz")
    surplus, missing = sorted(set(table) - known), [n for n in needed if n not in table]
    if surplus or missing:
        raise ConfigError(
            f"keys {path}: it has {surplus or 'nothing'} too much and {missing or 'nothing'} too "
            f"little; its names are {', '.join(sorted(known))}"
        )
    try:
        table["state"] = {
            key: (names,) if isinstance(names, str) else tuple(names)
            for key, names in table["state"].items()
        }
        if "image_size" in table:
            table["image_size"] = tuple(table["image_size"]) or None
        wrong = [
            value
            for values in ([*table["images"].values()], *table["state"].values())
            for value in values
            if not isinstance(value, str)
        ]
        if wrong:
            raise TypeError(f"{wrong[0]!r} is no name of a camera or a state")
        return settings_from(RequestKeys, table)
    except (TypeError, AttributeError, ConfigError) as error:
        raise ConfigError(f"keys {path}: a value is of the wrong kind ({error})") from error


def resize_with_pad(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W, 3) uint8 at ``size`` without distortion, black at the edges; openpi's to the bit.

    Bilinear in Pillow's sense (it averages when it shrinks); the smaller side is rounded down and
    what is left over is halved, rounded down, for the first edge.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    (height, width), (rows, columns) = size, image.shape[:2]
    ratio = max(columns / width, rows / height)
    rows, columns = int(rows / ratio), int(columns / ratio)
    small = Image.fromarray(image).resize((columns, rows), resample=Image.Resampling.BILINEAR)
    padded = np.zeros((height, width, 3), np.uint8)
    top, left = max(0, int((height - rows) / 2)), max(0, int((width - columns) / 2))
    padded[top : top + rows, left : left + columns] = np.asarray(small)
    return padded
