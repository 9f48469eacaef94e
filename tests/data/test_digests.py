"""Digests change with the content, and with nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data import checkpoint, digests
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, StoreError
from worldeval.types import Episode


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "w.bin").write_bytes(b"one")
    (tmp_path / "a" / "inner" / "v.bin").write_bytes(b"two")
    first = digests.of_path(tmp_path / "a")
    assert len(first) == digests.DIGITS and first == digests.of_path(str(tmp_path / "a"))
    os.utime(tmp_path / "a" / "w.bin", (1, 1))  # touched, not changed
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_bytes(b"any")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert digests.of_path(tmp_path / "a") == first
    (tmp_path / "a" / "inner" / "out").mkdir()
    (tmp_path / "a" / "inner" / "out" / "run.json").write_bytes(b"{}")
    assert digests.of_path(tmp_path / "a", but=tmp_path / "a" / "inner" / "out") == first
    assert digests.of_path(tmp_path / "a") != first
    (tmp_path / "a" / "inner" / "v.bin").write_bytes(b"owt")
    assert digests.of_path(tmp_path / "a", but=tmp_path / "a" / "inner" / "out") != first


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none cannot be read .*check the spelling of the path"):
        digests.of_path(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        digests.of_path(tmp_path / "pipe")


def test_a_folder_too_large_to_read_is_known_by_sizes_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "READ_BYTES", 2)
    (tmp_path / "w.bin").write_bytes(b"one")
    first = digests.of_folder(tmp_path)
    assert digests.of_folder(tmp_path) == first
    os.utime(tmp_path / "w.bin", (1, 1))
    assert digests.of_folder(tmp_path) != first


def test_checkpoints_by_their_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(config: int, weight: float) -> str:
        tensors = {"w": np.full(3, weight, np.float32)}
        checkpoint.save(tmp_path / "c", kind="any", config={"x": config}, tensors=tensors)
        return digests.of_path(tmp_path / "c")

    found = [save(1, 1.0), save(1, 2.0), save(2, 1.0)]
    assert len(set(found)) == 3 and save(1, 1.0) == found[0]
    monkeypatch.setattr(digests, "of_file", lambda path: 1 / 0)  # weights are not read again
    assert digests.of_path(tmp_path / "c") == found[0]


def test_stores_by_their_episodes(
    tmp_path: Path, episode: Callable[..., Episode], layout: dict[str, Any]
) -> None:
    def store(name: str, **changes: Any) -> EpisodeStore:
        made = EpisodeStore.create(tmp_path / name, **layout)
        for number in range(2):
            made.append(episode(number, **changes))
        made.close()
        return made

    first = store("a")
    digest = digests.of_store(first)
    assert digests.of_store(store("b")) == digest == digests.of_path(first.root)
    first.compact()
    assert digests.of_store(EpisodeStore.open(first.root)) == digest
    frames = episode(0).frames.copy()
    frames[-1, 0, 0, 0, 0] ^= 1  # one value of one pixel
    changes: list[dict[str, Any]] = [
        {"frames": frames},
        {"poses": episode(5).poses},
        {"instruction": "other"},
        {"success": None},
        {"extra": {"seed": 7}},
    ]
    found = [digests.of_store(store(f"c{n}", **change)) for n, change in enumerate(changes)]
    assert len({digest, *found}) == len(changes) + 1
    first = EpisodeStore.open(first.root)
    before = digests.of_episodes(first)
    first.append(episode(2))
    assert digests.of_store(first) != digest
    assert {key: digests.of_episodes(first)[key] for key in before} == before


def test_an_index_that_cannot_be_read_is_told(
    tmp_path: Path, episode: Callable[..., Episode], layout: dict[str, Any]
) -> None:
    store = EpisodeStore.create(tmp_path / "s", **layout)
    store.append(episode(0))
    store.close()
    next((tmp_path / "s" / "meta" / "episodes").rglob("*.parquet")).write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="index of .* cannot be read .*worldeval store verify"):
        digests.of_episodes(store)


def test_digests_while_the_store_is_compacted(
    tmp_path: Path, episode: Callable[..., Episode], layout: dict[str, Any]
) -> None:
    store = EpisodeStore.create(tmp_path / "s", **(layout | {"images": "lossless"}))
    for number in range(60):  # two files of the index, which become one
        store.append(episode(number))
    store.close()
    expected, reader = digests.of_episodes(store), EpisodeStore.open(store.root)
    compacting = threading.Thread(target=EpisodeStore.open(store.root).compact)
    compacting.start()
    while compacting.is_alive():
        assert digests.of_episodes(reader) == expected
    compacting.join()
    assert digests.of_episodes(reader) == expected
