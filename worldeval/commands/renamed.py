"""Options as earlier versions spelled them: they still work, or say what took their place.

Enters: a verb and the words after it. Leaves: the words as this version spells them. Help texts
show the spelling of today only.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.errors import ConfigError

RENAMED = {("rank", "against"): "--truth", ("trust", "against"): "--truth"}
DEFAULTS = {("evaluate", "controls")}
"""What is the default, and may be said."""
GONE = {
    (
        "rank",
        option,
    ): "roll out until the order is sure with `worldeval evaluate --until-sure order "
    "--policy A --policy B --out FOLDER` (or best), which ranks too"
    for option in ("stop-when-sure", "policy", "world", "world-model", "suite")
}


def as_today(verb: str, words: Sequence[str]) -> list[str]:
    """``words`` with every option of an earlier version under its name of today.

    Raises ConfigError for one that is gone, with what does its work now.
    """
    now = []
    for word in words:
        head, equals, value = word.partition("=")
        option = head[2:].replace("_", "-") if head.startswith("--") else ""
        if (verb, option) in GONE:
            raise ConfigError(f"`worldeval {verb}` has no {head} any more: {GONE[verb, option]}")
        if (verb, option) in DEFAULTS and not equals:
            continue
        renamed = RENAMED.get((verb, option))
        now.append(word if renamed is None else f"{renamed}{equals}{value}")
    return now
