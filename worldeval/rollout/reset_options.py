"""The options of ``reset``, checked before anything changes.

Enters: the dictionary that gymnasium hands through, in which a wrong name would be ignored. Leaves:
the start state of each rollout, by name, or a ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worldeval.data.matching import near
from worldeval.errors import ConfigError


def check_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> None:
    """Raise ConfigError for options that are not known."""
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"options of reset are a {type(options).__name__}, expected a dictionary with "
            f"{', '.join(known)}"
        )
    for name in options:
        if name not in known:
            found = near(str(name), known)
            hint = f" (did you mean {found!r}?)" if found else ""
            raise ConfigError(
                f"reset was given the option {name!r}{hint}, expected one of {list(known)}"
            )


def start_ids(options: Mapping[str, Any] | None, count: int) -> list[str | None]:
    """Where each of ``count`` rollouts begins; None for the next start state in turn.

    ``start_id`` and ``start_ids`` are one option under two names: a name for all rollouts, or one
    (or None) for each.
    """
    given = {n: v for n, v in (options or {}).items() if n in ("start_id", "start_ids")}
    if len(given) > 1:
        raise ConfigError("reset was given start_id and start_ids, expected one of them")
    for name, value in given.items():
        if value is None:
            continue
        # A numpy array of names is a sequence too, but not one of Python's.
        chosen = [value] * count if isinstance(value, str) else list(_listed(name, value))
        if len(chosen) != count or not all(one is None or isinstance(one, str) for one in chosen):
            rollouts = "1 rollout" if count == 1 else f"{count} rollouts"
            raise ConfigError(
                f"{name} of reset is {value!r} for {rollouts}, expected the name of a start state "
                f"for each (or one name for all)"
            )
        return [None if one is None else str(one) for one in chosen]
    return [None] * count


def _listed(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping) or not hasattr(value, "__len__"):
        raise ConfigError(
            f"{name} of reset is {value!r}, expected the names of start states, one per rollout"
        )
    return value
