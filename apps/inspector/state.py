"""The state of the page as the URL says it, and links that change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from fastapi import Request

from worldeval.reports.markup import escape

MOST = 600
"""Characters of one value."""


@dataclass(frozen=True)
class State:
    """Names and values of the URL's query."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, request: Request) -> Self:
        return cls({name: value[:MOST] for name, value in request.query_params.items()})

    def __getitem__(self, name: str) -> str:
        """Empty where the URL does not say."""
        return self.values.get(name, "")

    def whole(self, name: str) -> int:
        """A number from 0 on; 0 for anything else."""
        value = self[name]
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0

    def href(self, **changes: Any) -> str:
        """The query of this state with changes; None takes a name out. To be escaped."""
        values = {k: v for k, v in self.values.items() if k != "t"}
        values |= {name: str(value) for name, value in changes.items() if value is not None}
        gone = {name for name, value in changes.items() if value is None}
        return "?" + urlencode({n: v for n, v in values.items() if v and n not in gone})

    def link(self, html: str, *, classes: str = "", title: str = "", **changes: Any) -> str:
        """A link to the state with changes. html: what is shown, as it is."""
        extra = f' class="{classes}"' if classes else ""
        extra += f' title="{escape(title)}"' if title else ""
        return f'<a href="{escape(self.href(**changes))}" data-go{extra}>{html}</a>'
