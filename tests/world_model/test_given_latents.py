"""A world model on latents that came with the data: the whole way, and a kill in the middle."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import DataError, StoreError
from worldeval.imagination.env import Imagination
from worldeval.imagination.replay import imagine_replays
from worldeval.learning.loop import Loop
from worldeval.motion.panda import panda
from worldeval.rollout.recording import open_rollouts
from worldeval.types import Episode
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.few_recordings.clip_augmentation import Augmentation
from worldeval.world_model.few_recordings.decoder import LatentDecoder, LatentDecoderConfig
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.model import WorldModel
from worldeval.world_model.sampler import SamplerConfig
from worldeval.world_model.training import WorldModelTrainConfig, train_world_model

from .test_training import Killed, loop_config

ROBOT = panda("absolute_pose", image_size=(16, 32))
SMALL = LatentDecoderConfig(
    widths=(8, 8, 8), gate_width=8, latent_channels=3, latent_size=(2, 4), latents="given"
)


@pytest.fixture
def recorded(tmp_path) -> EpisodeStore:
    """Two episodes with latents, and a decoder for them."""
    rng = np.random.default_rng(0)
    store = open_rollouts(tmp_path / "store", ROBOT, images="lossless")
    cache = LatentCache(tmp_path / "store", "given")
    for i, frames in enumerate((12, 36)):
        actions = rng.uniform(-0.2, 0.2, (frames - 1, 3, 7)).astype(np.float32)
        actions[..., -1] = np.abs(actions[..., -1])  # the gripper, 0 open to 1 closed
        poses = np.concatenate([np.zeros((1, 7), np.float32), actions[:, -1]])
        store.append(
            Episode(
                key=f"e{i}",
                task="t",
                instruction="go",
                views=ROBOT.views,
                frames=rng.integers(0, 255, (frames, 3, 16, 32, 3), dtype=np.uint8),
                poses=poses,
                actions=actions,
                joints=np.zeros((frames, 7), np.float32),
                extra={"start_id": f"s{i}", "seed": i, "split": "x"},
            )
        )
        cache.write(f"e{i}", rng.normal(size=(frames, 3, 3, 2, 4)).astype(np.float32))
    store.close()
    torch.manual_seed(0)
    LatentDecoder(SMALL).save(tmp_path / "autoencoder")
    return store


def settings(tmp_path, **loop) -> WorldModelTrainConfig:
    return WorldModelTrainConfig(
        store=str(tmp_path / "store"),
        autoencoder=str(tmp_path / "autoencoder"),
        held_out=("e1",),
        backbone=BackboneConfig(widths=(8, 8), blocks=1, token_width=8, heads=1),
        expectation=True,
        sampler=SamplerConfig(steps=1, sigma_max=10.0, noise_scale="none"),
        memory="strided",
        memory_slots=1,
        memory_mix=(("strided", 1.0),),
        augmentation=Augmentation(backward=0.5, turn=True, shift=1),
        own_replays_every=2,
        loop=loop_config(**loop),
    )


def test_it_is_trained_and_replayed_on_given_latents(tmp_path, recorded):
    train_world_model(settings(tmp_path, validate_every=3), tmp_path / "world-model", ROBOT)
    config = WorldModel.load(tmp_path / "world-model").config
    assert config.latents == "given" and config.angles == (3, 4, 5)
    assert not config.geometry and config.warp_depths_m == () and len(config.trust) == 3
    lines = (tmp_path / "world-model" / "training" / "metrics.jsonl").read_text().splitlines()
    gains = [row["gain_db"] for row in map(json.loads, lines) if "gain_db" in row]
    card = json.loads((tmp_path / "world-model" / "config.json").read_text())["card"]
    assert len(gains) == 2 and card["held_out"]["gain_db"] == max(gains)
    assert card["episodes"] == 1, "the one held out is not trained on"
    world = Imagination.open(tmp_path / "world-model", recorded, ROBOT)
    imagined = imagine_replays(world, recorded, tmp_path / "own", chunks=2, progress=False)
    one = imagined.by_key("own/s0")
    assert one.frames.shape == (9, 3, 16, 32, 3)
    assert np.allclose(one.poses, recorded.by_key("e0").poses[:9], atol=1e-6)
    assert np.abs(one.frames[0].astype(int) - recorded.by_key("e0").frames[0]).mean() < 20


def test_a_run_killed_between_its_own_replays_goes_on_as_if_it_had_not_been(
    tmp_path, recorded, monkeypatch
):
    train_world_model(settings(tmp_path), tmp_path / "whole", ROBOT)
    real = Loop.save

    def save_then_die(self):
        if self.step == 4:  # its replays are on the disk, the state is still that of step 2
            raise Killed
        real(self)

    monkeypatch.setattr(Loop, "save", save_then_die)
    with pytest.raises(Killed):
        train_world_model(settings(tmp_path), tmp_path / "cut", ROBOT)
    monkeypatch.setattr(Loop, "save", real)
    train_world_model(settings(tmp_path), tmp_path / "cut", ROBOT)
    whole, cut = (WorldModel.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_what_is_missing_is_named(tmp_path, recorded):
    with pytest.raises(DataError, match="held_out has \\['e7'\\]"):
        train_world_model(replace(settings(tmp_path), held_out=("e7",)), tmp_path / "wm", ROBOT)
    LatentCache(tmp_path / "store", "given").path("e0").unlink()
    with pytest.raises(StoreError, match="no latents of episode 'e0'"):
        train_world_model(settings(tmp_path), tmp_path / "wm", ROBOT)
