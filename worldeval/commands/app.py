"""``worldeval app`` and ``worldeval reindex``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldeval.errors import ConfigError
from worldeval.shipped import JUDGE, PROGRESS

RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class App:
    """Look at evaluations in the browser: overview, rollouts, comparison, labels, live world, data.

    Shows every evaluation below the folders given, also while it runs. Listens on this machine
    alone unless --host says otherwise; then give --auth too.

    For example:
      worldeval app
      worldeval app runs/demo runs/mine --port 8080
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (RUNS,)
    """Folders in which evaluations lie, at any depth up to four."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all of this machine, with --auth then."""
    port: int = 7860
    """Port to listen at."""
    auth: str | None = None
    """USER:PASSWORD that visitors must give. Behind anything but loopback use https too."""
    root_path: str = ""
    """Path under which a reverse proxy serves it, such as /worldeval."""
    cache: Path | None = None
    """Folder for the index and previews; one in ~/.cache if not given. May be deleted."""
    index: str | None = None
    """Postgres database that holds the index instead of a file, such as
    postgresql://user@host/database; WORLDEVAL_INDEX, if not given (its password is seen by nobody
    there). Needs `pip install 'worldeval[postgres]'`."""

    world_model: Path | None = None
    """World model that the tab Live drives; the shipped one, if not given."""
    starts: Path | None = None
    """Store whose episodes begin at the start states of Live; the shipped one, if not given."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """URI of a policy to which Live can hand over, as for `worldeval rollout`; repeat it for
    several. The shipped ones are there too, where they fit the robot."""
    judge: Path | None = None
    """Checkpoint of a trained judge: its probability of success at every frame is a curve beside a
    rollout. The shipped one, if not given; verdicts stay as they are."""
    progress: Path | None = None
    """Checkpoint of a judge of progress, for a curve too; the shipped one, if not given."""

    def run(self) -> None:
        app = _inspector()
        judge, progress = _checkpoint(self.judge, JUDGE), _checkpoint(self.progress, PROGRESS)
        app.serve(
            app.Options(
                roots=self.runs,
                host=self.host,
                port=self.port,
                auth=_user_and_password(self.auth),
                root_path=f"/{self.root_path}".rstrip("/").replace("//", "/"),
                cache=self.cache,
                index=_index(self.index),
                live=app.LiveWorld(
                    world_model=self.world_model, starts=self.starts, policies=self.policy
                ),
                watching=app.Watching(judge=judge, progress=progress),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Reindex:
    """Rebuild the inspector's index of evaluations from their files.

    It refreshes by itself; this is for an index that was damaged, or to fill it beforehand.

    For example:
      worldeval reindex
      worldeval reindex runs/demo
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (RUNS,)
    """Folders in which evaluations lie, as for `worldeval app`."""
    cache: Path | None = None
    """Folder of the index, as for `worldeval app`."""
    index: str | None = None
    """Postgres database of the index, as for `worldeval app`."""

    def run(self) -> None:
        app = _inspector()
        print(app.reindex(app.Options(roots=self.runs, cache=self.cache, index=_index(self.index))))


def _index(given: str | None) -> str | None:
    return given or os.environ.get("WORLDEVAL_INDEX") or None


def _inspector() -> Any:
    """The inspector's program: within the package in a wheel, beside it in a clone."""
    if find_spec("gradio") is None:
        raise ConfigError(
            "the inspector needs gradio, which is not installed; run "
            "`pip install 'worldeval[app]'`, or `make app` in a clone"
        )
    if find_spec("worldeval.apps") is not None:
        return import_module("worldeval.apps.inspector.app")
    # The folder it is used from comes before the clone and may have "apps" of its own.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    return import_module("apps.inspector.app")


def _checkpoint(given: Path | None, part: str) -> Path | None:
    """The checkpoint given, or the shipped one if there is any. CheckpointError if what was given
    is none."""
    from worldeval import shipped
    from worldeval.data import checkpoint

    if given is None:
        found = shipped.folder() / part
        return found if found.is_dir() else None
    checkpoint.read_header(given)
    return given


def _user_and_password(words: str | None) -> tuple[str, str] | None:
    if words is None:
        return None
    user, mark, password = words.partition(":")
    if not (user and mark and password):
        raise ConfigError("auth is no USER:PASSWORD; give for example --auth lab:secret")
    return user, password
