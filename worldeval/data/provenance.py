"""``run.json``: what made an output folder, so that it can be repeated, or continued unchanged.

Enters: the command, its configuration and its seed. Leaves: a manifest beside the output with the
configuration, versions, git state, arguments, time and machine. A folder that was begun with other
settings is refused: a resumed run must equal an uninterrupted one. Nothing heavy is imported;
versions come from package metadata.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import worldeval
from worldeval.data.files import load_json
from worldeval.errors import ConfigError, StoreError

log = logging.getLogger(__name__)

MANIFEST = "run.json"
_FORMAT = "worldeval-run-1"
_PACKAGES = (
    "worldeval",
    "numpy",
    "torch",
    "pandas",
    "pyarrow",
    "av",
    "opencv-python-headless",
    "safetensors",
    "accelerate",
    "gymnasium",
    "metaworld",
    "mujoco",
)
_ABSENT = "(absent)"
_EMPTY_STORE = {("meta", "info.json"), ("meta", "tasks.parquet")}

Content = Mapping[str, Mapping[str, str]]
"""Thing -> part -> digest."""


def write_manifest(
    folder: str | Path,
    *,
    command: str,
    config: Any,
    seed: int | None,
    extra: Mapping[str, Any] | None = None,
    content: Content | None = None,
    allow_changes: bool | Collection[str] = (),
    grows: Mapping[str, str] | None = None,
    idle: Mapping[str, Collection[str]] | None = None,
) -> Path:
    """Write ``folder/run.json`` atomically and return its path.

    config: a dataclass or mapping; paths, enums, tuples and numpy scalars become JSON.
    extra: free JSON beside it (device, checkpoints, ...), not compared.
    content: what the settings name and what decides the result: thing -> part -> digest
        (``data/digests.py``), as {"policy bc:runs/mine": {"runs/mine": "3fa9..."}}.
    allow_changes: dotted names of settings that may differ from those of an earlier run in the
        folder ("workers", "suite.name"), or True for any.
    grows: settings that are mappings to which entries may be added later, each with what the
        content of its entries is called before their names ({"policies": "policy "}). Entries of
        earlier runs that are not given now are kept; one that is given must be as it was.
    idle: of settings that grow, the entries that made nothing so far: they may be other ones now.

    In a folder that already holds a manifest, the command, the seed and every other setting must
    be equal, and all content, else ConfigError names the first that differs. Of content that an
    earlier version did not digest a line is logged: nobody knows whether it has changed. Times of
    continuing are appended under ``resumed``; ``time`` stays that of the first run, and so does
    ``id``, by which runs that are alike in all else are told apart (``same_run``). A folder that
    holds nothing but its manifest, because the command failed before it did anything, is begun
    anew.
    """
    folder = Path(folder)
    settings = {"command": command, "seed": seed, "config": jsonable(config)}
    now = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv),
        "git": git_state(),
        "versions": versions(),
        "machine": machine(),
    }
    manifest = {"format": _FORMAT, "id": uuid.uuid4().hex, **settings, **now}
    manifest |= {"extra": jsonable(extra or {}), "resumed": []}
    manifest["content"] = jsonable(content or {})
    path = folder / MANIFEST
    earlier = read_manifest(folder) if path.exists() else None
    if earlier is not None and _has_results(folder):
        _forget(earlier, grows or {}, idle or {})
        content = _grow(settings["config"], content or {}, earlier, grows or {})
        manifest["content"] = jsonable(content)
        if allow_changes is not True:
            added = _added(settings["config"], earlier, grows or {})
            _refuse_changes(earlier, settings, folder, {*(allow_changes or ()), *added})
            manifest["unchecked"] = _refuse_other_content(earlier, content, folder, added)
        began = {k: earlier[k] for k in ("id", *now) if k in earlier}
        if "spent" in earlier:
            manifest["spent"] = earlier["spent"]
        manifest = {**manifest, **began, "resumed": [*earlier.get("resumed", []), now]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"output folder {str(folder)!r} cannot be made ({error.strerror or error}); choose a "
            "folder that you may write to"
        ) from error
    return write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _has_results(folder: Path) -> bool:
    """Whether any file lies in the folder but the manifest, hidden ones, and what a store begins
    with: one that holds an episode has other files too."""
    return any(
        path.is_file()
        and path.name != MANIFEST
        and not path.name.startswith(".")
        and path.relative_to(folder).parts[-2:] not in _EMPTY_STORE
        for path in folder.rglob("*")
    )


@contextlib.contextmanager
def naming_the_manifest(folder: Path) -> Iterator[None]:
    """A ConfigError on what stands in the folder's manifest says so."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            f"{str(folder / MANIFEST)!r} is damaged ({error}); restore it from a copy, or choose "
            "another folder"
        ) from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of an output folder. ConfigError if there is none or it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        manifest = load_json(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{str(folder)!r} has no {MANIFEST}, expected the output folder of a worldeval command"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read ({error}); delete it if the output in "
            "its folder is not needed, or choose another folder"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ConfigError(f"{str(path)!r} is not a manifest of worldeval ({_FORMAT})")
    for name, kind, expected in (
        ("config", dict, "an object"),
        ("extra", dict, "an object"),
        ("resumed", list, "a list"),
    ):
        if not isinstance(manifest.get(name, kind()), kind):
            raise ConfigError(
                f"{str(path)!r} has {name} = {manifest[name]!r:.80}, expected {expected}; delete "
                "it if the output in its folder is not needed, or choose another folder"
            )
    return manifest


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two manifests are of one run, continued or not. Those of earlier versions have no
    ``id``; the second in which they were begun and their arguments must do."""
    told = ("id",) if "id" in one and "id" in other else ("time", "argv")
    return all(one.get(name) == other.get(name) for name in told)


def write_atomically(path: str | Path, text: str) -> Path:
    """Write a text file so that a kill leaves the old or the new one. StoreError if it cannot."""
    path = Path(path)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(staging, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
        raise StoreError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); free some space or "
            "choose a folder that you may write to"
        ) from error
    return path


def jsonable(value: Any) -> Any:
    """The value as JSON knows it: dataclasses as objects, paths and enums as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(jsonable(v) for v in value)
    if isinstance(value, enum.Enum):
        return jsonable(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return jsonable(value.tolist())
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, float):  # JSON has neither NaN nor infinity
        return value if value == value and abs(value) != float("inf") else str(value)
    raise ConfigError(
        f"a setting of type {type(value).__name__} ({value!r}) cannot be kept as "
        "JSON, expected numbers, text, paths, lists, mappings or dataclasses"
    )


def versions() -> dict[str, str | None]:
    """Python and the packages that matter; None where not installed. Imports none of them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the code that runs and whether it was changed since; None if it is not in git."""
    package = Path(worldeval.__file__).resolve().parent
    root = _git(package, "rev-parse", "--show-toplevel")
    # An installed copy may lie inside somebody else's repository: that is not our history.
    if root is None or Path(root).resolve() != package.parent:
        return None
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(package, "rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if changed is None else bool(changed),
    }


def machine() -> dict[str, Any]:
    """Processor count and memory, as far as the system tells."""
    try:
        ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        ram_bytes = None
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable(0)) if usable else os.cpu_count(),
        "ram_bytes": ram_bytes,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _refuse_changes(
    earlier: Mapping[str, Any], now: Mapping[str, Any], folder: Path, allowed: Collection[str]
) -> None:
    for name, old, new in _differences(
        {k: earlier.get(k, _ABSENT) for k in now}, json.loads(json.dumps(now)), ""
    ):
        name = name.removeprefix("config.")
        parts = name.split(".")
        if name in allowed or any(".".join(parts[: i + 1]) in allowed for i in range(len(parts))):
            continue
        raise ConfigError(
            f"folder {str(folder)!r} was begun with {name} = {old!r}, now it is {new!r}; use the "
            "same settings to continue it, or choose another folder"
        )


