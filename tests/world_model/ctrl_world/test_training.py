"""Fine-tuning: it cuts the right clips, is shared without a trace, goes on exactly, and learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import Loop
from worldeval.types import Episode
from worldeval.world_model.ctrl_world.clips import (
    ClipConfig,
    LatentClips,
    LatentEpisode,
    read_stores,
)
from worldeval.world_model.ctrl_world.model import CtrlWorld
from worldeval.world_model.ctrl_world.training import CtrlWorldTrainConfig, train_ctrl_world
from worldeval.world_model.latents import LatentCache

DROID = Path(os.environ.get("WORLDEVAL_DROID", Path(__file__).parents[4] / "shared" / "droid"))
RELEASE = Path(
    os.environ.get(
        "WORLDEVAL_PARITY_RELEASE", Path(__file__).parents[4] / "shared" / "parity" / "case_a"
    )
)
SIZE = (2, 4)
"""Of the latents of a view: the smallest that the network below takes."""
VIEWS = ("exterior_1", "exterior_2", "wrist")
POSES = ("hand_x_m", "hand_y_m", "hand_z_m", "roll_rad", "pitch_rad", "yaw_rad", "gripper")


def write_store(root: Path, lengths: tuple[int, ...], robot: str = "droid-panda") -> Path:
    """Episodes in which everything moves slowly to the right, with latents that say so."""
    store = EpisodeStore.create(
        root,
        views=VIEWS,
        image_size=(8 * SIZE[0], 8 * SIZE[1]),
        pose_names=POSES,
        action_names=POSES,
        steps_per_frame=3,
        fps=5.0,
        robot_type=robot,
        images="lossless",
    )
    for number, length in enumerate(lengths):
        t = np.arange(length, dtype=np.float32)
        poses = np.full((length, 7), 0.4, np.float32)
        poses[:, 0] = 0.3 + 0.02 * t
        frames = np.zeros((length, 3, 8 * SIZE[0], 8 * SIZE[1], 3), np.uint8)
        frames += (20 * t[:, None, None, None, None] % 250).astype(np.uint8)
        store.append(
            Episode(
                key=f"e{number}",
                task="droid",
                instruction=f"go {number}",
                views=VIEWS,
                frames=frames,
                poses=poses,
                actions=np.repeat(poses[1:, None], 3, axis=1),
            )
        )
        latents = np.sin(t / 3)[:, None, None, None, None] * np.ones((1, 3, 4, *SIZE))
        LatentCache(root, "svd").write(f"e{number}", latents.astype(np.float32))
    store.close()
    return root


@pytest.fixture(scope="module")
def start(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a backbone of two levels, for latents of 2 by 4."""
    from diffusers import UNetSpatioTemporalConditionModel

    model = CtrlWorld.load(imported)
    unet = {
        **model.config.unet,
        "block_out_channels": [32, 32],
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
        "num_attention_heads": [1, 1],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model.unet = UNetSpatioTemporalConditionModel.from_config(unet)
    model.config = replace(model.config, unet=unet, latent_size=SIZE)
    folder = tmp_path_factory.mktemp("start")
    model.save(folder, autoencoder=imported)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("stores") / "train", (9, 14))


def settings(store: Path, start: Path, **loop: Any) -> CtrlWorldTrainConfig:
    taken = {
        "steps": 4, "batch": 4, "learning_rate": 1e-3, "warmup": 1, "ema": 0.5, "threads": 1,
        "device": "cpu", "report_every": 1, "validate_every": 2, "save_every_s": 0.0, **loop,
    }  # fmt: skip
    return CtrlWorldTrainConfig(
        store=(str(store),),
        validation=(str(store),),
        start_from=str(start),
        loop=LoopConfig(**taken),
        validation_clips=5,
        replays=0,
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "training" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "samples_per_s"} for row in found]


def assert_close(one: list[dict[str, Any]], other: list[dict[str, Any]], rel: float) -> None:
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=rel)


def counted(length: int, start: Path) -> LatentClips:
    """Clips of one episode whose latents and poses count its frames."""
    model = CtrlWorld.load(start).config
    t = np.arange(length, dtype=np.float32)
    episode = LatentEpisode(
        key="e",
        instruction="go",
        latents=np.broadcast_to(t[:, None, None, None, None], (length, 3, 4, *SIZE)),
        poses=np.repeat(t[:, None], 7, axis=1),
    )
    return LatentClips([episode], model)


def test_a_clip_has_memory_behind_and_new_frames_ahead(start: Path) -> None:
    clips = counted(60, start)
    assert clips.frames(60, 50, 1, False).tolist() == [
        26, 30, 34, 38, 42, 46, 50, 51, 52, 53, 54
    ]  # fmt: skip
    assert clips.frames(60, 50, 2, False).tolist() == [
        2, 10, 18, 26, 34, 42, 50, 52, 54, 56, 58
    ]  # fmt: skip
    assert clips.frames(60, 9, 1, False)[:7].tolist() == [0, 0, 0, 0, 1, 5, 9]
    assert clips.frames(60, 9, 2, True)[:7].tolist() == [9] * 7


