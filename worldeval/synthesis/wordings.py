"""Who finds other words for an instruction: the grammar, or a model behind an endpoint.

Enters: ``templates`` or the URI of an OpenAI-compatible endpoint. Leaves: a function for
``planning.plan``. What a model answered is kept in a file, since a second answer would be another:
it is asked once per instruction, before anything is imagined.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldeval.data.files import parsed_json, read_json
from worldeval.data.provenance import write_atomically
from worldeval.errors import ConfigError, DataError, JudgeError
from worldeval.judging.vlm.client import ChatClient
from worldeval.judging.vlm.endpoint import Endpoint
from worldeval.policies.arguments import split_arguments
from worldeval.rollout.suite import Suite
from worldeval.settings import settings_from
from worldeval.synthesis.planning import Words
from worldeval.synthesis.variety import TEMPLATES
from worldeval.synthesis.wording import reworded

ASKED = 12
"""Other wordings that a model is asked for, per instruction."""
MOST_CHARACTERS = 200
PROMPT = (
    "Say this instruction to a robot in {count} other ways. Keep exactly the same meaning: the "
    "same object, action and direction. Vary verbs, word order and politeness. Answer with a JSON "
    "list of {count} strings and nothing else.\n\nInstruction: {instruction}"
)


def words_by(wording: str, suite: Suite, kept: Path) -> Words:
    """The function that finds words. kept: file of a model's answers, read where it has them.

    Raises ConfigError for a URI that is none, JudgeError if the endpoint gives no usable answer.
    """
    if wording == TEMPLATES:
        return reworded
    instructions = sorted({start.instruction for start in suite.starts})
    known = _answers(wording, instructions, kept)

    def chosen(instruction: str, others: Sequence[str], rng: np.random.Generator) -> str:
        choices = known[instruction]
        return choices[rng.integers(len(choices))]

    return chosen


def _answers(wording: str, instructions: Sequence[str], path: Path) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    if path.is_file():
        values = read_json(path, "file of wordings")
        if not isinstance(values, dict) or values.get("by") != wording:
            raise DataError(
                f"{path} holds wordings of {values.get('by') if isinstance(values, dict) else '?'},"
                f" now they are to come from {wording!r}; choose another --out"
            )
        known = {str(key): [str(text) for text in value] for key, value in values["words"].items()}
    missing = [text for text in instructions if text not in known]
    if missing:
        endpoint, model = _endpoint(wording)
        client = ChatClient(endpoint)
        for text in missing:
            known[text] = _ask(client, model, text)
        content = {"by": wording, "words": known}
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return known


def _endpoint(wording: str) -> tuple[Endpoint, str]:
    head, arguments = split_arguments(wording, "wording")
    if not head.startswith(("http://", "https://")):
        raise ConfigError(
            f"wording is {wording!r}, expected templates or http://HOST:PORT/v1?model=NAME"
        )
    values = {name: argument.value for name, argument in arguments.items()}
    model = values.pop("model", None)
    if not isinstance(model, str) or not model:
        raise ConfigError(f"wording is {wording!r}, which names no model; add ?model=NAME")
    return settings_from(Endpoint, {"url": head, **values}), model


def _ask(client: ChatClient, model: str, instruction: str) -> list[str]:
    prompt = PROMPT.format(count=ASKED, instruction=instruction)
    message = {"role": "user", "content": [{"type": "text", "text": prompt}]}
    body = {"model": model, "messages": [message], "temperature": 1.0}
    reply = client.ask(json.dumps(body).encode(), threading.Event())
    text = reply.choices[0].text if reply.choices else ""
    found = [words for words in read_wordings(text) if words != instruction]
    if not found:
        raise JudgeError(
            f"{client.endpoint.completions} found no other words for {instruction!r}: it answered "
            f"{text[:80]!r}, expected a JSON list of texts; ask another model, or use templates"
        )
    return found


def read_wordings(text: str) -> list[str]:
    """The texts in a model's answer: of the JSON list in it, else of its lines without their
    numbers; each once. Empty and overlong ones are left out."""
    listed = re.search(r"\[.*\]", text, re.DOTALL)
    lines: list[object] = []
    if listed:
        try:
            values = parsed_json(listed[0])
            lines = list(values) if isinstance(values, list) else []
        except ValueError:
            lines = []
    elif "\n" in text.strip():
        lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s*", "", line) for line in text.splitlines()]
    words = [" ".join(str(line).split()).strip("\"'") for line in lines if isinstance(line, str)]
    return list(dict.fromkeys(w for w in words if 0 < len(w) <= MOST_CHARACTERS))
