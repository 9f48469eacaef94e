"""A world from eight episodes: six of DROID to learn from, two to be replayed.

.venv/bin/python benchmarks/droid_world.py ../shared/droid --out runs/droid

Prepares the episodes with their published SVD latents, fits a decoder and a small world model on
the training split (one episode of it is held out, to stop by), replays the validation split with
its own actions through the rollout engine, and measures PSNR and SSIM beside the repeated first
frame. Whatever is there already is kept, and an interrupted training goes on, so the same command
finishes what was begun. Writes OUT/droid.json, OUT/droid.md and the picture.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import tile_views, to_frames, to_model
from worldeval.imagination.env import Imagination
from worldeval.imagination.replay import imagine_replays
from worldeval.learning.config import LoopConfig
from worldeval.learning.loop import has_bfloat16_units
from worldeval.metrics.fidelity import REPEAT_FIRST, ReplayReport
from worldeval.motion.panda import panda
from worldeval.rollout.recording import rollout_key
from worldeval.world_model.backbone import BackboneConfig
from worldeval.world_model.clips import given_latents, load_frames
from worldeval.world_model.denoiser import DenoiserConfig
from worldeval.world_model.few_recordings.clip_augmentation import Augmentation
from worldeval.world_model.few_recordings.decoder import LatentDecoder, moved
from worldeval.world_model.few_recordings.decoder_training import (
    DecoderTrainConfig,
    LatentVideos,
    train_decoder,
)
from worldeval.world_model.few_recordings.own_replays import (
    FRAMES,
    TRUSTS,
    replay_latents,
    rows_of,
    starts_of,
)
from worldeval.world_model.latents import SVD, LatentCache
from worldeval.world_model.model import WorldModel
from worldeval.world_model.prepare import PrepareConfig, prepare
from worldeval.world_model.sampler import SamplerConfig
from worldeval.world_model.training import WorldModelTrainConfig, train_world_model

ROBOT = panda("absolute_pose")
RESTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
MODEL, ALONE = "replay", "replay, decoder alone"
FIRST_DECODED = "repeated first frame, decoded"
TRUE, TRUE_ALONE = "true latents, beside the first frame", "true latents, decoder alone"


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    source: Path
    out: Path

    @property
    def decoder(self) -> Path:
        return self.out / "autoencoder"  # beside the world model, where it is looked for

    @property
    def first(self) -> Path:
        return self.out / "decoder"  # as it was fitted

    @property
    def second(self) -> Path:
        return self.out / "second-half"  # the world model as it was trained

    @property
    def model(self) -> Path:
        return self.out / "world-model"

    def store(self, split: str) -> Path:
        return self.out / "recordings" / split


def prepared(places: Places, split: str) -> EpisodeStore:
    config = PrepareConfig(source=places.source, split=split, published_latents=True)
    prepare(config, places.store(split))
    return EpisodeStore.open(places.store(split))


def loop_of(options: argparse.Namespace, **settings: object) -> LoopConfig:
    precision = "bf16" if has_bfloat16_units("cpu") or torch.cuda.is_available() else "no"
    return LoopConfig(
        threads=options.threads,
        mixed_precision=precision,
        schedule="cosine",
        **{"learning_rate": 1e-3, **settings},  # type: ignore[arg-type]
    )


def videos_of(store: EpisodeStore, keys: list[str]) -> LatentVideos:
    table = load_frames(store, keys_wanted=keys)
    return LatentVideos(
        frames=table.frames, latents=given_latents(table, store, SVD), first=table.first
    )


def fit_decoder(options: argparse.Namespace, places: Places, store: EpisodeStore) -> None:
    known = [str(key) for key in store.metadata()["key"]]
    held = [key for key in known if key in options.held_out]
    config = DecoderTrainConfig(
        loop=loop_of(options, steps=options.decoder_steps, batch=16, ema=0.995, validate_every=250)
    )
    train_decoder(
        config,
        videos_of(store, [key for key in known if key not in held]),
        videos_of(store, held),
        places.first,
    )


def settle(options: argparse.Namespace, places: Places, store: EpisodeStore) -> None:
    """How much of an imagined change to believe, and up to where to take it for none.

    What is best on the held-out training episode, in dB of pixels: one choice for the exterior
    views, which are exchangeable, and one for the wrist's.
    """
    if (places.model / "config.json").is_file():
        return
    model, decoder = WorldModel.load(places.second), LatentDecoder.load(places.first)
    table = load_frames(store, keys_wanted=options.held_out)
    latents = given_latents(table, store, SVD)
    starts = starts_of(table, FRAMES, 6)
    rows = rows_of(table, starts, FRAMES + 1)
    video = torch.from_numpy(to_model(table.frames[rows]))
    still = video[:, :1]
    base = error_of(still, video)
    gains = {}
    for trust in TRUSTS:
        model.config = replace(model.config, trust=(trust,) * len(ROBOT.views))
        replays = replay_latents(model, table, latents, starts, FRAMES // ROBOT.frames_per_chunk)
        z = torch.from_numpy(replays)
        shown = decoded_beside(decoder, z, video[:, 0])
        for rest in RESTS:
            part = moved(z[:, 1:] - z[:, :1], (rest,) * len(ROBOT.views))
            error = error_of(still + part * (shown - still), video)
            gains[trust, rest] = (10 * torch.log10(base / error)).mean(dim=(0, 1))  # (V,)
    exterior = max(gains, key=lambda k: float(gains[k][:2].mean()))
    wrist = max(gains, key=lambda k: float(gains[k][2]))
    chosen = (exterior, exterior, wrist)
    trust, rest = (tuple(k[i] for k in chosen) for i in (0, 1))
    found = [float(gains[k][v]) for v, k in enumerate(chosen)]
    card = {"held_out": options.held_out, "gain_db": found, "trust": trust, "rest": rest}
    print(card)
    decoder.config = replace(decoder.config, rest=rest)
    decoder.save(places.decoder, card)
    model.config = replace(model.config, trust=trust)
    model.save(places.model, card)


@torch.inference_mode()
def decoded_beside(decoder: LatentDecoder, z: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Pixels of all but the first frames of replays (N, T+1, V, C, h, w), frame by frame."""
    frames = [decoder.decode_beside(z[:, t : t + 1], z[:, 0], start) for t in range(1, z.shape[1])]
    return torch.cat(frames, dim=1)