def test_drawn_clips_stay_in_their_episode_and_are_shared_without_a_trace(start: Path) -> None:
    clips = counted(30, start)
    context, future = clips.draw(400, torch.Generator().manual_seed(0), slice(None))
    assert context.memory.shape == (400, 6, 3, 4, *SIZE) and future.shape == (400, 4, 3, 4, *SIZE)
    now = context.current[:, 0, 0, 0, 0]
    ahead, past = future[..., 0, 0, 0, 0], context.memory[..., 0, 0, 0, 0]
    pace = ahead[:, 0] - now
    assert torch.equal(ahead, now[:, None] + pace[:, None] * torch.arange(1, 5))
    assert set(pace.tolist()) == {1.0, 2.0} and ahead.max() == 29 and now.min() == 0
    # only too near the end for the double pace is the single one more frequent
    assert 0.4 < float((pace[now <= 21] == 2).float().mean()) < 0.6
    still = (past == now[:, None]).all(dim=1)
    assert 0.09 < float(still[now > 0].float().mean()) < 0.21
    stride = now[:, None] - pace[:, None] * 4 * torch.arange(6, 0, -1)
    assert torch.equal(past[~still], stride.clamp(min=0)[~still])
    order = np.concatenate([past.numpy(), now.numpy()[:, None], ahead.numpy()], axis=1)
    assert (context.poses == order[..., None]).all()
    parts = [
        clips.draw(400, torch.Generator().manual_seed(0), slice(first, None, 4))[1]
        for first in range(4)
    ]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), future)


def test_what_cannot_be_trained_on_is_named(store: Path, start: Path, tmp_path: Path) -> None:
    model = CtrlWorld.load(start).config
    short = write_store(tmp_path / "short", (4, 6))
    clips = LatentClips(read_stores([short], model), model)
    assert clips.too_short == 1 and clips.windows.tolist() == [[1, 0], [1, 1]]
    with pytest.raises(DataError, match="longest has 4 frames, expected more than 4"):
        LatentClips(clips.episodes[:1], model)
    LatentCache(short, "svd").path("e1").unlink()
    with pytest.raises(DataError, match=r"1 of 2 episodes of .*short have no latents 'svd'.*'e1'"):
        read_stores([short], model)
    with pytest.raises(MismatchError, match=r"e0.*are \(3, 4, 2, 4\) a frame.*\(3, 4, 4, 4\)"):
        read_stores([store], replace(model, latent_size=(4, 4)))
    other = write_store(tmp_path / "other", (9,), robot="sawyer")
    with pytest.raises(MismatchError, match="robot 'sawyer', the model was made for 'droid-panda'"):
        read_stores([other], model)


