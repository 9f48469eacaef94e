"""The imagined world as an environment of LeRobot, for ``lerobot-eval``.

Enters: LeRobot's own command line::

    lerobot-eval --env.discover_packages_path=worldeval.lerobot_env --env.type=worldeval \\
        --env.task=reach --policy.path=CHECKPOINT --eval.batch_size=4 --eval.n_episodes=10

Leaves: its eval_info.json and films; whether a rollout succeeded, the shipped judge says. LeRobot
0.4 makes ``batch_size`` single environments, each with the model in memory. ``make_env`` makes one
that batches: from Python, or as an EnvHub repository whose env.py says
``from worldeval.lerobot_env import make_env``; later versions call ``create_envs``, which uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

from worldeval import gym, shipped
from worldeval.data.fit import robot_of_checkpoint
from worldeval.errors import ConfigError
from worldeval.robots import read_robot

STEP: dict[str, Any] = {"step": "action", "pictures": "chunk"}
"""LeRobot asks for single actions, which policies of chunks take from a queue."""


@EnvConfig.register_subclass("worldeval")
@dataclass
class WorldEvalEnv(EnvConfig):
    """What ``--env.NAME`` says; see ``worldeval.gym.EnvOptions`` for what is not said here.

    task: one of the suite's; all, if empty. pictures: "chunk" for policies that carry out whole
    chunks of the robot, "frame" for those that look again sooner.
    """

    task: str | None = None
    world_model: str | None = None
    starts: str | None = None
    suite: str | None = None
    judge: str = "shipped"
    chunks: int | None = None
    pictures: str = "chunk"
    sampler_steps: int | None = None
    device: str | None = None
    robot: str | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        robot = None if self.robot is None else read_robot(self.robot)
        place = self.world_model or shipped.path(shipped.WORLD_MODEL)
        robot = robot or robot_of_checkpoint(Path(place))
        if robot is None:
            raise ConfigError(f"world model {place} keeps no robot; give --env.robot")
        self.fps = max(1, round(robot.control_hz))
        height, width = robot.image_size
        picture = PolicyFeature(type=FeatureType.VISUAL, shape=(height, width, 3))
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(robot.action_dim,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(robot.pose_dim,)),
            **{f"pixels/{view}": picture for view in robot.views},
        }
        self.features_map = {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{view}": f"observation.images.{view}" for view in robot.views},
        }

    @property
    def package_name(self) -> str:
        return "worldeval.gym"

    @property
    def gym_id(self) -> str:
        return gym.IMAGINATION_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        names = ("world_model", "starts", "suite", "chunks", "sampler_steps", "device", "robot")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {
            **given,
            "task": self.task or None,
            "judge": self.judge,
            "step": "action",
            "pictures": self.pictures,
            "render_mode": "rgb_array",
        }

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
        """Suite -> number of the task -> environments, for versions of LeRobot that ask for it."""
        return make_env(n_envs, use_async_envs, cfg=self)


def make_env(
    n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None, **options: Any
) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
    """One environment of ``n_envs`` rollouts that go through the world model together.

    cfg: a ``WorldEvalEnv``. options: of ``worldeval.gym.EnvOptions``, instead. use_async_envs:
    makes no difference, processes would each need the model.
    """
    if isinstance(cfg, WorldEvalEnv):
        options = cfg.gym_kwargs | options
    made = gymnasium.make_vec(
        gym.IMAGINATION_ID, num_envs=n_envs, **{**STEP, "render_mode": "rgb_array", **options}
    )
    return {"worldeval": {0: made}}
