"""Any world as a gymnasium environment: ``WorldVectorEnv`` for many rollouts, ``WorldEnv`` for one.

Enters: a ``World``, a ``Suite``, and per step one chunk of actions a rollout, ``(num_envs, K * A)``
or ``(num_envs, K, A)``, or a single action (K = 1); actions beyond the robot's bounds are clipped.
Leaves: gymnasium's five values; what is observed, and how long a step is, says ``EnvForm``. The new
frames that the world showed stand in ``info["frames"]``, (T, V, H, W, 3) uint8 a rollout.

``suite.chunks`` chunks truncate a rollout. Where the world has a success flag it gives reward 1 and
terminates; a judge, if given, decides at the end instead. With ``progress`` the reward is what a
step gained of it, and success is told in the info alone. Autoreset is SAME_STEP, the only mode in
which ``info["final_info"]["is_success"]`` survives (LeRobot reads it).

Rollout i after ``reset(seed=s)`` equals ``WorldEnv.reset(seed=s + i)``: it begins at start state
``(s + i) mod len(suite.starts)`` and goes on in strides of ``num_envs``, so that evaluating visits
all start states; ``options={"start_ids": [...]}`` chooses them by name, and ``{"reset_mask":
mask}`` begins those rollouts anew for which it is True, as gymnasium's own vectors do. Other
options are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from worldeval.errors import ConfigError
from worldeval.robots import RobotSpec
from worldeval.rollout.env_form import EnvForm
from worldeval.rollout.env_rollouts import EnvRollouts, JudgeCall, ProgressCall
from worldeval.rollout.reset_options import check_options, start_ids
from worldeval.rollout.suite import Suite
from worldeval.types import World


class WorldVectorEnv(VectorEnv):
    """Many rollouts of one world, stepped together. See the module's docstring.

    suite: where rollouts begin and how many chunks they last. judge: ``Judge.judge``, which then
    decides about success in place of the world's own flag. progress: ``ProgressJudge.newest``, for
    the reward. flat_actions: whether the action space is (K * A,) or (K, A); ``step`` takes both.
    ``close`` closes the world.
    """

    def __init__(
        self,
        world: World,
        suite: Suite,
        *,
        num_envs: int,
        judge: JudgeCall | None = None,
        progress: ProgressCall | None = None,
        form: EnvForm | None = None,
        flat_actions: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs!r}, expected 1 or more rollouts")
        self._rows = EnvRollouts(world, suite, num_envs, judge, form=form, progress=progress)
        self.num_envs = num_envs
        self.metadata = _metadata(world.robot) | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = _known(render_mode)
        self.single_observation_space = self._rows.form.space(world.robot, suite)
        self.single_action_space = action_space(self._rows, flat_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.envs = tuple(RolloutView(self._rows, i, self.metadata) for i in range(num_envs))
        self._chances: list[np.random.Generator] = []
        self._places: list[int] = []

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)]
            if (seed is None or isinstance(seed, int | np.integer))
            else list(seed)
        )
        if len(seeds) != self.num_envs:
            raise ConfigError(f"{len(seeds)} seeds were given for {self.num_envs} rollouts")
        # All options are looked at before anything changes.
        check_options(options, ("start_id", "start_ids", "reset_mask"))
        rows = self._masked(options)
        chosen = start_ids(options, self.num_envs)
        for i in rows:
            self._rows.start(0, chosen[i])
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        begun = bool(self._chances)
        self._chances = self._chances or [np.random.default_rng(0)] * self.num_envs
        self._places = self._places or [0] * self.num_envs
        for i in rows:
            one = seeds[i]
            if one is not None or not begun:
                self._chances[i], used = seeding.np_random(one)
                self._places[i] = used
            else:
                self._places[i] += self.num_envs
        infos: dict[str, Any] = {}
        for i, info in zip(rows, self._begin(rows, chosen), strict=True):
            infos = self._add_info(infos, info, i)
        return self._seen(), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        answers = self._rows.step(actions)
        rewards = np.array([a.reward for a in answers], np.float64)
        terminated = np.array([a.terminated for a in answers], np.bool_)
        truncated = np.array([a.truncated for a in answers], np.bool_)
        infos: dict[str, Any] = {}
        ended = [i for i, answer in enumerate(answers) if answer.terminated or answer.truncated]
        for i in ended:
            last = {"final_obs": self._rows.observe(i), "final_info": answers[i].info}
            infos = self._add_info(infos, last, i)
            self._places[i] += self.num_envs
        nowhere = [None] * self.num_envs
        fresh = dict(zip(ended, self._begin(ended, nowhere), strict=True)) if ended else {}
        for i, answer in enumerate(answers):
            infos = self._add_info(infos, fresh.get(i, answer.info), i)
        return self._seen(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The views of each rollout side by side, (H, V * W, 3) each."""
        if self.render_mode is None:
            return None
        return tuple(self._rows.picture(i) for i in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """An attribute of every rollout, as LeRobot asks for ``task_description``."""
        values = self.get_attr(name)
        return tuple(v(*args, **kwargs) if callable(v) else v for v in values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return tuple(getattr(env, name) for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        self._rows.world.close()

    def _seen(self) -> Any:
        """What all rollouts show, as gymnasium puts observations together."""
        space = self.single_observation_space
        empty: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, [self._rows.observe(i) for i in range(self.num_envs)], empty)

    def _masked(self, options: Mapping[str, Any] | None) -> list[int]:
        """The rollouts to begin: those of ``reset_mask``, or all."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return list(range(self.num_envs))
        array = np.asarray(mask)
        if array.shape != (self.num_envs,) or array.dtype != np.bool_ or not array.any():
            raise ConfigError(
                f"reset_mask is {mask!r}, expected {self.num_envs} of True and False, at least one "
                "of them True"
            )
        if not self._rows.rows and not array.all():
            raise ConfigError(
                f"reset_mask is {mask!r} before any rollout has begun; reset all of them first"
            )
        return [int(i) for i in np.flatnonzero(array)]

    def _begin(self, rows: Sequence[int], chosen: Sequence[str | None]) -> list[dict[str, Any]]:
        """chosen: the start state of every rollout there is; None for the next in turn."""
        starts = [self._rows.start(self._places[i], chosen[i]) for i in rows]
        seeds = [int(self._chances[i].integers(2**32)) for i in rows]
        return self._rows.begin(rows, starts, seeds)


class RolloutView:
    """What LeRobot asks of one rollout (``env.envs[i].task_description``)."""

    def __init__(self, rows: EnvRollouts, i: int, metadata: dict[str, Any]) -> None:
        self._rows, self._i = rows, i
        self.metadata = metadata
        self._max_episode_steps = rows.most_steps // rows.steps

    @property
    def task(self) -> str:
        return self._rows.current_start(self._i).task

    @property
    def task_description(self) -> str:
        return self._rows.current_start(self._i).instruction

    @property
    def start_id(self) -> str:
        return self._rows.current_start(self._i).start_id

    def render(self) -> np.ndarray:
        return self._rows.picture(self._i)


class WorldEnv(gymnasium.Env):
    """One rollout of a world; passes ``gymnasium.utils.env_checker.check_env``.

    ``options={"start_id": ...}`` chooses the start state by name, an option that is not known is
    refused. stride: how many start states
    later the next rollout begins, for use beside others of its kind (``SyncVectorEnv``).
    """

    def __init__(
        self,
        world: World,
        suite: Suite,
        *,
        judge: JudgeCall | None = None,
        progress: ProgressCall | None = None,
        form: EnvForm | None = None,
        flat_actions: bool = True,
        stride: int = 1,
        render_mode: str | None = None,
    ) -> None:
        self._stride = stride
        self._rows = EnvRollouts(world, suite, 1, judge, form=form, progress=progress)
        self.metadata = _metadata(world.robot)
        self.render_mode = _known(render_mode)
        self.observation_space = self._rows.form.space(world.robot, suite)
        self.action_space = action_space(self._rows, flat_actions)
        self._place: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        check_options(options, ("start_id", "start_ids"))
        (chosen,) = start_ids(options, 1)
        self._rows.start(0, chosen)  # before anything changes
        super().reset(seed=seed)
        if seed is not None or self._place is None:
            self._place = seed if seed is not None else int(self.np_random.integers(2**32))
        else:
            self._place += self._stride
        start = self._rows.start(self._place, chosen)
        infos = self._rows.begin([0], [start], [int(self.np_random.integers(2**32))])
        return self._rows.observe(0), infos[0]

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        (answer,) = self._rows.step(np.asarray(action)[None])
        return (
            self._rows.observe(0),
            answer.reward,
            answer.terminated,
            answer.truncated,
            answer.info,
        )

    @property
    def task(self) -> str:
        return self._rows.current_start(0).task

    @property
    def task_description(self) -> str:
        """The instruction; LeRobot asks for it by this name."""
        return self._rows.current_start(0).instruction

    @property
    def _max_episode_steps(self) -> int:
        return self._rows.most_steps // self._rows.steps

    def render(self) -> np.ndarray | None:
        """The views side by side, (H, V * W, 3)."""
        return None if self.render_mode is None else self._rows.picture(0)

    def close(self) -> None:
        self._rows.world.close()


def action_space(rows: EnvRollouts, flat: bool = True) -> spaces.Box:
    """One step of one rollout: (K * A,) or (K, A), within the robot's bounds."""
    low, high = (
        np.tile(np.asarray(bound, np.float32), (rows.steps, 1))
        for bound in (rows.robot.action_low, rows.robot.action_high)
    )
    return spaces.Box(low.ravel(), high.ravel()) if flat else spaces.Box(low, high)


def _metadata(robot: RobotSpec) -> dict[str, Any]:
    return {"render_modes": ["rgb_array"], "render_fps": max(1, round(robot.frame_hz))}


def _known(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode is {render_mode!r}, expected None or 'rgb_array'")
    return render_mode
