"""Rules that select rollouts for training: named pure functions from tables to keys.

Enters: ``Tables`` of the rollouts that earlier rules kept, and the rule's own settings. Leaves: the
keys that it keeps, best first, each with its score. A new rule is one file in this folder::

    STAGE = "quick"                     # word of the funnel for what it keeps
    NEEDS = ("progress",)               # columns that must be measured for it
    def select(tables: Tables, *, most_frames: int = 20) -> pd.Series: ...   # keys -> scores

It is then ``--select NAME?most_frames=12``, where NAME is the file's name.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from worldeval import registry
from worldeval.errors import ConfigError
from worldeval.policies.arguments import split_arguments, values_for

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.synthesis.tables import Tables


@dataclass(frozen=True)
class Rule:
    """One rule. stage: word of the funnel. needs: columns that must be measured."""

    name: str
    stage: str
    needs: tuple[str, ...]
    select: Callable[..., pd.Series]


@dataclass(frozen=True)
class Chosen:
    """A rule with its settings."""

    rule: Rule
    settings: Mapping[str, Any]

    def __call__(self, tables: Tables) -> pd.Series:
        """Keys kept -> scores, best first."""
        return self.rule.select(tables, **self.settings)

    def __str__(self) -> str:
        """As it would be given, with every setting."""
        known = inspect.signature(self.rule.select).parameters.values()
        full = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY} | dict(self.settings)
        said = "&".join(f"{name}={json.dumps(value)}" for name, value in full.items())
        return f"{self.rule.name}?{said}" if said else self.rule.name


def known_rules() -> dict[str, Rule]:
    """Name -> rule, of every file in this folder."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        made = import_module(f"{__name__}.{module.name}")
        found[module.name] = Rule(module.name, made.STAGE, tuple(made.NEEDS), made.select)
    return dict(sorted(found.items()))


def chosen_rule(text: str) -> Chosen:
    """The rule that ``NAME?setting=value&...`` names. ConfigError for what is none, and for
    settings that the rule refuses: it is tried on no rollouts, for imagining takes hours."""
    from worldeval.synthesis.tables import no_rollouts

    name, arguments = split_arguments(text, "rule")
    rules = known_rules()
    if name not in rules:
        several = "; give each rule with a --select of its own" if "," in name else ""
        raise ConfigError(
            f"there is no rule {name!r} to select by{registry.did_you_mean(name, rules)}; there "
            f"are {', '.join(rules)}{several}"
        )
    select = rules[name].select
    known = [
        p.name for p in inspect.signature(select).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    for given in arguments:
        if given not in known:
            raise ConfigError(
                f"rule {name!r} has no setting {given!r}{registry.did_you_mean(given, known)}; it "
                f"has {', '.join(known) or 'none'}"
            )
    chosen = Chosen(rules[name], values_for(select, arguments, text, "rule"))
    chosen(no_rollouts())
    return chosen
