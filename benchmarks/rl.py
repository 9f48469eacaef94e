"""Does a small policy that learns inside imagination get better, truly, or does it fool the model?

    python -m venv rl && rl/bin/pip install -e '.[sim]' stable-baselines3
    rl/bin/python benchmarks/rl.py --out runs/rl

Stable-Baselines3's SAC learns one task in the imagined world (``worldeval/Imagination-v0``, reward
"progress"), from pose and downsampled views alone. Before and after, the same policy is rolled out
by worldeval's own loop from start states that it has not learned from, in imagination (the shipped
judge decides) and in true physics (the simulator's flag). What imagination gains and truth does not
is exploitation of the model or of the judge; the judge on the true frames tells which of the two.
Writes rl.json. A second run goes on with what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from ship import draw_starts
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv

import worldeval.gym  # noqa: F401  registers the environments
from worldeval import shipped
from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.opening import ImaginationOptions, open_world
from worldeval.judging.loading import load_judge
from worldeval.ranking.intervals import wilson_interval
from worldeval.rollout.engine import run
from worldeval.rollout.env_form import EnvForm
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.types import Observation, Outcome, PolicySpec, World
from worldeval.worlds.sawyer import ROBOT, start_states

CHUNKS = 8
GAIN = 10.0
"""Progress is a share of a horizon: rewards of about 1 suit SAC's usual settings."""


