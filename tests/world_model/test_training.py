"""Training: it learns, and a run that was stopped equals one that was not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from worldeval import cli
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import CheckpointError, MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.rollout.recording import open_rollouts
from worldeval.types import Episode
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig
from worldeval.world_model.autoencoder_training import AutoencoderTrainConfig, train_autoencoder
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.clips import ClipSource, cache_latents, load_frames
from worldeval.world_model.model import WorldModel
from worldeval.world_model.training import (
    WorldModelTrainConfig,
    moved,
    train_world_model,
)

from .test_model import robot


def write_store(root, episodes=3, frames=13, first=0) -> EpisodeStore:
    """Episodes in which a bright square follows the hand's x."""
    store = open_rollouts(root, robot(2), images="lossless")
    for i in range(first, first + episodes):
        rng = np.random.default_rng(i)
        actions = rng.uniform(-1, 1, (frames - 1, 3, 4)).astype(np.float32)
        start = np.array([0, 0.6, 0.2, 0], np.float32)
        poses = np.concatenate([start[None], robot(2).integrate(start, actions.reshape(-1, 4))])
        video = np.full((frames, 2, 16, 16, 3), 40, np.uint8)
        for t, pose in enumerate(poses):
            column = int(np.clip(8 + pose[0] * 40, 0, 12))
            video[t, :, 6:10, column : column + 4] = 220
        store.append(
            Episode(
                key=f"e{i}",
                task="t",
                instruction="go",
                views=("top", "wrist"),
                frames=video,
                poses=poses,
                actions=actions,
                extra={"start_id": f"s{i}", "seed": i, "split": "x"},
            )
        )
    store.close()
    return store


def loop_config(**settings) -> LoopConfig:
    return LoopConfig(
        **{
            "steps": 6,
            "batch": 4,
            "threads": 1,
            "warmup": 1,
            "report_every": 1,
            "validate_every": 100,
            **settings,
        }
    )


def small_autoencoder(tmp_path, steps=2):
    write_store(tmp_path / "store")
    config = AutoencoderTrainConfig(
        store=str(tmp_path / "store"),
        loop=loop_config(steps=steps),
        model=AutoencoderConfig(widths=(8, 8, 8), latent_channels=3, image_size=(16, 16)),
    )
    train_autoencoder(config, tmp_path / "ae")
    return config


def world_config(tmp_path, **settings):
    return WorldModelTrainConfig(
        store=str(tmp_path / "store"),
        autoencoder=str(tmp_path / "ae"),
        backbone=BackboneConfig(widths=(16, 16), blocks=1, token_width=16, heads=2),
        loop=loop_config(**settings),
    )


def weights(folder):
    return WorldModel.load(folder).state_dict()


def test_latents_are_normalised_and_metrics_are_lines(tmp_path):
    config = small_autoencoder(tmp_path, steps=6)
    model = Autoencoder.load(tmp_path / "ae")
    table = load_frames(EpisodeStore.open(config.store))
    video = torch.from_numpy(np.moveaxis(table.frames, -1, -3).astype(np.float32) / 127.5 - 1)
    latents = model.encode(video).flatten(0, 1)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.05)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=0.05)
    lines = (tmp_path / "ae" / "training" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


class Killed(Exception):
    """Stands for a kill: the loop must not get to save after it."""


def test_a_stopped_training_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    small_autoencoder(tmp_path)
    train_world_model(world_config(tmp_path), tmp_path / "whole", robot(2))

    real = Loop.save

    def save_then_die(self):
        if self.step <= 3:
            real(self)  # a state from the middle of training
        if self.step >= 5:
            raise Killed

    monkeypatch.setattr(Loop, "save", save_then_die)
    with pytest.raises(Killed):
        train_world_model(world_config(tmp_path, save_every_s=0), tmp_path / "cut", robot(2))
    monkeypatch.setattr(Loop, "save", real)
    train_world_model(world_config(tmp_path), tmp_path / "cut", robot(2))
    for name, value in weights(tmp_path / "whole").items():
        assert torch.allclose(value, weights(tmp_path / "cut")[name], atol=1e-6), name


def test_several_stores_teach_what_one_of_all_their_episodes_does(tmp_path):
    config = world_config(tmp_path)
    small_autoencoder(tmp_path)
    train_world_model(config, tmp_path / "whole", robot(2))
    write_store(tmp_path / "some", episodes=2)
    write_store(tmp_path / "rest", episodes=1, first=2)
    parts = replace(config, store=str(tmp_path / "some"), also=(str(tmp_path / "rest"),))
    train_world_model(parts, tmp_path / "parts", robot(2))
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "parts")[name]), name


