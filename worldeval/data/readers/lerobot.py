"""What the readers of LeRobot datasets have in common, v2.0, v2.1 and v3.0, whatever the robot.

Enters: a folder with ``meta/info.json``. Leaves: rows, pictures, instructions and outcome of each
episode. What belongs together is what the dataset says belongs together: rows by
``episode_index`` and ``frame_index``, pictures by their time in the film (``from_timestamp`` plus
``timestamp``), instructions by ``task_index``. Where two of these contradict each other the
episode is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worldeval.data.cells import EXPECTED
from worldeval.data.readers.footage import FilmPart, Footage, ImageColumn
from worldeval.data.readers.lerobot_index import LeRobotIndex
from worldeval.data.readers.lerobot_rows import TASK, EpisodeRows, RowFinder
from worldeval.data.values import single, success, text, whole_number
from worldeval.errors import DataError

NO_ORDER = (
    "no column frame_index, timestamp or index says which row comes first, so rows were taken in "
    "the order in which they are kept"
)


class LeRobotReader:
    """The episodes of one split of a LeRobot dataset, by index (as text).

    hz: rows per second by the robot's clock. notes: one sentence for each thing about the dataset
    that its user must know.
    """

    def __init__(self, index: LeRobotIndex, split: str, hz: float) -> None:
        self.index, self.root, self.split, self.hz = index, index.root, split, hz
        # Films and timestamps keep the clock of info.json even where it is not the robot's.
        clocks = dict.fromkeys(rate for rate in (index.fps, hz) if rate)
        self._finder = RowFinder(index, tuple(clocks))
        self.ids, self.notes = index.ids_of(split)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, identity: str, columns: Iterable[str]) -> tuple[int, EpisodeRows]:
        """Number of an episode, and its rows with ``columns`` as far as there are such.

        Raises DataError naming the file missing or damaged.
        """
        if identity in self.index.refused:
            raise DataError(self.index.refused[identity])
        number = int(identity) if identity.isdecimal() else -1
        if number not in self.index.rows:
            last = max(self.index.rows, default=0)
            raise DataError(f"{self.root} has no episode {identity!r}, only 0..{last}")
        return number, self._finder.rows(number, {*columns, TASK})

    def footage(self, number: int, view: str, rows: EpisodeRows) -> Footage:
        """What the feature ``view`` shows at the rows of an episode."""
        if self.index.features[view].get("dtype") == "image":
            return ImageColumn(
                files=rows.files, column=view, episode_index=number, order=rows.order,
                root=self.root, hz=self.hz,
            )  # fmt: skip
        row_s = float(rows.times_s[-1]) / (len(rows) - 1) if len(rows) > 1 else 1 / self.hz
        if self.index.version != "v3.0":
            path = self.index.path(number, "video_path", "", view)
            return FilmPart(
                path=path, times_s=rows.times_s, row_s=row_s, whole=True, hz=self.hz
            )  # fmt: skip
        span = self.index.span(number, view)
        return FilmPart(
            path=span.path,
            times_s=span.start_s + rows.times_s,
            row_s=row_s,
            whole=False,
            claimed_s=self.index.end_of(span.path, view),
            hz=self.hz,
        )

    def instructions(
        self, number: int, rows: EpisodeRows, columns: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Different instructions, LeRobot's task first; none where nothing is known.

        LeRobot goes by task_index, and the index repeats the text; they must not differ.
        columns: of ``rows``, that have further wordings.
        """
        listed = self.index.rows[number].get("tasks")
        listed = listed if isinstance(listed, list | tuple) else [listed]
        texts = [words for entry in listed if (words := text(entry)) is not None]
        named = []
        for value in rows.changes(TASK):
            try:
                place = whole_number(value)
            except ValueError:
                continue
            if place is not None and place in self.index.tasks:
                named.append(self.index.tasks[place])
        strange = [words for words in named if words not in texts]
        if texts and strange:
            raise DataError(
                f"{rows.path}: task_index of episode {number} means {strange[0]!r} in the table of "
                f"tasks, and the index of episodes says {texts[0]!r}; one of them is of another "
                "dataset"
            )
        for name in columns:
            named += [words for v in rows.changes(name) if (words := text(v)) is not None]
        return tuple(dict.fromkeys(texts + named))


def outcome(rows: EpisodeRows, column: str | None) -> bool | None:
    """The last success that is known; flags a row may turn to true, but not back."""
    known = []
    for value in rows.changes(column) if column else []:
        try:
            found = success(value)
        except ValueError:
            raise DataError(
                f"{rows.path}: {column!r} is {single(value)!r}, expected {EXPECTED}"
            ) from None
        known += [] if found is None else [found]
    if known != sorted(known):
        raise DataError(
            f"{rows.path}: {column!r} says both success and, later, failure; expected one of them"
        )
    return known[-1] if known else None
