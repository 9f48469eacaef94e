"""Shows trainings, rollouts and rankings in trackio or Weights & Biases, where they are installed.

Enters: names such as "trackio" or "wandb:my-project", the folder of a run, rows. Leaves: the same
rows in a run of the tracker, which a run that goes on continues. Both libraries answer to the same
calls; neither is needed by anything else here. Whatever a tracker does (it fails, nobody answers,
its disk is full) costs a sentence, and never the work that it shows.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from worldeval.errors import ConfigError, MissingDependencyError
from worldeval.registry import did_you_mean
from worldeval.terminal import printable, shortened

LIBRARIES = ("trackio", "wandb")
PROJECT = "worldeval"
INIT_S, FINISH_S = 30, 60
"""How long wandb may look for its server at the beginning, and send what is left at the end."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A tracker as it is named: ``wandb``, or ``wandb:my-project``."""

    library: str
    project: str = PROJECT

    @classmethod
    def read(cls, words: str) -> Named:
        """ConfigError if it names none."""
        library, colon, project = words.partition(":")
        if library not in LIBRARIES:
            raise ConfigError(
                f"trackers holds {words!r}, expected {' or '.join(LIBRARIES)}, alone or with a "
                f"project behind it (wandb:my-project){did_you_mean(library, LIBRARIES)}"
            )
        if not colon:
            return cls(library=library)
        if not project:
            raise ConfigError(
                f"trackers holds {words!r}, which names no project; say {library}:my-project, or "
                f"{library} alone for the project {PROJECT!r}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", project):
            raise ConfigError(
                f"trackers holds {words!r}, expected a project of letters, digits, '-', '_' and "
                "'.' (a team is named by the variable WANDB_ENTITY)"
            )
        return cls(library=library, project=project)

    def __str__(self) -> str:
        return f"{self.library}:{self.project}"


def read_names(names: Iterable[str]) -> list[Named]:
    """The trackers of these names. ConfigError for one that is none, or given twice."""
    found = [Named.read(words) for words in names]
    for library in LIBRARIES:
        same = [str(one) for one in found if one.library == library]
        if len(same) > 1:
            raise ConfigError(f"trackers holds {' and '.join(same)}; give one project of {library}")
    return found


def require(names: Iterable[str]) -> list[Named]:
    """The same; MissingDependencyError if one of them is not installed."""
    found = read_names(names)
    for one in found:
        if importlib.util.find_spec(one.library) is None:
            raise MissingDependencyError(
                f"trackers holds {one.library!r}, which is not installed; pip install "
                f"{one.library}, or leave it out (all that it shows is written anyway)"
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table. cells: a list per row; None where nothing is known."""

    columns: Sequence[str]
    cells: Sequence[Sequence[Any]]


class Tracker:
    """One run of one tracker. ``sent``: names of what it was given, in earlier processes too."""

    def __init__(
        self, named: Named, folder: Path, settings: Mapping[str, Any], part: str = ""
    ) -> None:
        """Only the main process makes one. folder: its name, or its parent's, names the run.

        part: of the run, where several processes show one each.
        """
        self.named = named
        place = folder.resolve()
        name = place.parent.name if place.name == "training" else place.name
        behind = "-".join(filter(None, (part, named.library, named.project)))
        self._record = place / f".tracked-{behind}"
        self._module: Any = None
        self._run: Any = None
        self.sent: dict[str, None] = {}
        self.works = True
        self._attempt(lambda: self._begin("-".join(filter(None, (name, part))), settings))

    def _begin(self, name: str, settings: Mapping[str, Any]) -> None:
        # The folder keeps who it is: two folders of one name, or of one path on two machines, are
        # two runs; wandb knows a run by an id, trackio by its name alone.
        if not self._record.is_file() or not self._record.stat().st_size:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            self._record.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="utf-8")
        own, *sent = self._record.read_text(encoding="utf-8").splitlines()
        self.sent = dict.fromkeys(sent)
        self._module = import_module(self.named.library)
        options: dict[str, Any] = {"name": f"{name}-{own[:4]}"}
        if self.named.library == "wandb":
            patience = {"init_timeout": INIT_S, "finish_timeout": FINISH_S}
            known = self._module.Settings.model_fields
            given = {key: value for key, value in patience.items() if key in known}
            options = {"name": name, "id": own, "settings": self._module.Settings(**given)}
        self._run = self._module.init(
            project=self.named.project, config=dict(settings), resume="allow", **options
        )

    def log(self, step: int, row: Mapping[str, Any], name: str | None = None) -> None:
        """Show a row: numbers, text, films (the path of an mp4) and ``Rows``; None is left out.

        name: of the row, to be remembered in ``sent``.
        """
        films = {key for key, value in row.items() if isinstance(value, Path)}

        def show(keys: Iterable[str]) -> None:
            shown = {key: self._shown(row[key]) for key in keys if row[key] is not None}
            self._run.log(shown, step=step)

        def all_of_it() -> None:
            try:
                show(key for key in row if key not in films or row[key].is_file())
            except FileNotFoundError:  # a film that was moved just now
                show(key for key in row if key not in films)
            if name is not None:
                with self._record.open("a", encoding="utf-8") as record:
                    record.write(f"{name}\n")
                self.sent[name] = None

        self._attempt(all_of_it)

    def _shown(self, value: Any) -> Any:
        if isinstance(value, Path):
            return self._module.Video(str(value), format="mp4")
        if isinstance(value, Rows):
            cells = [list(row) for row in value.cells]
            return self._module.Table(columns=list(value.columns), data=cells)
        return value

    def finish(self) -> None:
        """Have it take all that it was given, for as long as it is waited for."""
        self._attempt(lambda: self._module.finish())
        self.works = False

    def _attempt(self, do: Callable[[], None]) -> None:
        """Do it, if the tracker still works; if it fails, say so, and never do anything again."""
        if not self.works:
            return
        try:
            do()
        except Exception as error:  # whatever a library raises that is not ours
            self.works = False
            if self._run is not None:
                with suppress(Exception):
                    self._module.finish()
            said = shortened(f"{type(error).__name__}: {error}", 300)
            print(
                f"worldeval: {self.named} shows nothing more ({printable(said)}); the work goes on "
                "without it and nothing of it is lost",
                file=sys.stderr,
                flush=True,
            )


class Trackers:
    """The trackers of one training."""

    def __init__(self, names: Iterable[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self._trackers = [Tracker(one, folder, settings) for one in require(names)]

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        """Show the numbers of a row."""
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        for tracker in self._trackers:
            tracker.log(step, numbers)

    def finish(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
