"""The JSON of a chat completion, read with as little trust as possible.

Enters: the parsed body of a response. Leaves: a ``Reply``: what the model wrote in each choice, and
what that took. Format: https://platform.openai.com/docs/api-reference/chat/object; servers differ
in that ``usage`` may be missing, ``content`` may be null (a refusal) or a list of text parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worldeval.errors import JudgeError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the model wrote, and why it ended (``stop``, ``length``, ``content_filter``, ...)."""

    text: str
    finish: str = ""


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
            Choice(text=_spoken(choice["message"]), finish=str(choice.get("finish_reason") or ""))
            for choice in choices
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


def _spoken(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
