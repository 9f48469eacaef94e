"""Valid small things of every kind that a user may give: what ``fuzz.py`` breaks.

Enters: a folder. Leaves: an untrained world of a few kilobytes, a store of judged rollouts, a
suite, tables and LeRobot datasets below it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from worldeval.types import StartState

VIEWS = tuple(
    f"observation.images.{n}" for n in ("exterior_1_left", "exterior_2_left", "wrist_left")
)
ROLLOUT = "rollout --policy random --policy zero --threads 1 --chunks 1 --out"


def make_valid(root: Path) -> None:
    """Everything that is valid, below ``root``; called in a process of its own."""
    from worldeval import cli

    make_world(root / "world")
    make_tables(root)
    for version in ("v3.0", "v2.1"):
        make_lerobot(root / ("lerobot" if version == "v3.0" else "lerobot2"), version)
    os.environ["WORLDEVAL_CHECKPOINTS"] = str(root / "world")
    store = str(root / "store")
    assert cli.main([*ROLLOUT.split(), store]) == 0
    assert cli.main(["judge", store, "--threads", "1"]) == 0


def make_world(root: Path) -> None:
    """An untrained world of a few kilobytes, laid out as the shipped one."""
    import pandas as pd

    from worldeval import shipped
    from worldeval.judging.tables import write_table
    from worldeval.rollout.suite import Suite
    from worldeval.worlds.sawyer import ROBOT, start_states

    untrained_world(root, ("able",))
    starts = tuple(s for t in ("drawer-open", "reach") for s in start_states("evaluation", t, 2))
    for name in (shipped.SUITE, shipped.DEMO_SUITE):
        Suite(name="tiny", robot=ROBOT.name, chunks=1, starts=starts).save(root / name)
    write_store(root / shipped.STARTS, starts, frames=2)
    # What trainings take: outcomes of the world itself, other episodes to validate on.
    for name, split in (("training", "training"), ("held-out", "validation")):
        recorded = [s for t in ("drawer-open", "reach") for s in start_states(split, t, 4)]
        write_store(root.parent / name, recorded, frames=6, images="video")
    rows = [
        {
            "key": f"able/{start.start_id}", "policy": "able", "task": start.task,
            "start_id": start.start_id, "world": "metaworld", "judge": "world",
            "outcome": "success", "probability": float("nan"),
        }
        for start in starts
    ]  # fmt: skip
    write_table(pd.DataFrame(rows), root / shipped.TRUTH)


def untrained_world(root: Path, policies: Sequence[str]) -> None:
    """Checkpoints of autoencoder, world model, judge and ``policies``, laid out as the shipped."""
    import torch

    from worldeval import shipped
    from worldeval.data import checkpoint
    from worldeval.judging.classifier import SuccessClassifier
    from worldeval.judging.network import JudgeConfig, JudgeNetwork
    from worldeval.judging.probability import Calibration
    from worldeval.policies.cloning import behaviour_cloning
    from worldeval.policies.cloning.config import BCConfig
    from worldeval.policies.cloning.network import BCNetwork
    from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig
    from worldeval.world_model.backbone import BackboneConfig
    from worldeval.world_model.model import WorldModel, WorldModelConfig
    from worldeval.world_model.sampler import SamplerConfig
    from worldeval.worlds.sawyer import ROBOT

    torch.manual_seed(0)
    codec = Autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=2))
    codec.save(root / shipped.AUTOENCODER)
    config = WorldModelConfig.for_robot(
        ROBOT,
        latent_channels=2,
        latent_size=codec.config.latent_size,
        memory_slots=1,
        autoencoder=checkpoint.digest(root / shipped.AUTOENCODER),
        backbone=BackboneConfig(widths=(8, 16), blocks=1, token_width=16, heads=2),
        sampler=SamplerConfig(steps=1),
    )
    WorldModel(config).save(root / shipped.WORLD_MODEL)
    judge = JudgeNetwork(JudgeConfig(views=ROBOT.views, channels=(8, 8, 8), hidden=8))
    SuccessClassifier(judge, Calibration()).save(root / shipped.JUDGE)
    for name in policies:
        network = BCNetwork(BCConfig.for_robot(ROBOT, channels=(8, 8, 8), hidden=8))
        behaviour_cloning.save(root / shipped.POLICIES / name, network, name=name)


def write_store(
    root: Path, starts: Sequence[StartState], frames: int, images: str = "lossless"
) -> None:
    """Episodes of noise; of those that are recorded for training every second one succeeds."""
    from worldeval.rollout.recording import open_rollouts
    from worldeval.types import Episode
    from worldeval.worlds.sawyer import ROBOT

    rng = np.random.default_rng(0)
    shape = (frames, len(ROBOT.views), *ROBOT.image_size, 3)
    with open_rollouts(root, ROBOT, images=images) as store:
        for number, start in enumerate(starts):
            success = bool(number % 2) if frames > 2 else None
            solved = (np.arange(frames) > 2) & bool(success)
            store.append(
                Episode(
                    key=start.start_id,
                    task=start.task,
                    instruction=start.instruction,
                    views=ROBOT.views,
                    frames=rng.integers(0, 255, shape, np.uint8),
                    poses=np.tile(np.array([0, 0.6, 0.2, -1], np.float32), (frames, 1)),
                    actions=np.zeros(
                        (frames - 1, ROBOT.steps_per_frame, ROBOT.action_dim), np.float32
                    ),
                    success=success,
                    success_at=None if success is None else solved,
                    extra={"start_id": start.start_id, "seed": start.seed, "split": start.split},
                )
            )


def make_tables(root: Path) -> None:
    """Verdicts of three policies, true trials, labels, task weights."""
    import pandas as pd

    from worldeval.judging.tables import write_table

    rng = np.random.default_rng(0)
    rows = [
        {
            "key": f"{policy}/{task}/{k}", "policy": policy, "task": task,
            "start_id": f"{task}/{k}", "world": "w", "judge": "j@1",
            "outcome": ("failure", "success")[int(rng.random() < 0.3 + 0.2 * n)],
            "probability": float(rng.random()), "reason": "", "frames": "0 1",
            "seconds": 0.1, "tokens": 0, "dollars": float("nan"),
        }
        for n, policy in enumerate("abc") for task in ("open", "reach") for k in range(5)
    ]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    write_table(pd.DataFrame(rows), root / "verdicts.parquet")
    lines = [f"{r['policy']},{r['task']},{r['start_id']},{n % 2}" for n, r in enumerate(rows)]
    (root / "trials.csv").write_text("policy,task,start_id,success\n" + "\n".join(lines) + "\n")
    labels = [f"{r['policy']},{r['task']},{r['start_id']},me,{r['outcome']}" for r in rows]
    header = "policy,task,start_id,rater,outcome\n"
    (root / "labels.csv").write_text(header + "\n".join(labels) + "\n")
    (root / "weights.json").write_text('{"open": 2, "reach": 1}')


def make_lerobot(root: Path, version: str, lengths: tuple[int, ...] = (20, 23)) -> None:
    """DROID's columns in a small LeRobot dataset: smooth motion, flat frames that count rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from worldeval.data.video import write_mp4

    three, tables, films = version == "v3.0", [], []
    widths = {"observation.state.cartesian_position": 6, "observation.state.joint_position": 7,
              "observation.state.gripper_position": 1, "action.joint_position": 7,
              "action.joint_velocity": 7, "action.cartesian_position": 6,
              "action.cartesian_velocity": 6, "action.gripper_position": 1,
              "action.gripper_velocity": 1}  # fmt: skip
    for number, rows in enumerate(lengths):
        time = np.arange(rows, dtype=np.float32)
        arrays = {
            name: 0.3 + 0.2 * np.sin(time[:, None] / 15 + np.arange(width) + number)
            for name, width in widths.items()
        }
        columns = {name: pa.array(list(a.astype(np.float32))) for name, a in arrays.items()}
        columns["episode_index"] = pa.array([number] * rows, pa.int64())
        columns["frame_index"] = pa.array(np.arange(rows), pa.int64())
        columns["timestamp"] = pa.array(time / 15, pa.float32())
        columns["language_instruction"] = pa.array([f"task {number}"] * rows)
        columns["is_episode_successful"] = pa.array([number % 2 == 0] * rows)
        tables.append(pa.table(columns))
        film = np.zeros((rows, 18, 32, 3), np.uint8)
        film[...] = (40 + 4 * np.arange(rows))[:, None, None, None]
        films.append(film)
    place = (
        "chunk-{chunk_index:03d}/file-{file_index:03d}"
        if three
        else ("chunk-{episode_chunk:03d}/episode_{episode_index:06d}")
    )
    info: dict[str, Any] = {
        "codebase_version": version, "fps": 15, "chunks_size": 1000, "robot_type": "droid",
        "splits": {"train": f"0:{len(lengths)}"}, "total_episodes": len(lengths),
        "features": {n: {"dtype": "float32", "shape": [w]} for n, w in widths.items()}
        | {n: {"dtype": "video", "shape": [18, 32, 3]} for n in VIEWS},
        "data_path": f"data/{place}.parquet",
        "video_path": f"videos/{{video_key}}/{place}.mp4" if three
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }  # fmt: skip
    episodes: list[dict[str, Any]] = [
        {"episode_index": n, "tasks": [f"task {n}"], "length": rows}
        for n, rows in enumerate(lengths)
    ]
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    if three:
        ends = np.cumsum(lengths) / 15
        for row, rows, end in zip(episodes, lengths, ends, strict=True):
            row |= {"data/chunk_index": 0, "data/file_index": 0}
            for name in VIEWS:
                row |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": 0}
                row[f"videos/{name}/from_timestamp"] = float(end - rows / 15)
                row[f"videos/{name}/to_timestamp"] = float(end)
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/file-000.parquet"
        )
        pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
        for name in VIEWS:
            path = root / f"videos/{name}/chunk-000/file-000.mp4"
            path.parent.mkdir(parents=True)
            write_mp4(path, np.concatenate(films), 15)
        return
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in episodes))
    for number, (table, film) in enumerate(zip(tables, films, strict=True)):
        pq.write_table(table, root / f"data/chunk-000/episode_{number:06d}.parquet")
        for name in VIEWS:
            path = root / f"videos/chunk-000/{name}/episode_{number:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mp4(path, film, 15)
