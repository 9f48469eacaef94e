"""The JSON of a chat completion, read with as little trust as possible.

Enters: the parsed body of a response. Leaves: a ``Reply``: what the model wrote in each choice, and
what that took. Format: https://platform.openai.com/docs/api-reference/chat/object; servers differ
in that ``usage`` may be missing, and in where the text of a model that reasons ends up: ``content``
may be text, a list of parts, or null while all of it stands in ``reasoning_content`` (vLLM),
``reasoning`` (Ollama, newer vLLM), ``reasoning_details`` (OpenRouter) or the arguments of a tool
call. Thoughts are read only where there is nothing else, and only if they were not cut off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from worldeval.errors import JudgeError

CONTENT, TOOL_CALL = "content", "a tool call"
REFUSAL = "refusal"
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the model wrote, and why it ended (``stop``, ``length``, ``content_filter``, ...).

    source: the field in which the text stood; "" where there was none, or it is not known.
    """

    text: str
    finish: str = ""
    source: str = ""

    @property
    def thoughts(self) -> bool:
        """Whether the text is what a server took for thoughts."""
        return self.source in THOUGHTS


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The choices of one answered request, and what it took.

    Tokens are None where the server does not count them. requests: how often it was asked.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    requests: int


def said_error(payload: Any) -> tuple[int | str | None, str]:
    """(code, message) of an error object, in the forms of OpenAI, Ollama and vLLM; (None, "")."""
    if not isinstance(payload, dict):
        return None, ""
    error = payload.get("error")
    if payload.get("object") == "error":  # older vLLM: the error is the body itself
        error = payload
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None, ""
    code, kind = error.get("code"), error.get("type")
    if "insufficient_quota" in (code, kind):
        code = "insufficient_quota"
    return code if isinstance(code, int | str) else None, str(error.get("message") or "")


def read_reply(payload: Any, text: str, url: str, *, seconds: float, requests: int) -> Reply:
    """The reply in a response with status 200. Raises JudgeError where it is none."""
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or not choices:
        raise JudgeError(f"{url} {_what_instead(payload, text)}")
    if not all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in choices):
        raise JudgeError(
            f"{url} answered with choices that hold no message ({text[:200]!r}); it is no endpoint "
            "for chat completions, or an old one"
        )
    usage = payload.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        choices=tuple(
            _choice(choice["message"], str(choice.get("finish_reason") or "")) for choice in choices
        ),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=seconds,
        requests=requests,
    )


def _what_instead(payload: Any, text: str) -> str:
    if text.lstrip()[:1] == "<":
        return (
            "answered with an HTML page, expected JSON; give the address of the API, which mostly "
            "ends in /v1, not of a web page or a login"
        )
    if payload is None:
        return (
            f"answered with something that is no JSON ({text[:200]!r}); check the address, and "
            "look at the server's own output"
        )
    _, message = said_error(payload)
    return (
        f"answered with JSON without choices ({message or text[:200]!r}); check that it serves "
        "chat completions and that the model takes pictures"
    )


def _choice(message: dict[str, Any], finish: str) -> Choice:
    spoken = {CONTENT: _text(message.get("content")), TOOL_CALL: _arguments(message)}
    given = {field: text for field, text in spoken.items() if text.strip()}
    if given:  # a tool call comes after the words that announce it
        return Choice(text="\n".join(given.values()), finish=finish, source=next(iter(given)))
    for field in (*THOUGHTS, REFUSAL):
        if (text := _text(message.get(field))).strip():
            return Choice(text=text, finish=finish, source=field)
    return Choice(text="", finish=finish)


def _text(value: Any) -> str:
    """Of a string, or of a list of parts, of which those that are thoughts are left out."""
    if isinstance(value, list):
        parts = [part for part in value if isinstance(part, dict)]
        spoken = [p for p in parts if p.get("type") not in ("thinking", "reasoning")] or parts
        texts = [part.get("text", part.get("summary")) for part in spoken]
        value = "".join(text for text in texts if isinstance(text, str))
    return value if isinstance(value, str) else ""


def _arguments(message: dict[str, Any]) -> str:
    """What the tool calls of a message (also the one of older servers) were given."""
    calls = message.get("tool_calls")
    calls = [*calls] if isinstance(calls, list) else []
    calls.append({"function": message.get("function_call")})
    found = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, dict):  # Ollama's own form
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            found.append(arguments)
    return "\n".join(found)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
