"""Where a model is served, and the key to it.

Enters: an address and the name of an environment variable. Leaves: the address that is asked and
the API key, which is read when it is needed and is no field of anything.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the model is served, and how patiently and how often it is asked.

    url: the base, which mostly ends in ``/v1``. key_env: name of the environment variable with the
    API key; without it no key is sent, whatever is in the environment, so that none goes to a
    stranger. requests_per_minute: spaced evenly; None does not limit. concurrency: requests under
    way at once. timeout_s: for one answer, wholly. attempts: for one answer, the first included.
    backoff_s: the first pause.
    """

    url: str
    key_env: str | None = None
    requests_per_minute: float | None = None
    concurrency: int = 4
    timeout_s: float = 120.0
    attempts: int = 6
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                "the address of a judge holds credentials or a query, expected "
                "http://HOST:PORT/v1; name the variable with the key by key_env=NAME"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"the address of a judge is {self.url!r}, expected http://HOST:PORT/v1 or "
                "https://HOST/v1"
            )
        if self.key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            # Not quoted: it may be the key itself.
            raise ConfigError(
                "key_env is no name of an environment variable, expected for example "
                "key_env=OPENAI_API_KEY; the key itself is never part of the settings"
            )
        for name, low, high in (("concurrency", 1, 64), ("attempts", 1, 20)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}, expected a whole number {low} to {high}")
        for name in ("timeout_s", "backoff_s", "requests_per_minute"):
            value = getattr(self, name)
            if value is None and name == "requests_per_minute":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value!r}, expected a number above 0")

    @property
    def completions(self) -> str:
        """The address that is asked."""
        return self.url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"

    def key(self) -> str | None:
        """The API key. Raises ConfigError, never showing it, where it is missing or malformed."""
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigError(
                f"the environment variable {self.key_env} with the API key is not set; export it, "
                "or leave out key_env for a server without keys"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"the environment variable {self.key_env} holds no API key (one word of ASCII is "
                "expected); export it again"
            )
        return key
