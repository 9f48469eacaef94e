"""Policies as they are given to an evaluation: URIs, folders, classes, or objects that act already.

Enters: what a user names, and the robot. Leaves: ``Opened`` policies, checked and guarded, with the
name that run.json calls each by and the digests of what decides how it acts. An object is known by
less than a URI: by the source of its class and by its networks' weights, and that is told when its
rollouts are continued.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from worldeval.data import digests
from worldeval.errors import ConfigError
from worldeval.evaluation.opening import fingerprint
from worldeval.evaluation.policy_options import PolicyOptions, close_policies
from worldeval.types import Judge, Policy

if TYPE_CHECKING:
    from worldeval.robots import RobotSpec

Given: TypeAlias = str | Path | Policy | Callable[..., Policy]
"""A URI or a folder, an object that acts, or a class or function that makes one (of ``robot``, if
it takes one)."""
EXPECTED = "expected a URI or the folder of a checkpoint, or a policy (spec, reset, act, close)"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A policy that is ready, and by what it is known again."""

    uri: str
    policy: Policy
    lent: bool = False
    """It was given as an object: who made it closes it."""

    @property
    def fingerprint(self) -> str | None:
        return None if self.lent else fingerprint(self.uri)

    def content(self, but: Path) -> dict[str, str]:
        """Part -> digest of what decides how it acts. but: the folder of the rollouts."""
        from worldeval.policies.content import policy_content

        if not self.uri.startswith(OBJECT):
            return policy_content(self.uri, but=but)
        inner = getattr(self.policy, "_policy", self.policy)
        return {**_code(type(inner)), **_weights(inner)}


OBJECT = "object:"


def as_list(policies: Any) -> list[Given]:
    """One policy or several, as a list. ConfigError for what is neither."""
    if isinstance(policies, (str, Path)) or hasattr(policies, "act") or callable(policies):
        return [policies]
    if not isinstance(policies, Iterable) or isinstance(policies, (bytes, dict)):
        raise ConfigError(f"policies is {_short(policies)}, {EXPECTED}, or a list of them")
    return list(policies)


def open_policies(
    given: Sequence[Given], robot: RobotSpec, guard: PolicyOptions
) -> tuple[Opened, ...]:
    """All policies, in their order; if one cannot be opened, the others are closed again."""
    opened: list[Opened] = []
    try:
        for number, one in enumerate(given):
            if isinstance(one, (str, Path)):
                opened.append(Opened(uri=str(one), policy=guard.open(str(one), robot)))
            else:
                opened.append(_object(one, f"policies[{number}]", robot, guard))
    except BaseException:
        close_policies(one.policy for one in opened if not one.lent)
        raise
    return tuple(opened)


def open_judge(judge: Any) -> Judge:
    """The judge of a URI or a folder, or the object that judges. ConfigError for others."""
    from worldeval.judging.loading import load_judge

    if isinstance(judge, (str, Path)):
        return load_judge(judge)
    if not (hasattr(judge, "judge") and isinstance(getattr(judge, "name", None), str)):
        raise ConfigError(
            f"judge is {_short(judge)}, expected what `worldeval judge` takes, or an object with a "
            "name and judge(episodes)"
        )
    known: Judge = judge
    return known


def _object(given: Any, name: str, robot: RobotSpec, guard: PolicyOptions) -> Opened:
    from worldeval.policies.checking import check_policy
    from worldeval.policies.guard import Guard, Guarded, guarded, words

    if guard.isolate:
        raise ConfigError(
            f"{name} is an object of this process, so it cannot be isolated; give it as "
            "'python:FILE.py:CLASS', or leave isolate out"
        )
    lent = hasattr(given, "act") and not isinstance(given, type)
    policy = given
    if not lent:
        if not callable(given):
            raise ConfigError(f"{name} is {_short(given)}, {EXPECTED}")
        try:
            policy = given(**_arguments(given, robot))
        except Exception as error:  # a stranger's constructor may raise anything
            raise ConfigError(
                f"{name} ({_called(given)}) could not be made ({words(error)}); give an object, or "
                "a class that needs nothing but `robot`"
            ) from error
    check_policy(policy, robot)
    kind = type(policy)
    uri = f"{OBJECT}{kind.__module__}.{kind.__qualname__}:{policy.spec.name}"
    if not isinstance(policy, Guarded):
        policy = Guarded(policy, Guard(repr(policy.spec.name)))
    return Opened(uri=uri, policy=guarded(policy, guard.limit_s), lent=lent)


def _arguments(made_by: Any, robot: RobotSpec) -> dict[str, Any]:
    try:
        parameters = inspect.signature(made_by).parameters
    except (TypeError, ValueError):  # some builtins have none to show
        return {}
    return {"robot": robot} if "robot" in parameters else {}


def _called(given: Any) -> str:
    return str(getattr(given, "__qualname__", type(given).__qualname__))


def _code(kind: type) -> dict[str, str]:
    """The source of a class and of those it is made of, where it can be read (not of a shell's)."""
    parts = {}
    for one in kind.__mro__:
        try:
            source = inspect.getsource(one)
        except (OSError, TypeError):
            continue
        parts[f"class {one.__qualname__}"] = digests.of_bytes(source.encode())
    return parts


def _weights(policy: Any) -> dict[str, str]:
    """The weights of the torch networks that an object is, or has for attributes."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    parts = {}
    for name, value in {"itself": policy, **getattr(policy, "__dict__", {})}.items():
        if isinstance(value, torch.nn.Module):
            tensors = [t.detach().cpu().contiguous() for t in value.state_dict().values()]
            arrays = (t.reshape(-1).view(torch.uint8).numpy() for t in tensors)
            parts[f"weights of {name}"] = digests.of_arrays(*arrays)
    return parts


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:60] + '...'} ({type(value).__name__})"
