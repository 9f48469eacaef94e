"""A tiny deterministic world in numpy: a dot moved by the commanded hand, over two discs.

Enters: action chunks of ``TOY_ROBOT``, or of any robot with a pose x, y, z, gripper. Leaves: frames
of three orthographic views, the commanded poses, and a success flag that is true while the hand is
over the disc that the task names. Both discs are always visible and the start state does not tell
which one is meant, so a policy must follow the instruction.

It serves as the fake of tests and as a first world for a new policy: no simulator, no model, some
thousand frames per second, the same protocol.

    world = ToyWorld()
    suite = Suite(name="toy", robot=world.robot.name, chunks=6, starts=toy_starts(count=3))
    report = run(world, ToyPolicy(robot=world.robot), suite, store, batch=4)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldeval.errors import ConfigError, PolicyError, StartStateError, WorldError
from worldeval.robots import CameraSpec, RobotSpec
from worldeval.types import ActionChunk, Observation, PolicySpec, StartState, WorldStep

HALF_WIDTH_M = 0.2
"""The hand moves in a cube from -0.2 m to 0.2 m."""
TOUCH_M = 0.06
"""The hand touches a disc when it is nearer than this to its centre."""
TASKS = {
    "touch-red": ("move to the red disc", (220, 60, 50)),
    "touch-green": ("move to the green disc", (50, 200, 70)),
}
"""Task -> instruction and RGB colour of the disc that is meant."""
SPLITS = {"training": 0, "validation": 1, "evaluation": 2}
_BACKGROUND = (40, 40, 60)
_VIEW_AXES = {"top": (0, 1), "front": (0, 2), "side": (1, 2)}
"""View -> pose components that run right and up in its image."""


def toy_robot(
    *,
    views: Sequence[str] = ("top", "front", "side"),
    image_size: tuple[int, int] = (32, 32),
    steps_per_frame: int = 2,
    frames_per_chunk: int = 3,
) -> RobotSpec:
    """A robot whose hand goes where it is told: 20 control steps per second, 2 cm each at most.

    views: any names; others than "top", "front" and "side" look along one of these axes.
    """
    bound = (HALF_WIDTH_M,) * 3
    camera = {"mount": "fixed", "fovy_rad": 0.5, "rotation": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
    return RobotSpec(
        name="toy",
        action_space="toy-delta-position",
        action_names=("dx", "dy", "dz", "gripper"),
        action_low=(-1.0,) * 4,
        action_high=(1.0,) * 4,
        pose_names=("x", "y", "z", "gripper"),
        pose_low=(*(-b for b in bound), -1.0),
        pose_high=(*bound, 1.0),
        action_scale_m=0.02,
        control_hz=20.0,
        steps_per_frame=steps_per_frame,
        frames_per_chunk=frames_per_chunk,
        image_size=image_size,
        cameras=tuple(CameraSpec(name=v, position_m=(0.0, 0.0, 1.0), **camera) for v in views),  # type: ignore[arg-type]
        workspace_m=(0.0, 0.0, HALF_WIDTH_M, 0.0),
    )


TOY_ROBOT = toy_robot()


def toy_starts(
    *, count: int = 4, split: str = "evaluation", tasks: Sequence[str] = tuple(TASKS)
) -> tuple[StartState, ...]:
    """``count`` start states of each task; splits never share a scene, tasks share all of them."""
    if split not in SPLITS:
        raise ConfigError(f"toy world: split is {split!r}, expected one of {list(SPLITS)}")
    return tuple(
        StartState(
            start_id=f"{task}/{split}/{i:04d}",
            task=task,
            seed=3 * i + SPLITS[split],
            split=split,
            instruction=TASKS[task][0],
        )
        for task in tasks
        for i in range(count)
    )


class ToyWorld:
    """Rollouts of a dot. See the module's docstring.

    robot: see ``toy_robot``. truth: whether the success flag is given; without it the world looks
        as an imagined one does. jitter_m: standard deviation of a shake of the drawn dot, the
        world's own randomness, drawn from the rollout's seed. frames_per_step: the
        most frames that it can be stepped by, as of a world model.
    """

    def __init__(
        self,
        *,
        robot: RobotSpec = TOY_ROBOT,
        truth: bool = True,
        jitter_m: float = 0.0,
        frames_per_step: int | None = None,
        name: str = "toy",
    ) -> None:
        self.name = name
        self.robot = robot
        self.frames_per_step = frames_per_step
        self._truth = truth
        self._jitter_m = jitter_m
        self._starts: list[StartState] = []
        self._discs: list[dict[str, np.ndarray]] = []
        self._rngs: list[np.random.Generator] = []

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        self._starts = list(starts)
        self._discs = [{}] * len(starts)
        self._rngs = [np.random.default_rng(0)] * len(starts)
        return self.reset_rows(range(len(starts)), starts, seeds)

    def reset_rows(
        self, rows: Sequence[int], starts: Sequence[StartState], seeds: Sequence[int]
    ) -> WorldStep:
        """Begin new rollouts in some rows while the others stay as they are."""
        poses = []
        for row, start, seed in zip(rows, starts, seeds, strict=True):
            if start.task not in TASKS:
                raise StartStateError(
                    f"start state {start.start_id!r}: task {start.task!r} does not exist in world "
                    f"{self.name!r}; choose one of {list(TASKS)}"
                )
            self._starts[row] = start
            self._discs[row], pose = _scene(start.seed, self.robot)
            self._rngs[row] = np.random.default_rng(seed)
            poses.append(pose)
        return self._show(np.asarray(poses, np.float32)[:, None], rows)

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        frames = chunk.poses.shape[1]
        if self.frames_per_step is not None and frames > self.frames_per_step:
            raise WorldError(
                f"world {self.name!r} was stepped by {frames} frames, it takes "
                f"{self.frames_per_step} at a time at most"
            )
        return self._show(chunk.poses, rows)

    def close(self) -> None:
        self._starts, self._discs, self._rngs = [], [], []

    def _show(self, poses: np.ndarray, rows: Sequence[int]) -> WorldStep:
        frames, success = [], []
        for row, path in zip(rows, poses, strict=True):  # path: (T, P)
            shake = self._rngs[row].normal(0, self._jitter_m, (len(path), 3))
            discs = self._discs[row]
            frames.append(
                [
                    _draw(discs, p[:3] + s, p[3], self.robot)
                    for p, s in zip(path, shake, strict=True)
                ]
            )
            goal = discs[self._starts[row].task]
            success.append(np.linalg.norm(path[:, :3] - goal, axis=-1) < TOUCH_M)
        return WorldStep(
            frames=np.asarray(frames, np.uint8),
            poses=np.asarray(poses, np.float32),
            success=np.asarray(success) if self._truth else None,
            info=[{"scene_seed": self._starts[row].seed} for row in rows],
        )


def _scene(seed: int, robot: RobotSpec) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Disc centres by task, and the start pose; both discs are well away from the hand."""
    rng = np.random.default_rng(seed)
    side = rng.choice([-1.0, 1.0])
    discs = {}
    for sign, task in zip((side, -side), TASKS, strict=True):
        centre = rng.uniform(-0.5, 0.5, 3) * HALF_WIDTH_M
        centre[0] = sign * rng.uniform(0.55, 0.8) * HALF_WIDTH_M
        discs[task] = np.clip(centre, robot.pose_low[:3], robot.pose_high[:3])
    pose = np.zeros(robot.pose_dim)
    pose[1:3] = rng.uniform(-0.2, 0.2, 2) * HALF_WIDTH_M
    pose[-1] = -1.0
    return discs, pose


