"""One OpenAI-compatible endpoint: asked again where that helps, refused at once where not.

Enters: the JSON body of a chat completion. Leaves: a ``Reply`` (the texts of its choices, tokens,
seconds), or a JudgeError that says in one sentence what was tried and what to do.

==============================================  ==================================================
what the server does                            what is done
==============================================  ==================================================
cannot be reached, hangs up, takes too long     asked again, after a pause that doubles each time
408, 409, 425, 429, 5xx                         the same; ``Retry-After`` is obeyed by all threads
429 ``insufficient_quota``, other 4xx, 3xx      refused: asking again cannot help
200 with HTML, broken JSON, no choices          refused: this is no such endpoint
200 with ``{"error": {"code": 502}}``           as the status 502 (gateways do this)
==============================================  ==================================================

A pause is ``backoff_s`` x 2^k, times a random number between 1/2 and 1 so that threads do not all
come back at once. The API key is read from the environment, goes into one header, and is cut out
of everything that a server sends back, before it can reach an error, a cache or a table.
"""

from __future__ import annotations

import json
import random
import threading
import time
import weakref
from collections import Counter
from typing import Any

import httpx2

from worldeval.errors import JudgeError
from worldeval.judging.vlm.endpoint import Endpoint
from worldeval.judging.vlm.pace import Pace, retry_after_s
from worldeval.judging.vlm.reply import Reply, read_reply, said_error

AGAIN = (408, 409, 425, 429)
"""Answers below 500 after which the same request may succeed."""
CONNECT_TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0
"""A server that asks for more is given up: a person should know."""
LARGEST_ANSWER_BYTES = 8 * 2**20
SHORTEST_SECRET = 8
"""A shorter key (``EMPTY``, ``ollama``) is a formality, and may be a word of an answer."""

REMEDIES = {
    "temperature": "set another temperature, or send none with temperature=none",
    "seed": "send no seed, with seed=none",
    "max_tokens": (
        "send none with max_tokens=none, and where the server has another name for it, "
        'extra={"max_completion_tokens":4000}'
    ),
    "n": "ask for one vote at a time, with ask=seeds",
}
"""What to do about a field of the request that a server does not take."""


class Stopped(Exception):
    """Another request has failed for good; this one was not made any more."""


