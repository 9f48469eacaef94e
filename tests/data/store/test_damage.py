"""Damage that no picture and no row count shows, and what absurd numbers may not do."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldeval.cli import main
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.sealing import seal
from worldeval.errors import StoreError


@pytest.fixture
def filled(tmp_path, layout, episode) -> EpisodeStore:
    with EpisodeStore.create(tmp_path / "s", images="video", **layout) as store:
        for i in range(3):
            store.append(episode(i, length=12))
    return store


def told(store) -> str:
    return "\n".join(str(damage) for damage in EpisodeStore.open(store.root).verify())


@pytest.mark.parametrize("compacted", [False, True])
def test_every_flipped_bit_in_films_and_tables_is_found(filled, compacted) -> None:
    if compacted:
        filled.compact()
    rng = np.random.default_rng(0)
    for pattern, count in (("*.mp4", 60), ("data/*/*.parquet", 30)):
        paths = sorted(filled.root.rglob(pattern))
        for number in range(count):
            path = paths[rng.integers(len(paths))]
            whole = path.read_bytes()
            broken = bytearray(whole)
            broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(bytes(broken))
            damages = EpisodeStore.open(filled.root).verify()
            assert path in {damage.path for damage in damages}
            if path.suffix == ".mp4":
                with pytest.raises(StoreError, match="is damaged"):
                    list(EpisodeStore.open(filled.root))
            if number % 10 == 0:  # or damage would get a checksum of its own
                with pytest.raises(StoreError, match="cannot be compacted"):
                    EpisodeStore.open(filled.root).compact()
            path.write_bytes(whole)
    assert filled.verify() == []


def change(path, name, values, kind=None) -> None:
    """Rewrite one column with ``values(column)``, as a tool that knows no checksums would."""
    with pq.ParquetFile(path) as file:
        table, kept = file.read(), file.metadata.metadata
    number = table.schema.get_field_index(name)
    column = pa.array(values(table[name].to_pylist()), kind or table.schema.field(number).type)
    table = table.set_column(number, name, column)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        if b"worldeval" in kept:
            writer.add_key_value_metadata({"worldeval": kept[b"worldeval"].decode()})


INDEX = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-001.parquet"


@pytest.mark.parametrize(
    "path, column, values, message",
    [
        (DATA, "action", lambda v: [[np.nan] * 6] + v[1:], "its actions hold NaN .* first at 0"),
        (DATA, "observation.state", lambda v: v[:3] + [[np.inf] * 3] + v[4:], "poses.* at 3"),
        (DATA, "timestamp", lambda v: [2 * t for t in v], "timestamps are not those of 10"),
        (DATA, "frame_index", lambda v: v[::-1], "frames are not numbered"),
        (DATA, "task_index", lambda v: [0] * len(v), "other instructions than the index"),
        (DATA, "task_index", lambda v: [99] * len(v), "file-001.parquet"),
        (INDEX, "worldeval.extra", lambda v: ["{", *v[1:]], "episode 0: .*Expecting"),
        (INDEX, "worldeval.extra", lambda v: ["[" * 200_000, *v[1:]], "nest too deep"),
        (INDEX, "worldeval.key", lambda v: ["other", *v[1:]], "key 'episode-0'.*says 'other'"),
        (INDEX, "worldeval.success", lambda v: [False, *v[1:]], "success True.*says False"),
        (INDEX, "worldeval.key", lambda v: [v[1], *v[1:]], "a second episode with key"),
        (INDEX, "length", lambda v: [13, *v[1:]], "12 rows for it, expected 13"),
    ],
)
def test_values_that_are_wrong_are_named(filled, path, column, values, message) -> None:
    import re

    change(filled.root / path, column, values)
    assert re.search(message, told(filled)), told(filled)
    assert main(["store", "verify", str(filled.root)]) == 1


@pytest.mark.parametrize(
    "column, values, kind",
    [
        ("length", lambda v: [None, *v[1:]], None),
        ("length", lambda v: [-1, *v[1:]], None),
        ("length", lambda v: [10**15, *v[1:]], None),
        ("length", lambda v: ["a"] * 3, pa.string()),
        ("worldeval.key", lambda v: list(range(3)), pa.int64()),
        ("worldeval.key", lambda v: [None, *v[1:]], None),
        ("data/chunk_index", lambda v: [None, *v[1:]], None),
        ("tasks", lambda v: [[], *v[1:]], None),
        ("videos/observation.images.left/from_timestamp", lambda v: [np.nan, 0, 0], None),
        ("videos/observation.images.left/from_timestamp", lambda v: [1e300, 0, 0], None),
        ("episode_index", lambda v: v[::-1], None),
    ],
)
def test_an_index_that_can_be_none_is_refused_and_rebuilt(filled, column, values, kind) -> None:
    from worldeval.data.store.repair import repair

    change(filled.root / INDEX, column, values, kind)
    assert main(["store", "verify", str(filled.root)]) == 1
    with pytest.raises(StoreError, match="store repair"):
        EpisodeStore.open(filled.root)
    repair(filled.root)
    assert EpisodeStore.open(filled.root).keys == {"episode-0", "episode-1", "episode-2"}
    assert filled.verify() == []


def test_readers_say_what_is_wrong_with_a_table(filled) -> None:
    path, schema = filled.root / DATA, filled.layout.data_schema()
    for table, message in (
        (pa.table({"a": [1] * 12}), "no column 'observation.state'"),
        (pa.table({"action": [[1.0]] * 12}), "no column"),
        (schema.empty_table(), "has 0 rows"),
    ):
        pq.write_table(table, path)
        for row in filled._rows:  # as in stores from before there were checksums
            row["worldeval.checksum/data"] = None
        with pytest.raises(StoreError, match=message):
            filled.episode(1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps_per_frame": 10**12}, "steps_per_frame is 1000000000000"),
        ({"steps_per_frame": 2.5}, "steps_per_frame is 2.5"),
        ({"steps_per_frame": "2"}, "steps_per_frame is '2'"),
        ({"steps_per_frame": True}, "steps_per_frame is True"),
        ({"views": [f"v{i}" for i in range(100_000)]}, "100000 views"),
        ({"views": "left"}, "views are 'left'"),
        ({"views": [1, 2]}, "expected texts"),
        ({"image_size": [10**9, 10**9]}, "image_size"),
        ({"image_size": [16.0, 24]}, "image_size"),
        ({"image_size": [16384, 16384]}, "pixels per frame"),
        ({"image_size": 7}, "image_size is 7"),
        ({"action_names": ["a"] * 1000, "steps_per_frame": 1000}, "action numbers per frame"),
        ({"fps": "ten"}, "fps is 'ten'"),
        ({"fps": 1e30}, "fps is 1e"),
        ({"robot_type": 5}, "robot_type is 5"),
        ({"colour": "red"}, "unusable layout"),
    ],
)
def test_absurd_layouts_are_refused_before_room_is_made(filled, changes, message) -> None:
    path = filled.root / "meta/info.json"
    info = json.loads(path.read_text())
    info["worldeval"]["layout"].update(changes)
    path.write_text(json.dumps(info))
    with pytest.raises(StoreError, match=message):
        EpisodeStore.open(filled.root)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[]",
        '{"worldeval": 1}',
        '{"a": NaN}',
        "\udcff",
        "",
        '{"worldeval": {"format": "worldeval-store-1"}, "worldeval": {}}',
    ],
)
def test_a_broken_info_is_one_sentence_and_rebuilt(filled, text) -> None:
    from worldeval.data.store.repair import repair

    path = filled.root / "meta/info.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError):
        EpisodeStore.open(filled.root)
    assert main(["store", "verify", str(filled.root)]) == 1
    repair(filled.root)
    assert len(EpisodeStore.open(filled.root)) == 3 and filled.verify() == []


def test_counts_that_are_no_counts(filled) -> None:
    path = filled.root / "meta/info.json"
    info = json.loads(path.read_text())
    for name, value in (("total_episodes", "3"), ("total_episodes", -1), ("total_frames", 1e400)):
        path.write_text(json.dumps(info | {name: value}))
        with pytest.raises(StoreError, match=f"{name}|no number"):
            EpisodeStore.open(filled.root)
    path.write_text(json.dumps(info | {"data_files_size_in_mb": "x"}))
    with pytest.raises(StoreError, match="data_files_size_in_mb = 'x'"):
        EpisodeStore.open(filled.root)


@pytest.mark.parametrize(
    "name",
    [
        "meta/info.json",
        "meta/tasks.parquet",
        INDEX,
        DATA,
        "videos/observation.images.left/chunk-000/file-001.mp4",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(filled, name, kind, capsys) -> None:
    path = filled.root / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    assert main(["store", "verify", str(filled.root)]) == 1
    assert kind in capsys.readouterr().out
    with pytest.raises(StoreError, match=kind):
        list(EpisodeStore.open(filled.root))


def test_stores_from_before_there_were_checksums_can_get_them(filled, episode, capsys) -> None:
    path = filled.root / INDEX
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(list(filled.layout.checksum_columns)), path)
    with EpisodeStore.open(filled.root) as store:
        store.append(episode(3))  # in the columns that the index has
    assert filled.verify() == []
    assert main(["store", "verify", str(filled.root)]) == 0
    assert "4 episodes have no checksums" in capsys.readouterr().out
    assert seal(filled.root) == 4 and seal(filled.root) == 0
    video = filled.root / "videos/observation.images.left/chunk-000/file-001.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "another checksum" in told(filled) or "file-001.mp4" in told(filled)


def test_actions_beyond_the_robot_are_told(tmp_path, capsys) -> None:
    from worldeval.rollout.recording import open_rollouts
    from worldeval.types import Episode
    from worldeval.worlds.sawyer import ROBOT

    actions = np.zeros((2, ROBOT.steps_per_frame, ROBOT.action_dim), np.float32)
    actions[1, 0, 1] = 3
    frames = np.zeros((3, len(ROBOT.views), *ROBOT.image_size, 3), np.uint8)
    with open_rollouts(tmp_path, ROBOT) as store:
        store.append(
            Episode(
                key="a/b",
                task="reach",
                instruction="go",
                views=ROBOT.views,
                frames=frames,
                poses=np.zeros((3, ROBOT.pose_dim), np.float32),
                actions=actions,
            )
        )
    assert main(["store", "verify", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"note: 1 actions {ROBOT.action_names[1]!r} lie outside of" in said and "'a/b'" in said


def test_layouts_that_are_wrong_are_rebuilt_as_recorded(filled) -> None:
    from worldeval.data.store.repair import repair

    path = filled.root / "meta/info.json"
    for changes in ({"fps": 50}, {"steps_per_frame": 10**12}, {"image_size": [16, 16]}):
        info = json.loads(path.read_text())
        info["worldeval"]["layout"].update(changes)
        path.write_text(json.dumps(info))
        assert main(["store", "verify", str(filled.root)]) == 1
        repair(filled.root)
        assert EpisodeStore.open(filled.root).layout == filled.layout and filled.verify() == []


def test_random_damage_ends_in_right_values_or_one_sentence(filled, episode) -> None:
    """A share of a longer run: whatever is read is what was recorded."""
    import shutil

    from worldeval.data.store.repair import repair
    from worldeval.errors import WorldEvalError

    rng, whole, right = np.random.default_rng(3), filled.root, list(filled)
    copy = whole.parent / "copy"
    for _ in range(15):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        files = sorted(p for p in copy.rglob("*") if p.is_file() and p.stat().st_size)
        for path in rng.choice(files, 2, replace=False):
            content = bytearray(path.read_bytes())
            if rng.random() < 0.3:
                del content[rng.integers(len(content)) :]
            for place in rng.integers(1, 1 + min(len(content), 1500), 3) if content else ():
                content[-place] ^= 1 << rng.integers(8)
            path.write_bytes(bytes(content))
        for attempt in (lambda: None, lambda: repair(copy)):
            try:
                attempt()
                EpisodeStore.open(copy).verify()
                for mine, theirs in zip(EpisodeStore.open(copy), right, strict=False):
                    assert mine.key == theirs.key and mine.success == theirs.success
                    for name in ("frames", "poses", "actions", "success_at"):
                        assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
            except WorldEvalError:
                continue


@pytest.mark.parametrize("ends", [("from",), ("to",), ("from", "to")])
def test_an_index_that_shows_the_pictures_of_another_episode_is_found(filled, ends) -> None:
    filled.compact()
    path = filled.root / "meta/episodes/chunk-000/file-000.parquet"
    name = next(n for n in pq.read_schema(path).names if n.endswith("/from_timestamp"))
    for end in ends:
        column = name.replace("/from_", f"/{end}_")
        change(path, column, lambda times: [times[1], *times[1:]])
    damages = told(filled)
    assert "repair" in damages
    if ends == ("from", "to"):
        assert "overlaps that of episode" in damages
    else:
        assert "the index is wrong" in damages
        with pytest.raises(StoreError, match="the index is wrong"):
            EpisodeStore.open(filled.root).episode(0)