class Batch(VecEnv):
    """A ``WorldVectorEnv`` as Stable-Baselines3 wants it: one action held for a whole chunk."""

    def __init__(self, env: Any) -> None:
        self.env = env
        box = gymnasium.spaces.Box(-1, 1, (ROBOT.action_dim,), np.float32)
        super().__init__(env.num_envs, env.single_observation_space, box)
        self.gained: list[float] = []
        self._sum = np.zeros(env.num_envs)

    def reset(self) -> np.ndarray:
        seeds, self._seeds = self._seeds, [None] * self.num_envs
        return self.env.reset(seed=None if seeds[0] is None else seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.repeat(actions[:, None], ROBOT.chunk_steps, axis=1)

    def step_wait(self) -> Any:
        seen, rewards, ended, cut, told = self.env.step(self._actions)
        done = ended | cut
        self._sum += rewards
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": told["final_obs"][i],
                "TimeLimit.truncated": bool(cut[i] and not ended[i]),
            }
            self.gained.append(float(self._sum[i]))
            self._sum[i] = 0
        return seen, (GAIN * rewards).astype(np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def get_attr(self, name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, name, None)] * self.num_envs

    def set_attr(self, name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError


class Learned:
    """What SAC has learned, as a policy of worldeval: its mean action, held for a chunk."""

    def __init__(self, model: Any, name: str, form: EnvForm, suite: Suite) -> None:
        self._model, self._form, self._suite = model, form, suite
        self._starts = {start.start_id: start for start in suite.starts}
        self.spec = PolicySpec(
            name=name,
            cameras=ROBOT.views,
            image_size=None,
            state_keys=("pose",),
            action_space=ROBOT.action_space,
            action_dim=ROBOT.action_dim,
            chunk=ROBOT.chunk_steps,
            execute=ROBOT.chunk_steps,
            rate_hz=ROBOT.control_hz,
        )

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Nothing is remembered."""

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        seen = [
            self._form.observe(
                ROBOT,
                self._suite,
                self._starts[o.rollout_id],
                np.stack([o.images[view] for view in ROBOT.views]),
                o.state["pose"],
            )
            for o in observations
        ]
        actions, _ = self._model.predict(np.stack(seen), deterministic=True)
        return np.repeat(actions[:, None], ROBOT.chunk_steps, axis=1).astype(np.float32)

    def close(self) -> None:
        """Nothing is held."""


def rates(policy: Learned, suite: Suite, worlds: dict[str, World], out: Path) -> dict[str, Any]:
    """Successes of ``policy`` in each world, and what the judge says of the true frames."""
    judge = load_judge(shipped.path(shipped.JUDGE))
    found: dict[str, Any] = {}
    won: dict[str, dict[str, bool | None]] = {}
    for name, world in worlds.items():
        with open_rollouts(out / name, ROBOT, images="lossless") as store:
            run(world, policy, suite, store, batch=8, progress=False)
        store = EpisodeStore.open(out / name)
        mine = [
            e
            for k in range(len(store.keys))
            if (e := store.episode(k)).extra["policy"] == policy.spec.name
        ]
        verdicts = {
            e.extra["start_id"]: {Outcome.SUCCESS: True, Outcome.FAILURE: False}.get(v.outcome)
            for e, v in zip(mine, judge.judge(mine), strict=True)
        }
        won[f"{name}, judged"] = verdicts
        if name == "true":
            won[name] = {e.extra["start_id"]: bool(e.success) for e in mine}
    for name, table in won.items():
        decided = [value for value in table.values() if value is not None]
        interval = wilson_interval(sum(decided), len(decided)) if decided else (0.0, 1.0)
        found[name] = {
            "successes": sum(decided),
            "decided": len(decided),
            "rollouts": len(table),
            "rate": sum(decided) / max(1, len(decided)),
            "interval": [float(end) for end in interval],
        }
    both = [
        (won["imagined, judged"][s], won["true"][s])
        for s in won["true"]
        if won["imagined, judged"][s] is not None
    ]
    found["same outcome"] = sum(a == b for a, b in both) / max(1, len(both))
    found["imagined alone"] = sum(bool(a) and not b for a, b in both)
    found["true alone"] = sum(bool(b) and not a for a, b in both)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", default="drawer-close")
    parser.add_argument("--steps", type=int, default=1600, help="chunks imagined for learning")
    parser.add_argument("--starts", type=int, default=50, help="start states, of each kind")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    out, began = given.out, time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - began
        began = time.process_time()

    suites = {}
    for name, split, first in (("learning", "validation", 500), ("asked", "evaluation", 500)):
        starts = tuple(start_states(split, given.task, given.starts, first))
        suites[name] = Suite(
            name=f"rl-{name}", robot=ROBOT.name, chunks=CHUNKS, starts=starts, seed=given.seed
        )
        draw_starts(suites[name], out / f"starts-{name}")
    form = EnvForm(observation="flat", view_size=(12, 12), views=("left", "right"))
    env = Batch(
        gymnasium.make_vec(
            "worldeval/Imagination-v0",
            num_envs=given.batch,
            suite=suites["learning"],
            starts=out / "starts-learning",
            reward="progress",
            judge=None,
            observation="flat",
            view_size=form.view_size,
            views=form.views,
            device="cpu",
        )
    )
    env.seed(given.seed)
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        learning_starts=20 * given.batch,
        batch_size=128,
        gamma=0.95,
        train_freq=1,
        gradient_steps=2 * given.batch,
        policy_kwargs={"net_arch": [128, 128]},
        seed=given.seed,
        device="cpu",
    )
    imagined = open_world(
        "imagination", ImaginationOptions(starts=out / "starts-asked", device="cpu")
    )
    worlds = {"imagined": imagined, "true": open_world("metaworld")}
    lap("start states and loading")
    results = {
        "before": rates(
            Learned(model, "before", form, suites["asked"]), suites["asked"], worlds, out
        )
    }
    lap("evaluating")
    model.learn(given.steps)
    model.save(out / "model.zip")
    lap("learning")
    results["after"] = rates(
        Learned(model, "after", form, suites["asked"]), suites["asked"], worlds, out
    )
    lap("evaluating")
    tenth = max(1, len(env.gained) // 10)
    told = {
        "task": given.task,
        "learner": "SAC of Stable-Baselines3, MLP of 2 x 128",
        "chunks imagined": given.steps,
        "rollouts imagined": len(env.gained),
        "progress gained, first tenth": float(np.mean(env.gained[:tenth])),
        "progress gained, last tenth": float(np.mean(env.gained[-tenth:])),
        "start states": given.starts,
        "results": results,
        "cpu seconds": {name: round(value) for name, value in seconds.items()},
    }
    (out / "rl.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
