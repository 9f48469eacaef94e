"""What JSON can hold of numbers that are none.

Enters: dataclasses, mappings, sequences and plain values. Leaves: the same as JSON knows it, with
null for NaN and the infinities.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """``value`` with None for every float that is not finite; dataclasses become dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def not_finite(value: Any, name: str = "") -> str | None:
    """Where the first number that is none stands in a JSON value, such as ``pose_low[2]``."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name}[{place}]", item) for place, item in enumerate(value)]
    else:
        return name if isinstance(value, float) and not math.isfinite(value) else None
    return next((found for key, item in items if (found := not_finite(item, key))), None)
