"""Spans of long films, each of one episode, compared with one another.

Enters: what an index says of where its episodes begin and end in their films. Leaves: a sentence
for each span that cannot be so. Of two that overlap at least one shows the pictures of the other,
and nothing says which, so neither is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class FilmSpan:
    """An episode of ``rows`` rows in the film ``path``, from ``start_s`` to ``to_s`` (if told)."""

    path: Path
    start_s: float
    to_s: float | None
    rows: int

    def end_s(self, row_s: float) -> float:
        """Where it ends by its rows: an end that contradicts them is refused by itself."""
        return self.start_s + self.rows * row_s


def contradictions(spans: Mapping[int, FilmSpan], rate_hz: float | None) -> dict[int, str]:
    """episode -> why its span is not to be believed.

    rate_hz: rows per second by the clock of the dataset; None where that is unknown.
    """
    wrong: dict[int, str] = {}
    for episode, span in spans.items():
        seconds = None if rate_hz is None else span.rows / rate_hz
        if span.start_s < 0:
            wrong[episode] = f"from_timestamp is {span.start_s:g} s, expected 0 or more"
        elif span.to_s is None or seconds is None:
            continue
        elif not abs(span.to_s - span.start_s - seconds) <= 0.5 * seconds / span.rows:
            wrong[episode] = (
                f"from_timestamp {span.start_s:g} and to_timestamp {span.to_s:g} span "
                f"{span.to_s - span.start_s:.3f} s of film, expected {seconds:.3f} s for "
                f"{span.rows} rows at {rate_hz:g} Hz; the index is wrong"
            )
    row_s = 0.0 if rate_hz is None else 1 / rate_hz
    order = sorted(spans, key=lambda n: (str(spans[n].path), spans[n].start_s, n))
    last: int | None = None
    for episode in order:
        span = spans[episode]
        if last is not None and spans[last].path == span.path:
            end = spans[last].end_s(row_s)
            if span.start_s < end - 0.5 * row_s:
                for one, other in ((last, episode), (episode, last)):
                    wrong.setdefault(
                        one,
                        f"its span of {span.path} overlaps that of episode {other} "
                        f"(from_timestamp {spans[one].start_s:g} and {spans[other].start_s:g}); "
                        "the pictures of at least one are those of the other",
                    )
            if end >= span.end_s(row_s):
                continue
        last = episode
    return wrong


def film_ends(spans: Mapping[int, FilmSpan], rate_hz: float | None) -> dict[Path, float]:
    """film -> up to which second its episodes claim it."""
    row_s = 0.0 if rate_hz is None else 1 / rate_hz
    ends: dict[Path, float] = {}
    for span in spans.values():
        ends[span.path] = max(ends.get(span.path, 0.0), span.end_s(row_s))
    return ends
