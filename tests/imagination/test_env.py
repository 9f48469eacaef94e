"""Imagination as a world: for the engine, for gymnasium, and for who gives the wrong thing."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from tests.world_model.test_model import autoencoder, model, robot
from tests.world_model.test_training import write_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import CheckpointError, MismatchError, StartStateError, WorldError
from worldeval.imagination.env import Imagination
from worldeval.imagination.replay import fidelity, imagine_replays, label_replays, suite_of
from worldeval.rollout.vector_env import WorldEnv, WorldVectorEnv
from worldeval.types import ActionChunk
from worldeval.world_model.latent_rollout import FrameRollouts


@pytest.fixture
def world(tmp_path):
    store = write_store(tmp_path / "store")
    return Imagination(FrameRollouts(model(), autoencoder()), robot(), store)


def chunk_of(poses):
    return ActionChunk(actions=np.zeros((len(poses), 12, 4), np.float32), poses=poses)


def test_it_starts_at_the_recorded_frame_and_knows_no_success(world):
    suite = suite_of(world._starts, chunks=3, name="s")
    began = world.reset(suite.starts, [1, 2, 3])
    assert np.array_equal(began.frames[1, 0], world._starts.frames(1)[0])
    after = world.step(chunk_of(np.full((2, 4, 4), 0.3, np.float32)), [0, 2])
    assert began.success is None and after.success is None
    assert after.frames.shape == (2, 4, 2, 16, 16, 3)


def test_rows_can_begin_anew_without_disturbing_others(world):
    starts = suite_of(world._starts, chunks=3, name="s").starts
    poses = np.full((3, 4, 4), 0.3, np.float32)
    world.reset(starts, [1, 2, 3])
    world.step(chunk_of(poses), [0, 1, 2])
    expected = world.step(chunk_of(poses), [0, 1, 2]).frames
    world.reset(starts, [1, 2, 3])
    first = world.step(chunk_of(poses), [0, 1, 2]).frames
    world.reset_rows([1], [starts[1]], [2])
    again = world.step(chunk_of(poses), [0, 1, 2]).frames
    assert np.abs(again[0].astype(int) - expected[0]).max() <= 1
    assert np.abs(again[1].astype(int) - first[1]).max() <= 1


def test_gymnasium_accepts_it(world):
    suite = suite_of(world._starts, chunks=2, name="s")
    check_env(WorldEnv(world, suite), skip_render_check=True)
    envs = WorldVectorEnv(world, suite, num_envs=2)
    observed, _ = envs.reset(seed=0)
    assert observed in envs.observation_space
    for _ in range(3):
        observed, reward, ended, cut, _ = envs.step(envs.action_space.sample())
        assert observed in envs.observation_space and reward.shape == ended.shape == cut.shape
    envs.close()


def test_replays_are_labelled_with_the_truth(world, tmp_path):
    source = world._starts
    imagined = {
        name: imagine_replays(
            world, source, tmp_path / name, variant=name, chunks=3, progress=False
        )
        for name in ("own", "zero")
    }
    report = fidelity(source, imagined, robot().views, robot().frames_per_chunk, with_ssim=False)
    assert report.winners()["episodes"] == 3
    labelled = label_replays(imagined["own"], source, tmp_path / "labelled")
    assert set(labelled.metadata()["start_id"]) == {"s0", "s1", "s2"}
    assert labelled.episode(0).success is None, "nobody knew the outcome of these recordings"


def test_wrong_starts_and_robots_are_named(world, tmp_path):
    starts = suite_of(world._starts, chunks=3, name="s").starts
    unknown = type(starts[0])(**{**vars(starts[0]), "start_id": "nowhere"})
    with pytest.raises(StartStateError, match="'nowhere'.*'s0'"):
        world.reset([unknown], [0])
    with pytest.raises(MismatchError, match="views"):
        Imagination(world.frame_rollouts, robot(3), world._starts)
    model().save(tmp_path / "world-model")
    with pytest.raises(CheckpointError, match="autoencoder"):
        Imagination.open(tmp_path / "world-model", world._starts, robot())


def test_another_autoencoder_is_refused(world, tmp_path):
    from dataclasses import replace

    from worldeval.world_model.model import WorldModel

    autoencoder().save(tmp_path / "autoencoder")
    trained_elsewhere = WorldModel(replace(model().config, autoencoder="0123456789ab"))
    trained_elsewhere.save(tmp_path / "world-model")
    with pytest.raises(CheckpointError, match="0123456789ab"):
        Imagination.open(tmp_path / "world-model", EpisodeStore.open(world._starts.root), robot())


def test_memory_that_runs_out_costs_no_rollout_and_changes_none(world, monkeypatch, caplog):
    starts = suite_of(world._starts, chunks=3, name="s").starts
    poses = np.repeat(world.reset(starts, range(len(starts))).poses, 4, axis=1)
    chunk = ActionChunk(actions=np.zeros((len(starts), 12, 4), np.float32), poses=poses)
    roomy = world.step(chunk, range(len(starts)))
    whole = world.frame_rollouts._decode

    def decode(latents, rows):
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(latents, rows)

    monkeypatch.setattr(world.frame_rollouts, "_decode", decode)
    world.reset(starts, range(len(starts)))
    cramped = world.step(chunk, range(len(starts)))
    np.testing.assert_array_equal(cramped.frames, roomy.frames)
    assert "give --batch 1" in caplog.text
    monkeypatch.setattr(world.frame_rollouts, "_decode", lambda *_: decode(None, [0, 1]))
    with pytest.raises(WorldError, match="a single rollout"):
        world.step(chunk, range(len(starts)))