def test_what_moves_counts_more(tmp_path):
    current, future = torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 1, 2, 3, 4, 4)
    future[0, 0, 1, :, 2, 3] = 5.0  # one of 32 places
    future[0, 0, 0, 1, 0, 0] = 5 * 3**0.5 / 31  # a 31st of that, which is the mean of all
    found = moved(current, future)
    assert found.shape == (1, 1, 2, 1, 4, 4) and (found > 0).sum() == 2
    assert found[0, 0, 1, 0, 2, 3] == 8.0  # 31 times the mean, of which 8 count
    assert found[0, 0, 0, 0, 0, 0].item() == pytest.approx(1.0)
    assert not moved(current, torch.zeros_like(future)).any()
    small_autoencoder(tmp_path)
    losses = []
    for weight in (0.0, 1.0):
        config = replace(world_config(tmp_path, steps=1), motion_weight=weight)
        train_world_model(config, tmp_path / str(weight), robot(2))
        lines = (tmp_path / str(weight) / "training" / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(lines[0])["loss"])
    assert losses[1] > losses[0]


def test_it_learns_to_overfit_three_episodes(tmp_path):
    small_autoencoder(tmp_path)
    train_world_model(
        world_config(tmp_path, steps=150, batch=8, learning_rate=3e-3), tmp_path / "wm", robot(2)
    )
    lines = (tmp_path / "wm" / "training" / "metrics.jsonl").read_text().splitlines()
    loss = [json.loads(line)["loss"] for line in lines]
    assert np.mean(loss[-30:]) < 0.75 * np.mean(loss[:5])


def test_clips_hold_the_right_frames(tmp_path):
    """Latents that count frames show which frames a clip was cut from."""
    table = load_frames(write_store(tmp_path / "store"))
    small_autoencoder(tmp_path / "other")
    train_world_model(world_config(tmp_path / "other", steps=1), tmp_path / "wm", robot(2))
    model = WorldModel.load(tmp_path / "wm")
    counted = np.arange(len(table.frames), dtype=np.float32)
    latents = np.broadcast_to(counted[:, None, None, None, None], (len(counted), 2, 3, 2, 2))
    source = ClipSource(table, latents, model.config, (("pose", 1.0), ("none", 1.0)))
    context, future = source.draw(32, torch.Generator().manual_seed(0), slice(None))
    now = context.current[:, 0, 0, 0, 0].numpy().astype(int)
    ahead = future[:, :, 0, 0, 0, 0].numpy().astype(int)
    assert (ahead == now[:, None] + np.arange(1, 5)).all()
    episode = np.searchsorted(table.first, now, side="right") - 1
    assert (ahead[:, -1] < table.first[episode + 1]).all(), "never across an episode's border"
    memory = context.memory[:, :, 0, 0, 0, 0].numpy().astype(int)
    for m, valid, t, e in zip(memory, context.valid.numpy(), now, episode, strict=True):
        assert all(table.first[e] <= i < t for i, ok in zip(m, valid, strict=True) if ok)
    assert np.allclose(context.poses[:, 3], table.poses[now])
    halves = [
        source.draw(32, torch.Generator().manual_seed(0), slice(r, None, 2))[1] for r in (0, 1)
    ]
    assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), future), "two processes share it"


def test_other_views_and_other_architectures_are_refused(tmp_path):
    small_autoencoder(tmp_path)
    with pytest.raises(MismatchError, match="views"):
        train_world_model(world_config(tmp_path), tmp_path / "wm", robot(3))
    train_world_model(world_config(tmp_path, steps=1), tmp_path / "wm", robot(2))
    wider = world_config(tmp_path, steps=2)
    wider = WorldModelTrainConfig(
        **{
            **{f: getattr(wider, f) for f in wider.__dataclass_fields__},
            "backbone": BackboneConfig(widths=(16, 32), blocks=1, token_width=16, heads=2),
        }
    )
    with pytest.raises(CheckpointError, match="another architecture"):
        train_world_model(wider, tmp_path / "wm", robot(2))


def test_latents_of_other_pictures_under_the_same_keys_are_made_again(tmp_path):
    small_autoencoder(tmp_path)
    codec, path = Autoencoder.load(tmp_path / "ae"), tmp_path / "latents.npy"
    table = load_frames(EpisodeStore.open(tmp_path / "store"))
    first = np.array(cache_latents(table, codec, path, "d"))
    stamp = path.stat().st_mtime_ns
    assert np.array_equal(cache_latents(table, codec, path, "d"), first)
    assert path.stat().st_mtime_ns == stamp
    table.frames = 255 - table.frames
    assert not np.array_equal(cache_latents(table, codec, path, "d"), first)


def test_a_training_goes_on_with_the_same_recordings_only(tmp_path, capsys):
    write_store(tmp_path / "store")
    words = ["train", "autoencoder", "--store", str(tmp_path / "store"), "--out"]
    words += [str(tmp_path / "ae"), "--loop.steps", "1", "--loop.batch", "1", "--loop.threads", "1"]
    words += ["--model.image-size", "16", "16", "--model.widths", "8", "8", "8"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert cli.main(words) == 0, capsys.readouterr().err
    shutil.rmtree(tmp_path / "store")
    write_store(tmp_path / "store", frames=12)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "begun with another store" in said and "Traceback" not in said
