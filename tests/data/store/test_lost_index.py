"""What lies on the disk and is named nowhere is never deleted, and is found again."""

import json
import os
import shutil

import numpy as np
import pytest

from worldeval.cli import main
from worldeval.data.atomic import WriterLock
from worldeval.data.store import facts, journal
from worldeval.data.store.contents import SET_ASIDE, recordings
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.repair import BACKUP, repair
from worldeval.data.store.verification import verify
from worldeval.errors import StoreError


@pytest.fixture
def filled(store, episode) -> EpisodeStore:
    """Three merged episodes and two that are not."""
    for i in range(3):
        store.append(episode(i, length=4 + i % 2))
    store.compact()
    for i in range(3, 5):
        store.append(episode(i))
    store.extra["made"] = "today"
    store.close()
    return store


def content(root) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in recordings(root)}


@pytest.mark.parametrize("lost", ["meta/episodes", "meta", "meta/tasks.parquet", "meta/info.json"])
def test_what_is_lost_is_told_and_rebuilt(filled, assert_same, episode, lost, capsys) -> None:
    root, before, files = filled.root, list(filled), content(filled.root)
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["store", "verify", str(root)]) == 1
    assert "store repair" in capsys.readouterr().out
    for change in (
        lambda: EpisodeStore.open(root).compact(),
        lambda: EpisodeStore.open(root).append(episode(9)),
        lambda: EpisodeStore.open_or_create(
            root,
            **{k: v for k, v in vars(filled.layout).items()},
        ).append(episode(9)),
    ):
        with pytest.raises(StoreError, match="store repair"):
            change()
    assert content(root) == files
    assert main(["store", "repair", str(root)]) == 0
    assert content(root) == files
    again = EpisodeStore.open(root)
    assert again.verify() == []
    assert again.layout == filled.layout and again.metadata().equals(filled.metadata())
    for mine, theirs in zip(again, before, strict=True):
        assert_same(mine, theirs)
    assert repair(root).backup is None  # there is nothing left to repair
    with again:
        again.append(episode(9))
    again.compact()
    assert again.verify() == [] and len(again) == 6


def test_a_part_of_the_index_is_kept_and_the_old_one_too(filled, monkeypatch, episode) -> None:
    root = filled.root
    monkeypatch.setattr("worldeval.data.store.episodes.ROWS_PER_FILE", 3)
    with EpisodeStore.open(root) as store:
        store.append(episode(5))
    last = sorted((root / "meta/episodes").rglob("*.parquet"))[-1]
    last.unlink()
    with pytest.raises(StoreError, match=r"names 5 episodes, meta/info.json counts 6"):
        EpisodeStore.open(root)
    done = repair(root)
    assert (done.episodes, done.rebuilt) == (6, [5])
    assert done.backup == root / f"{BACKUP}-0" and (done.backup / "info.json").is_file()
    assert EpisodeStore.open(root).by_key("episode-5").extra == episode(5).extra


def test_tables_without_a_copy_are_rebuilt_with_unknown_as_unknown(filled, monkeypatch) -> None:
    before = list(filled)
    shutil.rmtree(filled.root / "meta/episodes")
    monkeypatch.setattr(facts, "unpacked", lambda metadata: None)
    done = repair(filled.root)
    assert any("key, task, success and facts of 5 episodes" in said for said in done.lost)
    again = EpisodeStore.open(filled.root)
    assert again.verify() == []
    for mine, theirs in zip(again, before, strict=True):
        assert np.array_equal(mine.frames, theirs.frames)
        assert np.array_equal(mine.actions, theirs.actions)
        assert mine.instruction == theirs.instruction
        assert mine.success is None and mine.key.startswith("recovered/")


def test_an_episode_lost_between_others_is_not_made_up(filled) -> None:
    shutil.rmtree(filled.root / "meta/episodes")
    names = [name for name in recordings(filled.root) if name.startswith("data/")]
    (filled.root / names[-2]).unlink()
    with pytest.raises(StoreError, match="lost episode 3 with its data table"):
        repair(filled.root)
    assert not (filled.root / f"{BACKUP}-0").exists()


