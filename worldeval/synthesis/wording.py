"""Other words for an instruction, offline: a grammar of verbs, nouns and ways to ask.

Enters: an instruction, how else the suite asks for the same task, and a generator of random
numbers. Leaves: a text with the same meaning. A word is replaced by one that may always stand in
its place; where nothing can be, the way of asking changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from worldeval.errors import ConfigError

FRAMES = (
    "{0}", "please {0}", "{0}, please", "now {0}", "can you {0}?", "go ahead and {0}",
    "your task is to {0}", "the robot should {0}", "i want you to {0}", "try to {0}",
)  # fmt: skip
VERBS = {
    "pick up": ("grasp", "lift", "grab"),
    "put down": ("set down", "lay down"),
    "reach to": ("reach for", "reach towards"),
    "close": ("shut",),
    "shut": ("close",),
    "rotate": ("turn",),
    "turn": ("rotate",),
    "grasp": ("grab", "pick up"),
    "grab": ("grasp", "pick up"),
    "lift": ("raise",),
    "place": ("put", "set"),
    "put": ("place", "set"),
    "push": ("shove",),
    "touch": ("make contact with",),
}
"""What an instruction may begin with -> what may stand there instead. Longer ones first."""
NOUNS = {
    "the faucet": ("the tap",),
    "the tap": ("the faucet",),
    "the red ball": ("the red sphere",),
    "the box": ("the container",),
    "the mug": ("the cup",),
    "the cup": ("the mug",),
    "from above": ("from the top",),
}
TRIES = 20


def reworded(instruction: str, known: Sequence[str], rng: np.random.Generator) -> str:
    """Another text for ``instruction``; ``known``: how else the suite asks for the same task.

    Raises ConfigError for an instruction without words.
    """
    if not instruction.strip():
        raise ConfigError(
            "an instruction is empty, so no other words can be found for it; set reworded = 0 "
            "and instructions = told, or give a suite with instructions"
        )
    others = sorted({text for text in known if text.strip()} | {instruction})
    for _ in range(TRIES):
        core = _replaced(others[rng.integers(len(others))], rng)
        text = FRAMES[rng.integers(len(FRAMES))].format(core)
        if text != instruction:
            return text
    return FRAMES[1].format(instruction)


def _replaced(text: str, rng: np.random.Generator) -> str:
    """``text`` with half of what can be replaced in it replaced."""
    for verb, choices in VERBS.items():
        if re.match(rf"{verb}\b", text, re.IGNORECASE):
            if rng.random() < 0.5:
                text = choices[rng.integers(len(choices))] + text[len(verb) :]
            break
    for noun, choices in NOUNS.items():
        if rng.random() < 0.5 and re.search(rf"\b{noun}\b", text):
            text = re.sub(rf"\b{noun}\b", choices[rng.integers(len(choices))], text, count=1)
            break
    return text