class _Passing(Exception):
    """A failure that may pass: what happened, and how long the server asks to wait."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class ChatClient:
    """A few connections to one endpoint; safe to use from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._key = endpoint.key()
        headers = {"Content-Type": "application/json", "User-Agent": "worldeval"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout_s = endpoint.timeout_s
        self._http = httpx2.Client(
            headers=headers,
            # Reading the certificates takes 50 ms; plain http has none (and is not redirected).
            verify=endpoint.url.startswith("https:"),
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
        )
        self._pace = Pace(endpoint.requests_per_minute)
        self.close = weakref.finalize(self, self._http.close)

    def __repr__(self) -> str:
        return f"ChatClient({self.endpoint.completions!r})"

    def ask(self, body: bytes, stop: threading.Event) -> Reply:
        """The reply to a JSON ``body``. Raises JudgeError, or Stopped once ``stop`` is set."""
        began = time.monotonic()
        troubles: Counter[str] = Counter()
        for attempt in range(self.endpoint.attempts):
            self._pace.wait(stop)
            if stop.is_set():
                raise Stopped
            try:
                return self._ask_once(body, requests=attempt + 1)
            except _Passing as trouble:
                troubles[str(trouble)] += 1
                self._pace.hold(trouble.wait_s)
                pause_s = min(self.endpoint.backoff_s * 2**attempt, LONGEST_PAUSE_S)
                if attempt + 1 < self.endpoint.attempts and not trouble.wait_s:
                    stop.wait(pause_s * random.uniform(0.5, 1.0))
        what = "; ".join(f"{count} x {trouble}" for trouble, count in troubles.items())
        raise JudgeError(
            f"{self.endpoint.completions} gave no answer: asked {self.endpoint.attempts} times in "
            f"{time.monotonic() - began:.1f} s ({what}); see whether the server runs and how busy "
            "it is, or lower concurrency and requests_per_minute"
        )

    def _ask_once(self, body: bytes, *, requests: int) -> Reply:
        began = time.monotonic()
        try:
            status, headers, text = self._post(body, until=began + self.endpoint.timeout_s)
        except httpx2.TimeoutException:
            raise _Passing(f"no answer within {self.endpoint.timeout_s:g} s") from None
        except httpx2.RequestError as error:  # refused, reset, name unknown, broken off
            raise _Passing(self._clean(f"{type(error).__name__}: {error}")) from None
        text = self._clean(text)
        url = self.endpoint.completions
        payload = _json(text)
        error_code, error_text = said_error(payload)
        if status == 200 and isinstance(error_code, int) and error_code >= 400:
            status = error_code
        if error_code == "insufficient_quota":
            raise JudgeError(f"{url} says that the quota is used up ({error_text}); raise it")
        if status in AGAIN or status >= 500:
            wait_s = retry_after_s(headers.get("retry-after", ""))
            if wait_s > LONGEST_RETRY_AFTER_S:
                raise JudgeError(
                    f"{url} asks to wait {wait_s:.0f} s; run again after that, or ask another one"
                )
            raise _Passing(f"HTTP {status}{_quoted(error_text)}", wait_s)
        if status != 200:
            raise JudgeError(self._refusal(status, headers, payload, error_text or text))
        return read_reply(payload, text, url, seconds=time.monotonic() - began, requests=requests)

    def _post(self, body: bytes, until: float) -> tuple[int, httpx2.Headers, str]:
        """Status, headers and text; read piece by piece, since a drip resets read timeouts."""
        with self._http.stream("POST", self.endpoint.completions, content=body) as response:
            pieces: list[bytes] = []
            size = 0
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST_ANSWER_BYTES:
                    raise JudgeError(
                        f"{self.endpoint.completions} answered with more than "
                        f"{LARGEST_ANSWER_BYTES >> 20} MiB, expected a few words; check the address"
                    )
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout("the whole answer took too long")
            return (
                response.status_code,
                response.headers,
                b"".join(pieces).decode("utf-8", errors="replace"),
            )

    def _refusal(self, status: int, headers: httpx2.Headers, payload: Any, said: str) -> str:
        url, key_env = self.endpoint.completions, self.endpoint.key_env
        if said.lstrip().startswith("<"):
            said = "an HTML page"
        what = f"{url} refuses with HTTP {status}{_quoted(said)}"
        if status == 401:
            if key_env:
                return f"{what}; check the API key in the environment variable {key_env}"
            return f"{what}; name the environment variable that holds the API key by key_env=NAME"
        if status == 403:
            return f"{what}; this key or this network may not use the model, choose another"
        if status == 404:
            return f"{what}; check the model's name, and the address, which mostly ends in /v1"
        if 300 <= status < 400:
            where = self._clean(headers.get("location", "nowhere"))
            return f"{what} and points to {where!r}; give the address itself"
        error = payload.get("error") if isinstance(payload, dict) else None
        field = error.get("param") if isinstance(error, dict) else None
        remedy = REMEDIES.get(str(field), "change what it complains of")
        return f"{what}; {remedy}"

    def _clean(self, text: str) -> str:
        """``text`` without the key, also as some servers escape it in JSON."""
        if self._key is None or len(self._key) < SHORTEST_SECRET:
            return text
        return text.replace(self._key, "[key]").replace(self._key.replace("/", "\\/"), "[key]")


def _json(text: str) -> Any:
    """The JSON value of ``text``; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _quoted(text: str) -> str:
    words = " ".join(text.split())
    return f" ({words[:200]})" if words else ""
