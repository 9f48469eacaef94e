"""One URI, one policy.

Enters: a URI and the robot. Leaves: a policy that ``check_policy`` has accepted for that robot::

    random  zero                             random?speed=0.3
    keyboard                                 at the terminal; ?keys=llduco plays them
    replay:STORE_DIR                         recorded actions; ?policy=NAME says whose
    replay-shuffled:STORE_DIR                other episodes' actions, as a control
    bc:CHECKPOINT_DIR   or the plain path    a cloned policy; ?name=NAME renames it
    faulty:FOLDER?gain=0.5                   a policy with something wrong, see faulty.py
    lerobot:FOLDER                           a policy that LeRobot trained, see lerobot.py
    openpi://HOST:PORT                       a policy behind an openpi server, see openpi.py
    roboarena://HOST:PORT                    ... or a RoboArena server, see roboarena.py
    openvla+http://HOST:PORT?unnorm_key=NAME  OpenVLA's /act, see http.py
    http://HOST:PORT/PATH                    ... or a schema of our own, see http.py
    groot://HOST:PORT                        GR00T's inference service, see groot.py
    vla-eval://HOST:PORT                     vla-evaluation-harness's servers, see vla_eval.py
    python:path/to/file.py:ClassName?k=v     a class or factory in a file
    python:package.module:factory            ... or in an importable module

Arguments after ``?`` go to the class by keyword; each is read as JSON (numbers, true, null) where
it is JSON and as text where not, and must be of the kind that the class annotates. A class or
factory that takes ``robot`` is given the robot. Modules beside a file (of a module: in the working
folder) can be imported as under ``python FILE.py``. What such a policy does to the process is its
own, see ``guard.py``. Other packages add schemes through the entry-point group
``worldeval.policies``: the entry's name is the scheme, its target is called like the built-in ones,
as ``target(rest, robot, **arguments)``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from worldeval import registry
from worldeval.errors import ConfigError, PolicyError, WorldEvalError
from worldeval.policies.arguments import Argument, split_arguments, values_for
from worldeval.policies.checking import check_policy
from worldeval.policies.guard import MAKING, Guard, Guarded, guarded, words
from worldeval.policies.watching import TimeIsUp
from worldeval.robots import RobotSpec
from worldeval.types import Policy

ALONE: dict[str, str] = {
    "random": "worldeval.policies.scripted:RandomPolicy",
    "zero": "worldeval.policies.scripted:ZeroPolicy",
    "keyboard": "worldeval.policies.keyboard:KeyboardPolicy",
}
"""Schemes with nothing after them: target(robot, **arguments)."""

WITH_PLACE: dict[str, str] = {
    "replay": "worldeval.policies.replay:ReplayPolicy",
    "replay-shuffled": "worldeval.policies.replay:ShuffledReplayPolicy",
    "bc": "worldeval.policies.cloning.behaviour_cloning:load",
    "faulty": "worldeval.policies.faulty:load",
    "lerobot": "worldeval.policies.lerobot:LeRobotPolicy",
    "openpi": "worldeval.policies.servers.openpi:load",
    "roboarena": "worldeval.policies.servers.roboarena:load",
    "openvla+http": "worldeval.policies.servers.http:load_openvla",
    "http": "worldeval.policies.servers.http:load",
    "https": "worldeval.policies.servers.http:load_tls",
    "groot": "worldeval.policies.servers.groot:load",
    "vla-eval": "worldeval.policies.servers.vla_eval:load",
}
"""Schemes that name a place: target(place, robot, **arguments)."""
_PASSED = (WorldEvalError, KeyboardInterrupt, TimeIsUp)
"""What comes through from a stranger's module or constructor as it is."""
SERVERS = ("openpi", "roboarena", "openvla+http", "http", "https", "groot", "vla-eval")
"""Those whose place is a host and a port."""


def load_policy(uri: str, robot: RobotSpec, *, limit_s: float | None = None) -> Policy:
    """The policy that ``uri`` names, checked against ``robot``; see the module docstring.

    limit_s: seconds that a call of it may last, and making it ``MAKING`` times as long; nobody
    watches if None. A stranger's policy (python:, other packages') is returned within its guard.
    """
    head, arguments = split_arguments(uri)
    scheme, colon, rest = head.partition(":")
    waits = scheme in (*SERVERS, "keyboard")  # as long as its own arguments say
    guard = Guard(repr(uri), folder=_folder(scheme, rest), limit_s=None if waits else limit_s)
    with guard.around("making it", times=MAKING):
        policy, foreign = _make(uri, head, arguments, robot, guard)
        try:
            check_policy(policy, robot)
        except WorldEvalError:
            raise
        except Exception as error:  # a spec whose fields are of other kinds than PolicySpec says
            raise PolicyError(
                f"policy {uri!r} has a spec that cannot be read ({words(error)}); see "
                "worldeval.types.PolicySpec"
            ) from error
        if foreign:
            policy = Guarded(policy, guard)
    return policy if limit_s is None else guarded(policy, limit_s)


def _folder(scheme: str, rest: str) -> Path | None:
    """Where the modules lie that a policy of this URI may import beside all others."""
    if scheme != "python":
        return None
    where = rest.rpartition(":")[0]
    return Path(where).expanduser().resolve().parent if where.endswith(".py") else Path.cwd()


