"""Does the real LeRobot read our exports? Runs in an environment of LeRobot's own.

    python lerobot_check.py read DATASET [--coded] [--workers 1]
    python lerobot_check.py train DATASET --policy act --steps 30 --out CHECKPOINT
    PYTHONPATH=worldeval-clone python lerobot_check.py roll CHECKPOINT --out STORE
    PYTHONPATH=worldeval-clone python lerobot_check.py evaluate CHECKPOINT --out FOLDER

``read`` loads the dataset, decodes every row of every view, asks for delta timestamps and takes a
batch from a DataLoader; with --coded, the pictures spell episode, frame and view in black and white
(``tests/data/test_lerobot_export.py``), and every one is compared with its row. ``train`` takes
some steps of a LeRobot policy and saves it as LeRobot does. ``roll`` and
``evaluate`` need worldeval too: the one rolls that checkpoint out in the toy world and compares its
answers with LeRobot's own; the other runs lerobot-eval of it in the imagined world, by LeRobot's
command line and batched. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch

torch.set_num_threads(1)
try:  # a CUDA build of torchvision beside a CPU build of torch lacks these two operators
    torch.ops.torchvision.nms  # noqa: B018
except (AttributeError, RuntimeError):
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def dataset_class() -> Any:
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError:  # before 0.3
        from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    return LeRobotDataset


def opened(root: Path, **options: Any) -> Any:
    return dataset_class()(f"local/{root.name}", root=root, **options)


def spelled(frame: torch.Tensor) -> tuple[int, int, int]:
    """(episode, frame, view) that a picture (3, H, W) in [0, 1] spells."""
    width = frame.shape[-1]
    middle = [(2 * bit + 1) * width // 32 for bit in range(16)]
    code = sum(1 << bit for bit, x in enumerate(middle) if frame[:, :, x].mean() > 0.5)
    return code >> 8, code >> 2 & 63, code & 3


def read(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    root = options.dataset
    data = opened(root)
    views = list(data.meta.video_keys)
    export = json.loads((root / "meta/info.json").read_text())["worldeval"]
    wrong = pictures = 0
    began = time.monotonic()
    actions = []
    for number in range(len(data)):
        item = data[number]
        actions.append(item["action"].numpy())
        for view, key in enumerate(views):
            pictures += 1
            if options.coded:
                frame = int(item["frame_index"]) // export["rows_per_frame"]
                found = spelled(item[key])
                wrong += found != (int(item["episode_index"]), frame, view)
    seconds = time.monotonic() - began
    expected = np.concatenate(
        [np.stack([np.asarray(a) for a in table["action"]]) for table in _tables(root)]
    )
    step = 1 / data.fps
    chunked = opened(
        root, delta_timestamps={"action": [i * step for i in range(8)], views[0]: [-step, 0.0]}
    )
    first = chunked[0]
    tasks = sorted({str(data[i]["task"]) for i in (0, len(data) - 1)})
    # Last: a forked worker shares the open films (and where they are read) with this process.
    loader = torch.utils.data.DataLoader(
        chunked, batch_size=4, shuffle=True, num_workers=options.workers
    )
    batch = next(iter(loader))
    return {
        "lerobot": importlib.metadata.version("lerobot"),
        "version": str(data.meta.info["codebase_version"]) if isinstance(data.meta.info, dict)
        else str(data.meta.info.codebase_version),
        "episodes": data.num_episodes,
        "rows": len(data),
        "pictures": pictures,
        "misaligned": wrong if options.coded else None,
        "action_error": float(np.abs(np.stack(actions) - expected).max()),
        "seconds": round(seconds, 2),
        "delta_action": list(first["action"].shape),
        "delta_picture": list(first[views[0]].shape),
        "padded": int(first["action_is_pad"].sum()),
        "batch": list(batch["action"].shape),
        "tasks": tasks,
        "success": "next.success" in data.features,
    }  # fmt: skip


def _tables(root: Path) -> list[Any]:
    import pandas as pd

    return [pd.read_parquet(path) for path in sorted(root.glob("data/**/*.parquet"))]


def train(options: argparse.Namespace) -> dict[str, Any]:
    from lerobot.configs.types import FeatureType
    from lerobot.datasets.utils import dataset_to_policy_features
    from lerobot.policies.factory import (
        get_policy_class,
        make_policy_config,
        make_pre_post_processors,
    )

    root = options.dataset
    data = opened(root)
    features = dataset_to_policy_features(data.meta.features)
    outputs = {n: f for n, f in features.items() if f.type is FeatureType.ACTION}
    inputs = {n: f for n, f in features.items() if n not in outputs}
    small = {
        "act": {"chunk_size": 12, "n_action_steps": 12, "dim_model": 64, "n_heads": 4,
                "dim_feedforward": 128, "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
                "pretrained_backbone_weights": None},
        "diffusion": {"down_dims": (32, 64), "num_train_timesteps": 10, "crop_shape": None,
                      "n_obs_steps": 1, "n_action_steps": 8, "horizon": 16},
    }[options.policy]  # fmt: skip
    config = make_policy_config(
        options.policy, input_features=inputs, output_features=outputs, device="cpu",
        push_to_hub=False, **small,
    )  # fmt: skip
    step = 1 / data.fps
    times = {"action": [i * step for i in config.action_delta_indices]}
    for name in inputs:
        if config.observation_delta_indices is not None:
            times[name] = [i * step for i in config.observation_delta_indices]
    data = opened(root, delta_timestamps=times)
    policy = get_policy_class(options.policy)(config)
    before, after = make_pre_post_processors(config, dataset_stats=data.meta.stats)
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    losses, began = [], time.monotonic()
    while len(losses) < options.steps:
        for batch in loader:
            loss, _ = policy.forward(before(batch))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
            if len(losses) == options.steps:
                break
    policy.save_pretrained(options.out)
    before.save_pretrained(options.out)
    after.save_pretrained(options.out)
    return {
        "lerobot": importlib.metadata.version("lerobot"),
        "policy": options.policy,
        "actions": list(outputs),
        "inputs": list(inputs),
        "parameters": sum(p.numel() for p in policy.parameters()),
        "first_loss": round(losses[0], 3),
        "last_loss": round(losses[-1], 3),
        "steps": len(losses),
        "seconds": round(time.monotonic() - began, 1),
    }


def roll(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from worldeval import testing
    from worldeval.data.fit import robot_extra, store_fields
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.policies.loading import load_policy
    from worldeval.rollout.engine import run
    from worldeval.rollout.suite import Suite

    robot = testing.toy_robot(image_size=(64, 64))
    policy: Any = load_policy(f"lerobot:{options.checkpoint}", robot)
    testing.check_policy(policy, robot)
    suite = Suite(name="toy", robot=robot.name, chunks=2, starts=testing.toy_starts(count=1))
    store = EpisodeStore.create(options.out, **store_fields(robot), extra=robot_extra(robot))
    run(testing.ToyWorld(robot=robot), policy, suite, store, batch=2, progress=False)
    store.close()
    # What LeRobot itself answers to the first frame of each rollout, one by one.
    # Not of a diffusion policy, which draws noise.
    kind = json.loads((options.checkpoint / "config.json").read_text())["type"]
    apart = 0.0
    for episode in EpisodeStore.open(options.out) if kind == "act" else ():
        batch: dict[str, Any] = {
            f"observation.images.{view}": torch.from_numpy(
                testing.ToyWorld(robot=robot).reset([start_of(suite, episode)], [0]).frames[0, 0, v]
            ).permute(2, 0, 1)[None].float() / 255
            for v, view in enumerate(robot.views)
        }  # fmt: skip
        batch["observation.state"] = torch.from_numpy(episode.poses[:1])
        batch["task"] = [episode.instruction]
        policy._policy.reset()
        with torch.inference_mode():
            chunk = policy._after(policy._policy.predict_action_chunk(policy._before(batch)))[0]
        sent = episode.actions.reshape(-1, robot.action_dim)[: len(chunk)]
        wanted = np.clip(chunk.numpy(), robot.action_low, robot.action_high)[: len(sent)]
        apart = max(apart, float(np.abs(sent - wanted).max()))
    return {"rollouts": len(suite.starts), "chunk": policy.spec.chunk, "apart": apart}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """LeRobot's evaluation twice: by its command line, and of the world that batches."""
    import sys

    from lerobot.scripts import lerobot_eval

    count, chunks = 2, 1
    sys.argv = [
        "lerobot-eval",
        "--env.discover_packages_path=worldeval.lerobot_env",
        "--env.type=worldeval",
        "--env.task=reach",
        f"--env.chunks={chunks}",
        "--env.sampler_steps=2",
        f"--policy.path={options.checkpoint}",
        f"--eval.batch_size={count}",
        f"--eval.n_episodes={count}",
        "--eval.use_async_envs=false",
        f"--output_dir={options.out}",
        "--policy.device=cpu",
    ]
    seen: list[Any] = []
    original = lerobot_eval.rollout

    def watched(env: Any, *args: Any, **kwargs: Any) -> Any:
        env.reset(seed=kwargs["seeds"])
        words = env.call("task_description")
        told = original(env, *args, **kwargs)
        seen.append((type(env).__name__, words, told))
        return told

    lerobot_eval.rollout = watched
    lerobot_eval.main()
    info = json.loads((options.out / "eval_info.json").read_text())
    films = sorted(str(p.name) for p in (options.out / "videos").rglob("*.mp4"))

    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    from worldeval.lerobot_env import make_env

    kind = json.loads((options.checkpoint / "config.json").read_text())["type"]
    policy = get_policy_class(kind).from_pretrained(options.checkpoint)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(options.checkpoint))
    from lerobot.processor import PolicyProcessorPipeline

    same: Any = PolicyProcessorPipeline(steps=[])
    batched = lerobot_eval.eval_policy_all(
        make_env(count, task="reach", chunks=chunks, sampler_steps=2),
        policy, same, same, before, after, count, start_seed=1000,
    )  # fmt: skip
    (first, words, one), (second, again, many) = seen
    return {
        "episodes": info["overall"]["n_episodes"],
        "success": info["overall"]["pc_success"],
        "batched_success": batched["overall"]["pc_success"],
        "films": len(films),
        "steps": one["action"].shape[1],
        "kinds": [first, second],
        "tasks": [list(words), list(again)],
        "apart": float((one["action"] - many["action"]).abs().max()),
    }


def start_of(suite: Any, episode: Any) -> Any:
    return next(s for s in suite.starts if s.start_id == episode.extra["start_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, work in (("read", read), ("train", train)):
        verb = verbs.add_parser(name)
        verb.set_defaults(work=work)
        verb.add_argument("dataset", type=Path)
        if name == "read":
            verb.add_argument("--coded", action="store_true")
            verb.add_argument("--workers", type=int, default=1)
        else:
            verb.add_argument("--policy", choices=("act", "diffusion"), default="act")
            verb.add_argument("--steps", type=int, default=30)
            verb.add_argument("--out", type=Path, required=True)
    verb = verbs.add_parser("roll")
    verb.set_defaults(work=roll)
    verb.add_argument("checkpoint", type=Path)
    verb.add_argument("--out", type=Path, required=True)
    verb = verbs.add_parser("evaluate")
    verb.set_defaults(work=evaluate)
    verb.add_argument("checkpoint", type=Path)
    verb.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(json.dumps(options.work(options)))


if __name__ == "__main__":
    main()
