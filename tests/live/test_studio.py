"""A world that is open for driving: drives of its own for each, episodes from several at once."""

import multiprocessing
from pathlib import Path

import pytest

from tests.world_model.test_model import autoencoder, model
from tests.world_model.test_training import write_store
from worldeval.data.provenance import read_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, StartStateError
from worldeval.live.studio import Studio


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A world model and an autoencoder, beside a store of start states."""
    model().save(tmp_path / "world-model")
    autoencoder().save(tmp_path / "autoencoder")
    write_store(tmp_path / "starts")
    return tmp_path


def opened(folder: Path) -> Studio:

    return Studio.open(folder / "world-model", starts=folder / "starts", device="cpu")


def save_some(folder: Path, name: str, count: int) -> None:
    studio = opened(folder)
    drive = studio.drive()
    drive.keys("r")
    for _ in range(count):
        studio.save(drive, folder / "saved", name=name)


def test_several_people_save_at_once_and_nothing_is_lost(checkpoints: Path) -> None:
    context = multiprocessing.get_context("fork")
    people = [
        context.Process(target=save_some, args=(checkpoints, name, 3)) for name in ("ann", "bob")
    ]
    for one in people:
        one.start()
    for one in people:
        one.join()
    table = EpisodeStore.open(checkpoints / "saved").metadata()
    keys = [f"{name}/s0/{i:03d}" for name in ("ann", "bob") for i in (1, 2, 3)]
    assert sorted(table["key"]) == keys
    assert read_manifest(checkpoints / "saved")["command"] == "live"


def test_start_states_are_named(checkpoints: Path) -> None:
    studio = opened(checkpoints)
    assert [start.start_id for start in studio.starts] == ["s0", "s1", "s2"]
    assert studio.drive().start.start_id == "s0" and studio.drive("s2").start.start_id == "s2"
    with pytest.raises(StartStateError, match="no start state 's9'; choose one of 3"):
        studio.drive("s9")
    with pytest.raises(ConfigError, match="nothing has been driven"):
        studio.save(studio.drive(), checkpoints / "saved")
    assert not (checkpoints / "saved").exists()


def test_another_world_model_does_not_mix_into_a_folder(checkpoints: Path) -> None:
    save_some(checkpoints, "ann", 1)
    changed = model()
    for parameter in changed.parameters():
        parameter.data += 0.01
    changed.save(checkpoints / "other" / "world-model")
    autoencoder().save(checkpoints / "other" / "autoencoder")
    studio = Studio.open(
        checkpoints / "other" / "world-model", starts=checkpoints / "starts", device="cpu"
    )
    drive = studio.drive()
    drive.keys("r")
    with pytest.raises(ConfigError):
        studio.save(drive, checkpoints / "saved")