def _forget(
    earlier: Mapping[str, Any], grows: Mapping[str, str], idle: Mapping[str, Collection[str]]
) -> None:
    """Take entries that made nothing out of the manifest of an earlier run."""
    for name, keys in idle.items():
        for key in keys:
            (earlier["config"].get(name) or {}).pop(key, None)
            (earlier.get("content") or {}).pop(grows[name] + key, None)


def _grow(
    config: dict[str, Any], content: Content, earlier: Mapping[str, Any], grows: Mapping[str, str]
) -> Content:
    """Add to ``config`` the entries of earlier runs; the content, with theirs."""
    kept: dict[str, Mapping[str, str]] = {}
    for name, prefix in grows.items():
        before = earlier["config"].get(name) or {}
        left = {key: value for key, value in before.items() if key not in config[name]}
        config[name] = {**left, **config[name]}
        known = earlier.get("content") or {}
        kept |= {prefix + key: known[prefix + key] for key in left if prefix + key in known}
    return {**kept, **content}


def _added(
    config: Mapping[str, Any], earlier: Mapping[str, Any], grows: Mapping[str, str]
) -> dict[str, str]:
    """The entries that no earlier run had: dotted name of the setting -> name of the content."""
    return {
        f"{name}.{key}": prefix + key
        for name, prefix in grows.items()
        for key in config[name]
        if key not in (earlier["config"].get(name) or {})
    }


def _refuse_other_content(
    earlier: Mapping[str, Any], now: Content, folder: Path, added: Mapping[str, str]
) -> list[str]:
    """Raise ConfigError for the first part that is another; the things that nobody can compare."""
    kept = earlier.get("content") or {}
    for thing, parts in now.items():
        before = kept.get(thing, parts)
        for part in dict.fromkeys((*before, *parts)):
            old, new = before.get(part), parts.get(part)
            if old != new:
                raise ConfigError(
                    f"folder {str(folder)!r} was begun with another {thing}: {part} "
                    f"was {old or 'not there'} then and is {new or 'not there'} now (sha256), so "
                    "what lies there is not of this one; choose another folder for this, or "
                    "restore what was there to continue"
                )
    unknown = sorted(
        {*earlier.get("unchecked", ()), *(now.keys() - kept.keys() - {*added.values()})}
    )
    if unknown:
        log.warning(
            "%s was begun by a version that kept no digest of %s: whether that has changed since "
            "cannot be checked",
            folder,
            ", ".join(unknown),
        )
    return unknown


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting or content in which two manifests differ, with both values, or None."""
    parts = ("seed", "config", "content")
    found = _differences({k: one.get(k) for k in parts}, {k: other.get(k) for k in parts}, "")
    return found[0] if found else None


def _differences(old: Any, new: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*new, *(k for k in old if k not in new)]:
            inner = f"{name}.{key}" if name else key
            if key not in old and new[key] is None:
                continue  # a setting that earlier versions did not have, and that is not given
            found += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            d
            for i, pair in enumerate(zip(old, new, strict=True))
            for d in _differences(*pair, f"{name}.{i}")
        ]
    return [] if old == new else [(name, _short(old), _short(new))]


def _short(value: Any) -> Any:
    """A list of 300 start states does not belong into one sentence."""
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    return value
