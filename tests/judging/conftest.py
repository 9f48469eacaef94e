"""A toy problem for judges: a dot walks to the left or the right edge; the words name the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.judging.vlm.server import Asked, Reply, VlmServer
from worldeval.data.store.episodes import EpisodeStore
from worldeval.judging.vlm.judge import VisionLanguageJudge
from worldeval.types import Episode

SIZE, LENGTH = 16, 7


def walk(key: str, *, task: str, to: str, row: int, world: str = "recorded") -> Episode:
    """The dot starts in the middle and is at the edge ``to`` in the last two frames."""
    rng = np.random.default_rng(row)
    frames = np.full((LENGTH, 2, SIZE, SIZE, 3), 60, np.uint8)
    frames += rng.integers(0, 20, frames.shape, dtype=np.uint8)
    # Nearly at the edge two frames before the end, at the edge (column 0 or 14) in the last two.
    steps = np.array([0, 1, 2, 3, 5, 7, 7])
    for t, step in enumerate(steps):
        column = 7 - step if to == "left" else 7 + step
        frames[t, :, row : row + 3, column : column + 2] = (250, 220, 40)
    solved = (steps == 7) & (task == to)
    return Episode(
        key=key, task=task, instruction=f"move the dot to the {task}", views=("front", "side"),
        frames=frames, poses=np.zeros((LENGTH, 4), np.float32),
        actions=np.zeros((LENGTH - 1, 3, 4), np.float32), success_at=solved,
        success=bool(solved.any()),
        extra={"world": world, "policy": "p", "start_id": f"s/{row}"},
    )  # fmt: skip


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., EpisodeStore]:
    def make(name: str, rows: range, world: str = "recorded") -> EpisodeStore:
        store = EpisodeStore.create(
            tmp_path / name, views=("front", "side"), image_size=(SIZE, SIZE),
            pose_names=("x", "y", "z", "gripper"), action_names=("dx", "dy", "dz", "gripper"),
            steps_per_frame=3, fps=10, robot_type="toy", images="lossless",
        )  # fmt: skip
        for row in rows:
            for task in ("left", "right"):
                for to in ("left", "right"):
                    key = f"{world}/{task}/{to}/{row}"
                    store.append(walk(key, task=task, to=to, row=row, world=world))
        store.close()
        return store

    return make


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VlmServer]]:
    """Starts servers of a vision-language model, and stops them after the test."""
    monkeypatch.setenv("NO_PROXY", "*")
    servers: list[VlmServer] = []

    def start(replies: Sequence[Reply] | Callable[[Asked], Reply], **options: str) -> VlmServer:
        servers.append(VlmServer(replies, **options).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def judge_at(tmp_path: Path) -> Iterator[Callable[..., VisionLanguageJudge]]:
    """Makes judges that ask a server of ``serve``: one vote of a small picture, unless said."""
    judges: list[VisionLanguageJudge] = []

    def make(server: VlmServer, **options: object) -> VisionLanguageJudge:
        given = {"model": "m", "votes": 1, "view_px": 0, "cache": tmp_path / "answers"} | options
        query = "&".join(f"{name}={value}" for name, value in given.items())
        judges.append(VisionLanguageJudge.from_uri(f"vlm:{server.url}?{query}"))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()
