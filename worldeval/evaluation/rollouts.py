"""The rollouts of an evaluation as things to look at: read when they are asked for."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from worldeval.types import Episode


@dataclass(frozen=True, kw_only=True)
class Video:
    """An H.264 film that plays in a notebook."""

    mp4: bytes

    def save(self, path: str | Path) -> Path:
        """Write it as a file and return its path."""
        Path(path).write_bytes(self.mp4)
        return Path(path)

    def __repr__(self) -> str:
        return f"Video of {len(self.mp4)} bytes; .save('rollout.mp4') writes it"

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.mp4).decode()
        return f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'


@dataclass(frozen=True, kw_only=True)
class RolloutView:
    """One rollout in a store."""

    key: str
    policy: str
    task: str
    start_id: str
    store: Path

    def episode(self) -> Episode:
        """Frames, poses and actions, read from the disk."""
        from worldeval.data.store.episodes import EpisodeStore

        return EpisodeStore.open(self.store).by_key(self.key)

    @property
    def frames(self) -> np.ndarray:
        """What was seen, (T, V, H, W, 3) uint8."""
        return self.episode().frames

    def video(self) -> Video:
        """All views in a row, enlarged; plays in a notebook."""
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.data.video import write_mp4
        from worldeval.reports.videos import tiled

        store = EpisodeStore.open(self.store)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rollout.mp4"
            write_mp4(path, tiled(store.by_key(self.key).frames), store.layout.fps)
            return Video(mp4=path.read_bytes())


class _ByPolicy(dict[str, list[RolloutView]]):
    def __missing__(self, name: str) -> list[RolloutView]:
        raise KeyError(f"there are no rollouts of {name!r}; there are those of {', '.join(self)}")


def rollouts_by_policy(
    stores: Sequence[Path], starts: Collection[str] | None = None
) -> Mapping[str, list[RolloutView]]:
    """Policy -> its rollouts, in the order of their keys. starts: only from these start states."""
    from worldeval.data.store.episodes import EpisodeStore

    found: dict[str, list[RolloutView]] = _ByPolicy()
    for place in stores:
        store = EpisodeStore.open(place)
        rows = store.metadata().to_dict("records") if len(store) else []
        for row in sorted(rows, key=lambda row: str(row["key"])):
            if starts is not None and str(row.get("start_id")) not in starts:
                continue
            key = str(row["key"])
            policy = str(row.get("policy") or key.partition("/")[0])
            found.setdefault(policy, []).append(
                RolloutView(
                    key=key,
                    policy=policy,
                    task=str(row["task"]),
                    start_id=str(row.get("start_id")),
                    store=place,
                )
            )
    return found