def error_of(video: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Squared error against all but the first frames, mean over each chunk: (N, chunks, V)."""
    error = (video.clamp(-1, 1) - truth[:, 1:]).square().mean(dim=(3, 4, 5))
    return error.unflatten(1, (-1, ROBOT.frames_per_chunk)).mean(dim=2)


def fit_model(options: argparse.Namespace, places: Places) -> None:
    """First for little squared error, then for little against a view's own change, as in dB."""
    first = model_config(options, places)
    train_world_model(first, places.out / "first-half", ROBOT)
    second = replace(
        first,
        relative=True,
        current_noise=0.05,
        augmentation=replace(first.augmentation, shift=8),
        own_replays_every=200,
        loop=replace(
            first.loop, steps=options.careful_steps, learning_rate=6e-4, validate_every=200
        ),
    )
    train_world_model(second, places.second, ROBOT, start_from=str(places.out / "first-half"))


def model_config(options: argparse.Namespace, places: Places) -> WorldModelTrainConfig:
    return WorldModelTrainConfig(
        store=str(places.store("train")),
        autoencoder=str(places.first),
        held_out=tuple(options.held_out),
        backbone=BackboneConfig(widths=(128, 192), blocks=1, patch=4),
        expectation=True,
        denoiser=DenoiserConfig(sigma_data=0.6),
        sampler=SamplerConfig(solver="euler", steps=1, sigma_max=10.0, noise_scale="none"),
        conditioning_noise=0.0,
        current_noise=0.2,
        memory="strided",
        memory_slots=1,
        memory_mix=(("strided", 0.8), ("none", 0.2)),
        augmentation=Augmentation(
            backward=0.5, fast=0.2, exchangeable=(0, 1), shift=3, tint=0.1, turn=True
        ),
        own_replays_every=500,
        imagined_share=0.4,
        loop=loop_of(
            options,
            steps=options.steps,
            batch=options.batch,
            ema=0.995,
            warmup=100,
            weight_decay=0.05,
            validate_every=500,
        ),
    )


def replayed(places: Places, store: EpisodeStore, *, beside: bool) -> EpisodeStore:
    """The validation episodes in imagination, through the one rollout engine."""
    world = Imagination.open(places.model, store, ROBOT, autoencoder=places.decoder)
    world.frame_rollouts.autoencoder.beside_start = beside
    chunks = (max(store.metadata()["length"]) - 1) // ROBOT.frames_per_chunk
    folder = places.out / "replay" / ("own" if beside else "alone")
    return imagine_replays(world, store, folder, chunks=chunks)


@torch.inference_mode()
def decoded(
    decoder: LatentDecoder, latents: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Frames of true latents (T, V, C, h, w), alone and beside the start frame (V, H, W, 3)."""
    z, x = torch.from_numpy(latents.astype(np.float32)), torch.from_numpy(to_model(start))
    alone, beside = [], []
    for t in range(len(z)):
        alone.append(decoder.decode(z[t]))
        beside.append(decoder.decode_beside(z[None, t : t + 1], z[None, 0], x[None])[0, 0])
    return to_frames(torch.stack(alone).numpy()), to_frames(torch.stack(beside).numpy())


def measured(
    places: Places, store: EpisodeStore, imagined: dict[str, EpisodeStore]
) -> ReplayReport:
    decoder = LatentDecoder.load(places.decoder)
    cache = LatentCache(store.root, SVD)
    report = ReplayReport(views=ROBOT.views, frames_per_chunk=ROBOT.frames_per_chunk)
    for index, row in store.metadata().iterrows():
        chunks = (int(row["length"]) - 1) // ROBOT.frames_per_chunk
        end = 1 + chunks * ROBOT.frames_per_chunk
        truth = store.frames(int(index))[:end]
        alone, beside = decoded(decoder, cache.read(str(row["key"]))[:end], truth[0])
        key = rollout_key("own", str(row["start_id"]))
        report.add(
            str(row["key"]),
            start=truth[0],
            truth=truth[1:],
            imagined={
                **{name: one.by_key(key).frames[1:end] for name, one in imagined.items()},
                FIRST_DECODED: np.repeat(alone[:1], end - 1, axis=0),
                TRUE_ALONE: alone[1:],
                TRUE: beside[1:],
            },
        )
    return report


def table_of(report: ReplayReport) -> str:
    """PSNR in dB and SSIM: one row a variant, one column per view."""
    order = (MODEL, REPEAT_FIRST, ALONE, FIRST_DECODED, TRUE, TRUE_ALONE)
    rows = report.table(("variant", "view")).set_index(["variant", "view"])
    lines = ["| | " + " | ".join(report.views) + " |", "|---|" + "---|" * len(report.views)]
    for name in order:
        cells = [rows.loc[(name, view)] for view in report.views]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{cell['psnr_db']:.2f} / {cell['ssim']:.3f}" for cell in cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


def picture(store: EpisodeStore, imagined: EpisodeStore, path: Path) -> None:
    """Both episodes at four moments, all views: imagined above true."""
    table = store.metadata()
    figure, axes = plt.subplots(2 * len(table), 1, figsize=(13, 1.15 * 2 * len(table)), dpi=110)
    for index, row in table.iterrows():
        key = rollout_key("own", str(row["start_id"]))
        times = np.linspace(0, 4 * ((int(row["length"]) - 1) // 4), 4).astype(int)
        for below, frames in enumerate((imagined.by_key(key).frames, store.frames(int(index)))):
            axis = axes[2 * int(index) + below]
            axis.imshow(np.concatenate(list(tile_views(frames[times])), axis=1))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_ylabel(("imagined", "true")[below], fontsize=7)
            if not below:
                seconds = ", ".join(f"{t / ROBOT.frame_hz:.1f}" for t in times)
                axis.set_title(f"{row['key']} after {seconds} s", fontsize=8, loc="left", pad=3)
    figure.tight_layout(h_pad=0.2)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "source", type=Path, help="folder with annotation/, videos/, latent_videos/"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/droid"))
    parser.add_argument("--decoder-steps", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=2300, help="of the world model")
    parser.add_argument("--careful-steps", type=int, default=1000, help="of its second half")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--held-out", nargs="+", default=["train/6"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("droid.png"))
    options = parser.parse_args()
    places = Places(options.source, options.out)
    train, validation = prepared(places, "train"), prepared(places, "val")
    fit_decoder(options, places, train)
    fit_model(options, places)
    torch.set_num_threads(options.threads)
    settle(options, places, train)
    imagined = {
        MODEL: replayed(places, validation, beside=True),
        ALONE: replayed(places, validation, beside=False),
    }
    report = measured(places, validation, imagined)
    text = table_of(report)
    (options.out / "droid.md").write_text(text)
    (options.out / "droid.json").write_text(json.dumps(report.to_json(), indent=1))
    picture(validation, imagined[MODEL], options.picture)
    print(text)


if __name__ == "__main__":
    main()