@pytest.mark.parametrize(
    ("field", "value"),
    [("skips", (0,)), ("memory_stride", 0), ("still_share", 1.5)],
)
def test_unusable_clip_settings_raise(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        ClipConfig(**{field: value})


def test_micro_batches_checkpoints_and_kills_leave_no_trace(
    store: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = settings(store, start)
    train_ctrl_world(whole, tmp_path / "whole")
    expected = rows(tmp_path / "whole")
    assert [(r["step"], "loss" in r) for r in expected] == [
        (0, False), (1, True), (2, True), (2, False), (3, True), (4, True), (4, False)
    ]  # fmt: skip
    lean = settings(store, start, accumulate=4, gradient_checkpointing=True, ema_device="cpu")
    train_ctrl_world(lean, tmp_path / "lean")
    assert_close(rows(tmp_path / "lean"), expected, rel=2e-5)

    class Killed(Exception):
        """Stands for a kill: the loop must not get to save after it."""

    save = Loop.save

    def save_then_die(self: Loop) -> None:
        if self.step == 3:
            raise Killed
        save(self)

    with monkeypatch.context() as during:
        during.setattr(Loop, "save", save_then_die)
        with pytest.raises(Killed):
            train_ctrl_world(whole, tmp_path / "cut")
    train_ctrl_world(whole, tmp_path / "cut")
    assert rows(tmp_path / "cut") == expected
    first, second = (CtrlWorld.load(tmp_path / name) for name in ("whole", "cut"))
    begun = CtrlWorld.load(start).state_dict()
    changed = 0
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
        changed += not torch.equal(weight, begun[name])
        assert "text_encoder" not in name or torch.equal(weight, begun[name]), name
    assert changed > 100
    with pytest.raises(ConfigError, match="store"):
        train_ctrl_world(replace(whole, store=(str(store), str(store))), tmp_path / "cut")


def test_a_validation_imagines_episodes(store: Path, start: Path, tmp_path: Path) -> None:
    config = replace(
        settings(store, start, steps=1, validate_every=1), replays=2, replay_chunks=1,
        replay_steps=2,
    )  # fmt: skip
    train_ctrl_world(config, tmp_path / "run")
    before, _, after = rows(tmp_path / "run")
    assert before["psnr_first_wrist"] == after["psnr_first_wrist"]
    assert before["psnr_wrist"] != after["psnr_wrist"] and -1 <= after["ssim_exterior_2"] <= 1
    assert (tmp_path / "run" / "training" / "0000001.mp4").stat().st_size > 100


def run_on(processes: int, config: CtrlWorldTrainConfig, out: Path) -> subprocess.Popen[bytes]:
    """The training in processes of its own, as torchrun starts them."""
    program = (
        "import sys, tyro; from pathlib import Path\n"
        "from worldeval.world_model.ctrl_world.training import *\n"
        "train_ctrl_world(tyro.cli(CtrlWorldTrainConfig, args=sys.argv[2:]), Path(sys.argv[1]))\n"
    )
    script = out.with_suffix(".py")
    script.write_text(program)
    names = {"store": config.store, "validation": config.validation}
    options = [word for name, values in names.items() for word in (f"--{name}", *values)]
    options += ["--start-from", config.start_from]
    for name in ("validation_clips", "replays"):
        options += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    for name in ("steps", "batch", "learning_rate", "warmup", "decay", "weight_decay", "beta2",
                 "ema", "threads", "device", "report_every", "validate_every",
                 "save_every_s"):  # fmt: skip
        options += [f"--loop.{name.replace('_', '-')}", str(getattr(config.loop, name))]
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc-per-node", str(processes)]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*launch, str(script), str(out), *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def finished(run: subprocess.Popen[bytes], out: Path) -> None:
    assert run.wait(3600) == 0, out.with_suffix(".log").read_text()[-2000:]


@pytest.mark.heavy
def test_two_processes_give_the_curve_of_one(store: Path, start: Path, tmp_path: Path) -> None:
    config = settings(store, start, steps=8, validate_every=4)
    train_ctrl_world(config, tmp_path / "one")
    finished(run_on(2, config, tmp_path / "two"), tmp_path / "two")
    assert_close(rows(tmp_path / "two"), rows(tmp_path / "one"), rel=1e-4)


@pytest.fixture(scope="module")
def droid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniature release and real DROID episodes, all cut to 64 by 96 px of each view."""
    if not (DROID / "annotation").is_dir() or not (RELEASE / "checkpoint.pt").is_file():
        pytest.skip(f"no DROID episodes at {DROID} or no release at {RELEASE}")
    from worldeval.data.readers.ctrl_world import CtrlWorldDataset
    from worldeval.world_model.ctrl_world.importing import import_ctrl_world

    root = tmp_path_factory.mktemp("droid")
    whole = import_ctrl_world(
        RELEASE / "svd", RELEASE / "clip", RELEASE / "checkpoint.pt", root / "whole"
    )
    model = CtrlWorld.load(whole)
    model.config = replace(model.config, latent_size=(8, 12))
    model.save(root / "start", autoencoder=whole)
    for split in ("train", "val"):
        assert CtrlWorldDataset(DROID, split).ids
        store = EpisodeStore.create(
            root / split, views=VIEWS, image_size=(16, 16), pose_names=POSES, action_names=POSES,
            steps_per_frame=3, fps=5.0, robot_type="droid-panda",
        )  # fmt: skip
        for note in sorted((DROID / "annotation" / split).glob("*.json")):
            content = json.loads(note.read_text())
            folder = DROID / "latent_videos" / split / note.stem
            parts = [torch.load(folder / f"{v}.pt", weights_only=True) for v in range(3)]
            latents = torch.stack(parts, dim=1)[..., 8:16, 14:26].numpy()
            poses = np.asarray(content["states"], np.float32)[: len(latents)]
            store.append(
                Episode(
                    key=note.stem, task="droid", instruction=content["texts"][0], views=VIEWS,
                    frames=np.zeros((len(poses), 3, 16, 16, 3), np.uint8), poses=poses,
                    actions=np.repeat(poses[1:, None], 3, axis=1),
                )
            )  # fmt: skip
            LatentCache(root / split, "svd").write(note.stem, latents)
        store.close()
    return {name: root / name for name in ("start", "train", "val")}


@pytest.mark.heavy
def test_two_hundred_steps_on_droid_lower_the_loss_and_survive_kill_9(
    droid: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(
        settings(
            droid["train"], droid["start"], steps=200, batch=2, warmup=20, ema=0.95,
            report_every=5, validate_every=50, save_every_s=20.0,
        ),
        validation=(str(droid["val"]),),
        validation_clips=16,
    )  # fmt: skip
    run = run_on(1, config, tmp_path / "cut")
    state = tmp_path / "cut" / "training" / "state.safetensors"
    while not state.is_file() and run.poll() is None:
        time.sleep(0.2)
    time.sleep(3)  # some steps beyond the state
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished(run_on(1, config, tmp_path / "cut"), tmp_path / "cut")
    found = rows(tmp_path / "cut")
    losses = [row["validation_loss"] for row in found if "validation_loss" in row]
    assert len(losses) == 5 and losses[-1] < 0.8 * losses[0]
    finished(run_on(1, config, tmp_path / "whole"), tmp_path / "whole")
    assert found == rows(tmp_path / "whole")
