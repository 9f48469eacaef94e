"""What is no regular file is told before it is opened: nothing waits for a pipe's other end."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from worldeval.data import atomic
from worldeval.data.files import parsed_json, read_json, read_text, regular_file
from worldeval.errors import CheckpointError, DataError, StoreError, WorldEvalError


def test_a_file_and_a_link_to_one_are_regular(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, null]}')
    (tmp_path / "link").symlink_to(path)
    assert regular_file(path) == path
    assert read_json(tmp_path / "link") == {"a": [1, None]}


def test_whatever_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "to-pipe").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name, expected in {
        "pipe": "is a named pipe, expected a regular file as film; write its content",
        "to-pipe": "is a named pipe",
        "socket": "is a socket",
        "/dev/zero": "is a device",
        ".": "is a folder",
        "missing": "there is no film at",
        "loop": "cannot be opened (",
        "a\0b": "cannot be opened (embedded null byte)",
        "a" * 300: "cannot be opened (File name too long)",
    }.items():
        with pytest.raises(CheckpointError) as told:
            regular_file(tmp_path / name, "film", error=CheckpointError)
        assert expected in str(told.value)


def test_what_is_no_json_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, expected in {
        b'{"a": 1': "cannot be read as JSON (",
        b"": "cannot be read as JSON (",
        b"\xff\xfe{\0}\0": "is no text in utf-8 (byte 0)",
        b"[" * 100_000: "its brackets nest too deeply",
        b'{"a":' * 100_000: "its brackets nest too deeply",
        b"9" * 10_000: "cannot be read as JSON (Exceeds the limit",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match="the suite") as told:
            read_json(path, "suite")
        assert expected in str(told.value)
    with pytest.raises(ValueError, match="too deeply"):
        parsed_json("[" * 100_000)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(DataError, match="has 1,099,511,627,776 bytes, expected at most"):
        read_text(path)


def test_no_reader_waits_for_a_pipe(tmp_path: Path, record_lerobot: Callable[..., Path]) -> None:
    """Films, latents, states, keys, adapters and the files of datasets."""
    from worldeval.data.readers.droid import LeRobotDroid
    from worldeval.data.readers.droid_keys import read_key_map
    from worldeval.data.video import mp4_times, read_mp4
    from worldeval.learning.resuming import load_state
    from worldeval.policies.joint_adapter import LearnedAdapter
    from worldeval.policies.population import read_population
    from worldeval.policies.servers.request_keys import read_keys
    from worldeval.rollout.suite import Suite
    from worldeval.world_model.latents import LatentCache

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    latents = LatentCache(tmp_path, "l")
    latents.path("k").parent.mkdir(parents=True)
    os.mkfifo(latents.path("k"))
    readers: list[Callable[[], object]] = [
        lambda: read_mp4(pipe),
        lambda: mp4_times(pipe),
        lambda: load_state(pipe),
        lambda: read_keys(pipe),
        lambda: read_key_map(pipe),
        lambda: LearnedAdapter.load(pipe),
        lambda: read_population(pipe),
        lambda: Suite.load(pipe),
        lambda: latents.read("k"),
    ]
    root = record_lerobot("v3.0")
    for name in ("info.json", "episodes/chunk-000/file-000.parquet"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(root, copy)
        (copy / "meta" / name).unlink()
        os.mkfifo(copy / "meta" / name)
        readers.append(partial(LeRobotDroid, copy))
    table = root / "data/chunk-000/file-000.parquet"
    table.unlink()
    os.mkfifo(table)
    readers.append(lambda: LeRobotDroid(root).episode("0"))
    for read in readers:
        with pytest.raises(WorldEvalError) as told:
            read()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["info.json", "episodes.jsonl"])
def test_a_dataset_s_index_of_absurd_size_is_not_read(
    name: str, record_lerobot: Callable[..., Path]
) -> None:
    from worldeval.data.readers.droid import LeRobotDroid

    root = record_lerobot("v2.1")
    os.truncate(root / "meta" / name, 2**38)
    with pytest.raises(DataError, match="has 274,877,906,944 bytes, expected at most"):
        LeRobotDroid(root)


def test_the_lock_of_a_store_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Msvcrt:  # what Windows does: a range of bytes is locked, or EACCES at once
        LK_NBLCK = 2
        taken: set[tuple[int, int]] = set()

        @classmethod
        def locking(cls, descriptor: int, mode: int, count: int) -> None:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) in cls.taken:
                raise PermissionError(13, "Permission denied")
            cls.taken.add((status.st_dev, status.st_ino))

    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt)
    monkeypatch.setattr(atomic.sys, "platform", "win32")
    first, second = atomic.WriterLock(tmp_path / "lock"), atomic.WriterLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(StoreError, match="being written by another process"):
        second.acquire()
    assert first.held and not second.held
