"""What ``meta/`` of a LeRobot dataset says: its episodes, splits, tasks, and where each is kept.

Enters: the folder of a dataset v2.0, v2.1 or v3.0. Leaves: one checked entry an episode, and a
sentence for each entry that cannot be believed. An index is written once and edited by many: merges
and deletions leave entries without a length, splits of the dataset that it was, pointers to files
of others, and spans of film that overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldeval.data.files import load_json, parsed_json, read_text, regular_file
from worldeval.data.readers.film_spans import FilmSpan, contradictions, film_ends
from worldeval.data.values import number, text, whole_number
from worldeval.errors import DataError

VERSIONS = ("v2.0", "v2.1", "v3.0")
ALL = "all"
"""The split that is every episode of the index, where info.json has none of this name."""


class LeRobotIndex:
    """The entries of ``meta/``; ``refused`` has a reason for each that names no episode."""

    def __init__(self, root: Path) -> None:
        self.root, self.info_path = root, root / "meta/info.json"
        info = read_object(self.info_path)
        self.info: dict[str, Any] = info
        self.version = str(info.get("codebase_version"))
        if self.version not in VERSIONS:
            raise DataError(
                f"{self.info_path} has codebase_version {self.version!r}, expected v2.0, v2.1 or "
                "v3.0; convert it with LeRobot"
            )
        features = info.get("features")
        if not isinstance(features, dict) or not all(
            isinstance(feature, dict) for feature in features.values()
        ):
            raise DataError(f"{self.info_path} has no features; fetch it again")
        for name, feature in features.items():
            shape = feature.get("shape", [])
            if not isinstance(shape, list) or not all(type(size) is int for size in shape):
                raise DataError(
                    f"{self.info_path}: the shape of {name!r} is {shape!r}, expected a list of "
                    "whole numbers; fetch it again"
                )
        self.features: dict[str, Any] = features
        self.fps = self._of_info("fps", number)
        self.chunk_size = self._of_info("chunks_size", whole_number) or 1000
        self.rows: dict[int, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self._films: dict[str, _Films] = {}
        self._collect()

    def ids_of(self, split: str) -> tuple[tuple[str, ...], list[str]]:
        """Names of the episodes of a split, and what is to be told of the others."""
        splits = self.info.get("splits") or {}
        if not isinstance(splits, dict):
            raise DataError(
                f"{self.info_path}: splits are {splits!r}, expected {{'train': 'first:end'}}"
            )
        ranges = {name: self._range(name, value) for name, value in splits.items()}
        everything = sorted(self.rows)
        if not ranges and split == "train":
            ranges = {split: range(max(everything, default=-1) + 1)}
        if split not in ranges and split == ALL:
            return (*map(str, everything), *self.refused), []
        if split not in ranges:
            raise DataError(
                f"{self.info_path} has no split {split!r}, only "
                f"{', '.join(ranges) or 'none'}; --split {ALL} takes every episode"
            )
        notes = []
        left = [n for n in everything if not any(n in part for part in ranges.values())]
        if left:
            told = ", ".join(f"{name} is {splits[name]}" for name in ranges)
            notes.append(
                f"{len(left)} of {len(everything)} episodes of the index ({_in_words(left)}) "
                f"belong to no split of {self.info_path} ({told}) and are left out; "
                f"--split {ALL} takes every episode"
            )
        wanted = ranges[split]
        chosen = [n for n in everything if n in wanted]
        if len(chosen) < len(wanted):
            notes.append(
                f"split {split!r} of {self.info_path} is {splits.get(split)}, and the index lists "
                f"{len(chosen)} of these {len(wanted)} episodes"
            )
        return (*map(str, chosen), *self.refused), notes

    def length(self, episode: int) -> int:
        """Rows of an episode, as the index has them. Raises DataError if it does not say."""
        found = self._entry(episode, "length")
        if not found:
            raise DataError(
                f"{self.root}/meta says {self.rows[episode].get('length')!r} for the length of "
                f"episode {episode}, expected 1 or more; write it there, or leave the episode out"
            )
        return found

    def path(self, episode: int, template: str, prefix: str, view: str = "") -> Path:
        """A path out of the templates of info.json."""
        pattern = self.info.get(template)
        try:
            if not isinstance(pattern, str):
                raise ValueError("no text")
            if _WIDE.search(pattern):  # {episode_index:0999999999d} would take all memory
                raise ValueError("it pads to 100 characters or more")
            filled = pattern.format(
                episode_index=episode,
                episode_chunk=episode // self.chunk_size,
                video_key=view,
                chunk_index=self._entry(episode, f"{prefix}/chunk_index"),
                file_index=self._entry(episode, f"{prefix}/file_index"),
            )
        except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
            raise DataError(
                f"{self.info_path}: {template} {pattern!r} cannot be filled in for episode "
                f"{episode} ({error})"
            ) from error
        return self.root / filled

    def dataset_range(self, episode: int) -> range | None:
        """The rows of the whole dataset that are this episode's, where the index has them."""
        try:
            first = self._entry(episode, "dataset_from_index")
            end = self._entry(episode, "dataset_to_index")
        except DataError:
            return None
        return None if first is None or end is None else range(first, end)

    def span(self, episode: int, view: str) -> FilmSpan:
        """Where in its film an episode is seen (v3.0). Raises DataError for what contradicts."""
        film = self._films_of(view)
        if episode in film.wrong:
            raise DataError(
                f"{self.root}/meta: episode {episode}, view {view}: {film.wrong[episode]}"
            )
        return film.spans[episode]

    def end_of(self, path: Path, view: str) -> float:
        """Up to which second the episodes of a film claim it."""
        return self._films_of(view).ends.get(path, 0.0)

    @cached_property
    def tasks(self) -> dict[int, str]:
        """task_index -> text; empty where the dataset has no table of tasks that can be read."""
        if self.version == "v3.0":
            rows: Iterable[Mapping[str, Any]] = _task_table(self.root / "meta/tasks.parquet")
        else:
            path = self.root / "meta/tasks.jsonl"
            rows = (row for _, row in read_lines(path)) if path.exists() else ()
        found: dict[int, str] = {}
        doubtful: set[int] = set()
        for row in rows:
            try:
                place, words = whole_number(row.get("task_index")), text(row.get("task"))
            except ValueError:
                continue
            if place is None or words is None:
                continue
            if found.setdefault(place, words) != words:
                doubtful.add(place)
        return {place: words for place, words in found.items() if place not in doubtful}

    def _collect(self) -> None:
        """Every entry that names an episode, once."""
        if self.version == "v3.0":
            files = sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
            entries = [(f"{file}: row {i}", r) for file in files for i, r in _episode_table(file)]
        else:
            path = self.root / "meta/episodes.jsonl"
            entries = [(f"{path}: line {i}", r) for i, r in read_lines(path)]
        if not entries:
            raise DataError(f"{self.root}/meta lists no episodes; fetch the dataset again")
        for where, row in entries:
            given = row.get("episode_index")
            try:
                episode = whole_number(given)
            except ValueError:
                episode = None
            if episode is None:
                self.refused[where] = f"{where} has {given!r} for episode_index, expected 0 or more"
            elif str(episode) in self.refused:
                continue
            elif episode in self.rows and self.rows[episode] != row:
                del self.rows[episode]
                self.refused[str(episode)] = (
                    f"{where} is the second entry of episode {episode}, and they differ; leave one"
                )
            else:
                self.rows[episode] = row

    def _range(self, name: str, value: Any) -> range:
        parts = value.split(":") if isinstance(value, str) else []
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            raise DataError(
                f"{self.info_path}: split {name!r} is {value!r}, expected 'first:end'; mend it, "
                "or take all splits out"
            )
        return range(int(parts[0]), int(parts[1]))

    def _of_info(self, name: str, kind: Any) -> Any:
        try:
            return kind(self.info.get(name))
        except ValueError as error:
            raise DataError(
                f"{self.info_path}: {name} is {self.info[name]!r} ({error}); mend it"
            ) from error

    def _entry(self, episode: int, name: str) -> int | None:
        try:
            return whole_number(self.rows[episode].get(name))
        except ValueError as error:
            raise DataError(
                f"{self.root}/meta: {name} of episode {episode} cannot be used ({error})"
            ) from error

    def _films_of(self, view: str) -> _Films:
        if view not in self._films:
            self._films[view] = self._read_films(view)
        return self._films[view]

    def _read_films(self, view: str) -> _Films:
        prefix = f"videos/{view}"
        spans: dict[int, FilmSpan] = {}
        wrong: dict[int, str] = {}
        for episode, row in self.rows.items():
            try:
                start, end = (number(row.get(f"{prefix}/{e}_timestamp")) for e in ("from", "to"))
                if start is None:
                    raise ValueError("the index has no from_timestamp")
                rows = self.length(episode)
                path = self.path(episode, "video_path", prefix, view)
            except (ValueError, DataError) as error:
                wrong[episode] = str(error)
            else:
                spans[episode] = FilmSpan(path=path, start_s=start, to_s=end, rows=rows)
        wrong |= contradictions(spans, self.fps)
        believed = {episode: span for episode, span in spans.items() if episode not in wrong}
        return _Films(spans=spans, wrong=wrong, ends=film_ends(believed, self.fps))


