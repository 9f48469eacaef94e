"""What a tab is given: the index, the evaluations behind it, and the folder for previews."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from worldeval import EpisodeStore, Evaluation

from .datasets import Datasets
from .index import Index
from .records import Rollout, Run

OPEN_STORES = 32
"""Stores kept open, the latest used ones."""


@dataclass(frozen=True, kw_only=True)
class LiveWorld:
    """Which world visitors may drive, and which policies may act in it; the shipped ones if not
    given. policies: URIs as for `worldeval rollout`, from who starts the server alone."""

    world_model: Path | None = None
    starts: Path | None = None
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Checkpoints of a judge that looks at every frame and of a judge of progress; without one its
    curve is absent."""

    judge: Path | None = None
    progress: Path | None = None


class Context:
    """The inspector's state on the server; of a visitor it knows nothing."""

    def __init__(
        self,
        roots: Sequence[str | Path],
        cache: str | Path,
        *,
        index: str | None = None,
        live: LiveWorld | None = None,
        watching: Watching | None = None,
    ) -> None:
        self.live, self.watching = live or LiveWorld(), watching or Watching()
        self.roots = tuple(Path(root).resolve() for root in roots)
        self.cache = Path(cache)
        self.index = Index(self.roots, index or self.cache / "index.sqlite")
        self.datasets = Datasets(self)
        self.before_serving: list[Callable[[], None]] = []
        """What routes load before the first visitor comes, who would wait for it."""
        self._stores: OrderedDict[Path, tuple[int, EpisodeStore]] = OrderedDict()
        self._opening = Lock()

    def run(self, id: str) -> Run:
        """The evaluation of that identifier. WorldEvalError if there is none."""
        return self.index.run(id)

    def rollout(self, id: str) -> Rollout:
        """The rollout of that identifier. WorldEvalError if there is none."""
        return self.index.rollout(id)

    def evaluation(self, run: Run) -> Evaluation:
        """Its verdicts, truth, trust and leaderboard, read from the disk as they are now."""
        return Evaluation.open(self.inside(run.folder))

    def store(self, rollout: Rollout) -> EpisodeStore:
        """The store in which a rollout lies, opened again where it has grown since."""
        return self.store_at(rollout.store, rollout.key)

    def store_at(self, place: Path, key: str | None = None) -> EpisodeStore:
        """The store at ``place``, opened again where it has grown since or has lacked ``key``."""
        place = self.inside(place)
        stamp = max(
            (p.stat().st_mtime_ns for p in place.glob("meta/episodes/*/*.parquet")), default=0
        )
        with self._opening:
            known = self._stores.pop(place, None)
            lacks = known is not None and key is not None and key not in known[1]
            if known is None or known[0] != stamp or lacks:
                known = stamp, EpisodeStore.open(place)
            self._stores[place] = known
            while len(self._stores) > OPEN_STORES:
                self._stores.popitem(last=False)
        return known[1]

    def inside(self, path: Path) -> Path:
        """``path`` if it lies below a run root and no link in it leads out. WorldEvalError if
        not."""
        return self.index.fence.inside(path)