def _make(
    uri: str, head: str, arguments: dict[str, Argument], robot: RobotSpec, guard: Guard
) -> tuple[Any, bool]:
    """The policy, and whether it is a stranger's."""
    scheme, colon, rest = head.partition(":")
    if scheme in ALONE:
        if rest:
            raise ConfigError(
                f"policy {uri!r}: {scheme!r} takes nothing after it; write "
                f"{scheme!r} or {scheme + '?name=value'!r}"
            )
        return _call(_resolve(ALONE[scheme]), (robot,), arguments, uri), False
    if scheme in WITH_PLACE:
        if not rest:
            place = "//HOST:PORT" if scheme in SERVERS else "FOLDER"
            raise ConfigError(f"policy {uri!r} names no place; write {scheme}:{place}")
        return _call(_resolve(WITH_PLACE[scheme]), (rest, robot), arguments, uri), False
    if scheme == "python":
        return _from_python(rest, robot, arguments, uri, guard), True
    if colon and (found := _entry_point(scheme)) is not None:
        return _call(found, (rest, robot), arguments, uri, foreign=True), True
    if (Path(head) / "config.json").is_file():
        return _call(_resolve(WITH_PLACE["bc"]), (head, robot), arguments, uri), False
    if not colon and (found := _entry_point(scheme)) is not None:
        return _call(found, ("", robot), arguments, uri, foreign=True), True
    raise _unknown(uri, head, scheme)


def schemes() -> list[str]:
    """Every scheme that ``load_policy`` knows here, third parties' included."""
    return sorted({*ALONE, *WITH_PLACE, "python", *(e.name for e in _entries())})


def _unknown(uri: str, head: str, scheme: str) -> WorldEvalError:
    path = Path(head)
    if path.suffix == ".py" or ".py:" in head:
        return ConfigError(
            f"policy {uri!r} looks like a Python file; write "
            f"python:{head if '.py:' in head else head + ':ClassName'}"
        )
    if path.exists():
        return PolicyError(
            f"{head} is no policy checkpoint (there is no config.json); give a "
            "folder that `worldeval train policy` wrote"
        )
    if "/" in head:
        return PolicyError(
            f"policy {uri!r} is neither a checkpoint folder that exists nor a known "
            f"scheme; known schemes are {', '.join(schemes())}"
        )
    return ConfigError(
        f"unknown policy {uri!r}{_did_you_mean(scheme, schemes())}; known schemes "
        f"are {', '.join(schemes())}, or give the folder of a checkpoint"
    )


def _from_python(
    rest: str, robot: RobotSpec, arguments: dict[str, Argument], uri: str, guard: Guard
) -> Any:
    where, colon, attribute = rest.rpartition(":")
    if not colon or not where or not attribute:
        raise ConfigError(
            f"policy {uri!r}: expected python:FILE.py:ClassName or python:package.module:factory"
        )
    module = _module(where, uri, guard)
    target = getattr(module, attribute, None)
    if target is None:
        names = [
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_")
        ]
        raise PolicyError(
            f"{where} has no {attribute!r}{_did_you_mean(attribute, names)}; it has "
            f"{', '.join(names) or 'no class or function'}"
        )
    if not callable(target):
        raise PolicyError(
            f"{where}:{attribute} is {type(target).__name__}, expected a class or a "
            "function that returns a policy"
        )
    if "robot" in _parameters(target):
        arguments = {"robot": Argument("robot", robot), **arguments}
    return _call(target, (), arguments, uri, foreign=True)


def _module(where: str, uri: str, guard: Guard) -> ModuleType:
    importlib.invalidate_caches()  # files may have been written since the last import
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where).expanduser().resolve()
        if not path.is_file():
            raise PolicyError(f"policy {uri!r}: there is no file {path}; check its path")
        name = "worldeval_policy_" + hashlib.sha256(str(path).encode()).hexdigest()[:12]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # true of every .py file
        module = importlib.util.module_from_spec(spec)
        guard.neighbours.add(module)  # dataclasses look their module up by name
        spec.loader.exec_module(module)
        return module
    except _PASSED:
        raise
    except BaseException as error:  # whatever a stranger's module raises is theirs
        raise PolicyError(
            f"policy {uri!r}: {where} cannot be imported ({words(error)}); correct it or its path"
        ) from error


def _call(
    target: Callable[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Argument],
    uri: str,
    *,
    foreign: bool = False,
) -> Any:
    known = _parameters(target)
    for name in arguments:
        if known and name not in known and "**" not in known:
            offered = known[len(positional) :]
            raise ConfigError(
                f"policy {uri!r} takes no argument {name!r}"
                f"{_did_you_mean(name, offered)}; it takes "
                f"{', '.join(offered) or 'none'}"
            )
    values = values_for(target, arguments, uri)
    if not foreign:
        return target(*positional, **values)
    try:
        return target(*positional, **values)
    except _PASSED:
        raise
    except BaseException as error:  # a stranger's constructor may raise anything
        raise PolicyError(
            f"policy {uri!r} could not be made ({words(error)}); "
            "correct its arguments or its __init__"
        ) from error


def _parameters(target: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some builtins have none to show
        return []
    return ["**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def _resolve(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _entries() -> Iterable[Any]:
    return registry.entries("policies").values()


def entry_of(scheme: str) -> Any:
    """The entry point by which another package adds a scheme; None if none does."""
    return next((entry for entry in _entries() if entry.name == scheme), None)


def _entry_point(scheme: str) -> Callable[..., Any] | None:
    entry = entry_of(scheme)
    if entry is None:
        return None
    try:
        loaded: Callable[..., Any] = entry.load()
    except _PASSED:
        raise
    except BaseException as error:  # a stranger's package may fail in any way
        raise PolicyError(
            f"scheme {scheme!r} comes from {entry.value}, which cannot be imported "
            f"({words(error)}); repair or uninstall that package"
        ) from error
    return loaded


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    hint = registry.did_you_mean(word, known)
    return f" ({hint[2:]})" if hint else ""