@dataclass(frozen=True, kw_only=True)
class _Films:
    """Of one view: the span of each episode, why it is not believed, and where films end."""

    spans: Mapping[int, FilmSpan]
    wrong: Mapping[int, str]
    ends: Mapping[Path, float]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object out of a file. Raises DataError naming it."""
    if not path.exists():
        raise DataError(f"{path} is missing; give the folder of a LeRobot dataset")
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object; fetch it again")
    return content


_MOST_LINES_BYTES = 512 * 2**20
"""Of episodes.jsonl: a line takes some 300 bytes, and no dataset has a million episodes."""


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number of the line, object) of a file with a JSON object a line; others are {}."""
    if not path.exists():
        raise DataError(f"{path} is missing; fetch the dataset again")
    lines = read_text(path, "list of episodes or tasks", most=_MOST_LINES_BYTES).split("\n")
    rows = []
    for place, line in enumerate(lines, start=1):
        if line.strip():
            try:
                content = parsed_json(line)
            except ValueError:
                content = None
            rows.append((place, content if isinstance(content, dict) else {}))
    return rows


def _episode_table(path: Path) -> list[tuple[int, dict[str, Any]]]:
    regular_file(path, "table of episodes")
    try:
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return list(enumerate(pq.read_table(path, columns=names, partitioning=None).to_pylist()))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error


def _task_table(path: Path) -> list[dict[str, Any]]:
    """Rows of tasks.parquet; the text is pandas' index, which is called task or nothing."""
    if not path.is_file():
        return []
    try:
        rows = pq.read_table(path, partitioning=None).to_pylist()
    except (pa.ArrowException, OSError, ValueError):
        return []
    return [{**row, "task": row.get("task", row.get("__index_level_0__"))} for row in rows]


_WIDE = re.compile(r"\{[^{}]*:[^{}]*(?:[1-9][0-9]{2}|\{)")
"""A place of a template that is to be padded to 100 characters or more, or to as many as another
place says."""


def _in_words(numbers: list[int]) -> str:
    """3, 5, 7 and 40 more."""
    first = ", ".join(map(str, numbers[:8]))
    return first if len(numbers) <= 8 else f"{first} and {len(numbers) - 8} more"