def _draw(
    discs: dict[str, np.ndarray], hand_m: np.ndarray, gripper: float, robot: RobotSpec
) -> np.ndarray:
    """(V, H, W, 3) uint8: discs by colour, above them the hand, brighter when it is closed."""
    height, width = robot.image_size
    right_m = (np.arange(width) + 0.5) / width * 2 * HALF_WIDTH_M - HALF_WIDTH_M
    up_m = HALF_WIDTH_M - (np.arange(height) + 0.5) / height * 2 * HALF_WIDTH_M
    images = np.empty((len(robot.views), height, width, 3), np.uint8)
    images[:] = _BACKGROUND
    bright = int(round(200 + 55 * float(np.clip(gripper, -1, 1))))
    things = [(discs[task], 0.04, colour) for task, (_, colour) in TASKS.items()]
    things.append((hand_m, 0.025, (bright, bright, bright)))
    for number, (image, view) in enumerate(zip(images, robot.views, strict=True)):
        across, along = _VIEW_AXES.get(view, list(_VIEW_AXES.values())[number % 3])
        for centre, radius_m, colour in things:
            near = (right_m[None] - centre[across]) ** 2 + (up_m[:, None] - centre[along]) ** 2
            image[near < radius_m**2] = colour
    return images


class ToyPolicy:
    """Looks for the disc of the colour in the instruction and moves there.

    mistakes: probability that in a rollout it goes to the other disc instead, so that its true
        success rate is 1 - mistakes. clumsiness: standard deviation of the noise on each action.
        Both are drawn from the rollout's seed. It needs the views "top" and "front".
    """

    def __init__(
        self,
        *,
        robot: RobotSpec = TOY_ROBOT,
        name: str = "toy-expert",
        mistakes: float = 0.0,
        clumsiness: float = 0.0,
        execute: int | None = None,
    ) -> None:
        if not 0 <= mistakes <= 1:
            raise ConfigError(f"mistakes is {mistakes!r}, expected a probability")
        self._robot = robot
        self._mistakes = mistakes
        self._clumsiness = clumsiness
        self._rngs: dict[str, np.random.Generator] = {}
        self._confused: dict[str, bool] = {}
        self.spec = PolicySpec(
            name=name,
            cameras=("top", "front"),
            image_size=None,
            state_keys=("pose",),
            action_space=robot.action_space,
            action_dim=robot.action_dim,
            chunk=robot.chunk_steps,
            execute=robot.chunk_steps if execute is None else execute,
            rate_hz=robot.control_hz,
        )

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._rngs = {
            i: np.random.default_rng(seed) for i, seed in zip(rollout_ids, seeds, strict=True)
        }
        self._confused = {i: rng.random() < self._mistakes for i, rng in self._rngs.items()}

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        return np.stack([self._one(o) for o in observations]).astype(np.float32)

    def close(self) -> None:
        self._rngs, self._confused = {}, {}

    def _one(self, observation: Observation) -> np.ndarray:
        confused = self._confused[observation.rollout_id]
        colours = [
            c for text, c in TASKS.values() if (text == observation.instruction) is not confused
        ]
        if observation.instruction not in (text for text, _ in TASKS.values()):
            raise PolicyError(
                f"policy {self.spec.name!r} does not understand {observation.instruction!r}, "
                f"expected one of {[text for text, _ in TASKS.values()]}"
            )
        x, y = _find(observation.images["top"], colours[0])
        _, z = _find(observation.images["front"], colours[0])
        hand = observation.state["pose"][:3].astype(np.float64)
        actions = np.zeros((self.spec.chunk, self._robot.action_dim))
        actions[:, -1] = -1.0
        noise = self._rngs[observation.rollout_id].normal(0, self._clumsiness, (self.spec.chunk, 3))
        for k in range(self.spec.chunk):
            wanted = (np.array([x, y, z]) - hand) / self._robot.action_scale_m
            actions[k, :3] = np.clip(wanted + noise[k], -1, 1)
            hand += actions[k, :3] * self._robot.action_scale_m
        return actions


def _find(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Right and up (m) of the centre of a colour in an image; the middle if it is hidden."""
    height, width = image.shape[:2]
    distance = np.abs(image.astype(np.int32) - np.array(colour)).sum(-1)
    rows, columns = np.nonzero(distance < 60)
    if len(rows) == 0:
        return 0.0, 0.0
    right = ((columns.mean() + 0.5) / width * 2 - 1) * HALF_WIDTH_M
    up = (1 - (rows.mean() + 0.5) / height * 2) * HALF_WIDTH_M
    return float(right), float(up)
