"""A drawn path is followed: by the poses in the picture, in the simulator, in imagination."""

from pathlib import Path

import numpy as np
import pytest

from worldeval.errors import ConfigError
from worldeval.live.drive import Drive
from worldeval.live.studio import Studio
from worldeval.motion.panda import panda
from worldeval.motion.sketch import drawn, exterior_views, sketched_poses, unproject
from worldeval.robots import RobotSpec
from worldeval.worlds.sawyer import CAMERAS, ROBOT, start_states

HAND = np.array([0.02, 0.6, 0.2, -1.0])
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def line(start: np.ndarray, by: tuple[float, float], points: int = 12) -> np.ndarray:
    return start + np.linspace(0, 1, points)[:, None] * np.array(by)


@pytest.mark.parametrize("view", ["left", "right"])
@pytest.mark.parametrize("height_m", [None, 0.1])
def test_poses_along_a_sketch_are_where_it_was_drawn(view: str, height_m: float | None) -> None:
    start = drawn(ROBOT, view, HAND[None])[0]
    path = line(start, (0.1, -0.06))
    poses = sketched_poses(ROBOT, view, path, HAND, height_m=height_m)
    if height_m is not None:
        assert poses[-1, 2] == pytest.approx(height_m)
    seen = drawn(ROBOT, view, poses)
    assert seen[-1] == pytest.approx(path[-1], abs=1e-4)
    if height_m is None:  # else it first goes down from the hand
        off = np.abs((seen - start) @ [0.06, 0.1]) / np.hypot(0.1, 0.06)
        assert (off * 64).max() < 0.2, "pixels off the line"
    steps = np.linalg.norm(np.diff(np.concatenate([HAND[None], poses])[:, :3], axis=0), axis=1)
    assert steps.max() <= 0.015 + 1e-6, "half of 3 cm a frame"


def test_a_point_goes_to_the_plane_and_back(toy_robot: RobotSpec) -> None:
    rng = np.random.default_rng(0)
    for camera in (*CAMERAS[:2], toy_robot.cameras[0]):
        points = rng.uniform(0.3, 0.7, (20, 2))
        for height in (None, 0.0, 0.3):
            places = unproject(camera, points, HAND[:3], height)
            seen = camera.project(places, np.broadcast_to(HAND[:3], places.shape))
            assert seen[:, :2] == pytest.approx(points, abs=1e-4)


def test_the_path_stops_where_the_hand_does_and_keeps_the_gripper_as_told() -> None:
    start = drawn(ROBOT, "left", HAND[None])[0]
    poses = sketched_poses(ROBOT, "left", line(start, (0.0, 0.45)), HAND, gripper=1.0)
    assert poses[:, 2].min() == pytest.approx(0.05) and (poses[:, 3] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view": "wrist"}, "is hand, a path is drawn on one that is fixed"),
        ({"view": "nose"}, "no view 'nose', a path can be drawn on \\['left', 'right'\\]"),
        ({"points": [[0.5, 1.5]]}, "leaves the picture"),
        ({"points": [[0.5, np.nan]]}, "leaves the picture"),
        ({"points": []}, "expected \\(points, 2\\)"),
        ({"speed": 0}, "speed is 0"),
        ({"height_m": 5.0}, "above the horizon"),
    ],
)
def test_what_cannot_be_followed_is_told(change: dict, message: str) -> None:
    given = {"view": "left", "points": [[0.5, 0.5]], "pose": HAND, **change}
    with pytest.raises(ConfigError, match=message):
        sketched_poses(ROBOT, **given)


def test_a_robot_without_calibrated_cameras_has_no_views_to_draw_on() -> None:
    robot = panda("absolute_pose")
    assert exterior_views(robot) == () and exterior_views(ROBOT) == ("left", "right")
    with pytest.raises(ConfigError, match="is uncalibrated"):
        sketched_poses(robot, robot.views[0], np.array([[0.5, 0.5]]), np.zeros(7))


@pytest.mark.sim
def test_the_simulated_hand_goes_where_it_was_drawn() -> None:
    from worldeval.worlds.metaworld import MetaWorld

    world = MetaWorld()
    drive = Drive(world, start_states("evaluation", "reach", 1)[0])
    simulation, camera = world.simulation("reach"), CAMERAS[0]

    def hand() -> np.ndarray:
        place = simulation.data.body("hand").xpos
        return 64 * camera.project(place, place)[:2]

    drive.follow(np.repeat(drive.pose[None], 4, 0))
    start, before = drawn(ROBOT, "left", drive.pose[None])[0], hand()
    drive.sketch("left", line(start, (0.12, -0.1)))
    drive.follow(np.repeat(drive.pose[None], 4, 0))
    assert hand() - before == pytest.approx([64 * 0.12, -64 * 0.1], abs=1.5)


@pytest.mark.weights
@pytest.mark.parametrize("by", [(0.1, -0.12), (-0.1, 0.05)])
def test_the_imagined_hand_follows_the_sketch(by: tuple[float, float]) -> None:
    import torch

    from worldeval.data.video import to_model
    from worldeval.imagination.trust.signals import Trust

    drive = Studio.open(CHECKPOINTS / "world-model").drive("reach/evaluation/0001")
    network = Trust.load(CHECKPOINTS / "trust", CHECKPOINTS / "autoencoder").network

    def read() -> np.ndarray:
        """Where the pictures show the hand, in pixels of the left view."""
        video = torch.from_numpy(to_model(drive.frames))
        last = np.array([len(video) - 1])
        units = network.read(video, np.maximum(last - 4, 0), last)[0, -1, 0]
        pose = (units * network.pose_spread + network.pose_centre).numpy()
        return 64 * drawn(ROBOT, "left", pose[None])[0]

    before = read()
    start = drawn(ROBOT, "left", drive.pose[None])[0]
    drive.sketch("left", line(start, by))
    assert read() - before == pytest.approx(64 * np.array(by), abs=2.0)