def test_an_index_from_an_older_copy_overwrites_nothing(store, episode) -> None:
    for i in range(2):
        store.append(episode(i))
    store.close()
    shutil.copytree(store.root / "meta", store.root.parent / "old")
    for i in range(2, 5):
        store.append(episode(i))
    store.close()
    shutil.rmtree(store.root / "meta")
    shutil.copytree(store.root.parent / "old", store.root / "meta")
    files = content(store.root)
    for change in (
        lambda: EpisodeStore.open(store.root).append(episode(7)),
        lambda: EpisodeStore.open(store.root).compact(),
    ):
        with pytest.raises(StoreError, match="named by no episode"):
            change()
    assert content(store.root) == files and len(EpisodeStore.open(store.root).verify()) >= 3
    assert repair(store.root).rebuilt == [2, 3, 4]
    assert EpisodeStore.open(store.root).keys == {f"episode-{i}" for i in range(5)}


def test_what_a_killed_writer_left_is_kept(store, episode, caplog) -> None:
    store.append(episode(0))
    store.close()
    whole = store.root.parent / "whole"
    shutil.copytree(store.root, whole)
    store.append(episode(1))
    left = (store.root / "data/chunk-000/file-001.parquet").read_bytes()
    store.close()
    for name in set(recordings(store.root)) - set(recordings(whole)):
        shutil.copy(store.root / name, whole / name)
    with pytest.raises(StoreError, match="store repair"):  # not a moment to lose it
        EpisodeStore.open(whole).compact()
    taken = store.root.parent / "taken"
    shutil.copytree(whole, taken)
    assert repair(taken).rebuilt == [1] and EpisodeStore.open(taken).verify() == []
    with EpisodeStore.open(whole) as again:
        again.append(episode(2))
    assert "killed" in caplog.text
    kept = whole / SET_ASIDE / "000/data/chunk-000/file-001.parquet"
    assert kept.read_bytes() == left and EpisodeStore.open(whole).verify() == []


@pytest.mark.parametrize("part", ["data", "videos", "meta/episodes", ".compaction", ".writer.lock"])
def test_nothing_is_written_or_deleted_through_a_link(tmp_path, layout, episode, part) -> None:
    with EpisodeStore.create(tmp_path / "s", images="video", **layout) as store:
        for i in range(2):
            store.append(episode(i))
    outside = tmp_path / "outside"
    inside = tmp_path / "s" / part
    if part.startswith("."):
        inside.unlink(missing_ok=True)
        outside.mkdir()
    else:
        shutil.move(inside, outside)
    (outside / "precious").write_text("mine")
    os.symlink(outside, inside)
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
    store = EpisodeStore.open(tmp_path / "s")
    assert len(list(store)) == 2  # reading through links is fine
    for change in (store.compact, lambda: store.append(episode(7)), lambda: repair(store.root)):
        with pytest.raises(StoreError, match="is a link to"):
            change()
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before


def test_a_journal_whose_files_are_gone_deletes_nothing(store, episode) -> None:
    for i in range(2):
        store.append(episode(i))
    store.close()
    files = content(store.root)
    names = list(files)
    for moves in ({}, {"meta/episodes/chunk-000/file-000.parquet": "crc32-00000000-7"}):
        plan = {"moves": moves, "deletions": names}
        (store.root / journal.JOURNAL).write_text(json.dumps(plan))
        with pytest.raises(StoreError, match="cannot be finished"):
            EpisodeStore.open(store.root)
        assert content(store.root) == files


def test_where_no_table_can_be_read_no_empty_index_is_made(filled) -> None:
    shutil.rmtree(filled.root / "meta/episodes")
    for path in (filled.root / "data").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:50])
    files = content(filled.root)
    with pytest.raises(StoreError, match="no episode of .* can be told"):
        repair(filled.root)
    assert content(filled.root) == files and not (filled.root / SET_ASIDE).exists()


def test_a_damaged_table_stays_where_it_is(filled) -> None:
    shutil.rmtree(filled.root / "meta/episodes")
    last = sorted((filled.root / "data").rglob("*.parquet"))[-1]
    last.write_bytes(last.read_bytes()[:50])
    files = content(filled.root)
    done = repair(filled.root)
    assert done.episodes == 4 and any(last.name in said for said in done.lost)
    assert content(filled.root) == files
    assert any(last.name in note for note in verify(filled.root, WriterLock(last)).notes)
