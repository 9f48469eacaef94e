"""Policies over the wire in the real loop: many at once, failures apart, a server killed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.motion.panda import forward_pose, panda
from worldeval.policies.loading import load_policy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.summary import ChunkEvent, RunSummary
from worldeval.types import ActionChunk, Episode, StartState, WorldStep

STUB = Path(__file__).parent.parent / "policies" / "servers" / "stub_server.py"
_spec = importlib.util.spec_from_file_location("stub_server", STUB)
assert _spec is not None and _spec.loader is not None
stub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stub)

ROBOT = panda(image_size=(12, 20))
HOME_RAD = (0.0, -0.63, 0.0, -2.5, 0.0, 1.9, 0.0)
CHUNKS = 3


class ArmWorld:
    """An arm whose frames are a hash of its pose and joints: no difference goes unseen."""

    name = "arm"
    robot = ROBOT
    frames_per_step = ROBOT.frames_per_chunk

    def reset(self, starts: Sequence[StartState], seeds: Sequence[int]) -> WorldStep:
        joints = np.stack([HOME_RAD + np.random.default_rng(s).normal(0, 0.1, 7) for s in seeds])
        poses = np.concatenate([forward_pose(joints), np.zeros((len(joints), 1))], axis=-1)
        return self._show(poses[:, None].astype(np.float32), joints[:, None].astype(np.float32))

    def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
        assert chunk.joints is not None
        return self._show(chunk.poses, chunk.joints)

    def close(self) -> None:
        """Nothing to release."""

    def _show(self, poses: np.ndarray, joints: np.ndarray) -> WorldStep:
        count, frames = poses.shape[:2]
        images = np.empty((count, frames, 3, *ROBOT.image_size, 3), np.uint8)
        for row in range(count):
            for t in range(frames):
                seen = poses[row, t].tobytes() + joints[row, t].tobytes()
                digest = hashlib.sha256(seen).digest()
                rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
                images[row, t] = rng.integers(0, 256, images.shape[2:], np.uint8)
        return WorldStep(frames=images, poses=poses, joints=joints, success=None, info=[{}] * count)


def suite(count: int = 8) -> Suite:
    starts = tuple(
        StartState(
            start_id=f"pick/{i}", task="pick", seed=i, split="evaluation", instruction=f"do {i}"
        )
        for i in range(count)
    )
    return Suite(name="s", robot=ROBOT.name, chunks=CHUNKS, starts=starts)


def roll(
    folder: Path,
    port: int,
    *,
    batch: int,
    arguments: str = "",
    scheme: str = "openpi",
    on_chunk: Callable[[ChunkEvent], None] | None = None,
) -> tuple[EpisodeStore, RunSummary]:
    store = open_rollouts(folder, ROBOT, images="lossless")
    uri = f"{scheme}://127.0.0.1:{port}?name=pi&timeout_s=20&reconnect_s=60{arguments}"
    policy = load_policy(uri, ROBOT)
    try:
        report = run(
            ArmWorld(), policy, suite(), store, batch=batch, progress=False, on_chunk=on_chunk
        )
    finally:
        policy.close()
    return store, report


def same(a: Episode, b: Episode) -> bool:
    outcomes = [(e.key, e.instruction, e.success, e.extra["outcome"]) for e in (a, b)]
    return outcomes[0] == outcomes[1] and all(
        np.array_equal(getattr(a, f), getattr(b, f))
        for f in ("frames", "poses", "joints", "actions")
    )


def differing(a: EpisodeStore, b: EpisodeStore) -> list[str]:
    assert a.keys == b.keys
    return [key for key in sorted(a.keys) if not same(a.by_key(key), b.by_key(key))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Eight rollouts, one by one, over one connection."""
    with stub.StubServer() as server:
        store, report = roll(
            tmp_path_factory.mktemp("alone"), server.port, batch=1, arguments="&connections=1"
        )
    assert report.rollouts == 8 and report.outcomes["error"] == 0
    return store


def test_a_server_of_ten_steps_runs_where_a_chunk_has_others(tmp_path: Path) -> None:
    """pi0 answers 10 steps; this robot's chunk has 8 of 2 a frame, the other's 12 of 3."""
    for per_frame, executed in ((2, 8), (3, 10), (4, 10)):
        robot = panda(image_size=(12, 20), steps_per_frame=per_frame)

        class World(ArmWorld):
            def step(self, chunk: ActionChunk, rows: Sequence[int]) -> WorldStep:
                assert chunk.poses.shape[1] <= self.frames_per_step
                return super().step(chunk, rows)

        world = World()
        world.robot = robot
        rng = np.random.default_rng(0)
        answer = rng.uniform(0, 0.5, (10, 8))
        with stub.StubServer(lambda _, a=answer: {"actions": a}) as server:
            policy = load_policy(f"openpi://127.0.0.1:{server.port}?name=pi", robot)
            assert (policy.spec.chunk, policy.spec.execute) == (10, executed)
            store = open_rollouts(tmp_path / str(per_frame), robot, images="lossless")
            run(world, policy, suite(1), store, batch=1, progress=False)
            policy.close()
        (episode,) = store
        actions = episode.actions.reshape(-1, 8)
        assert len(actions) == CHUNKS * robot.chunk_steps
        expected = np.tile(answer[:executed, :7], (20, 1))[: len(actions)]
        assert np.allclose(actions[:, :7], expected)


def test_eight_at_once_equal_one_by_one(tmp_path: Path, alone: EpisodeStore) -> None:
    def slowly(observation: dict[str, Any]) -> Any:
        time.sleep(0.01)
        return stub.openpi(observation)

    with stub.StubServer(slowly) as server:
        together, report = roll(tmp_path / "together", server.port, batch=8)
        assert server.most_at_once > 1
        assert len(server.seen) == 1 + 8 * CHUNKS  # the trial, and nothing asked twice
    assert report.outcomes["undecided"] == 8
    assert differing(together, alone) == []
    episodes = [together.by_key(key) for key in sorted(together.keys)]
    assert len({e.actions.tobytes() for e in episodes}) == 8
    assert all(e.actions.shape == (4 * CHUNKS, 3, 8) for e in episodes)


class Process:
    """The stub as a process of its own, to be killed without a word."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(STUB), "--port", str(port), "--delay-s", "0.02"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


def test_a_server_killed_and_started_again_in_the_middle_loses_nothing(
    tmp_path: Path, alone: EpisodeStore
) -> None:
    servers = [Process()]
    kills: list[int] = []

    def kill(event: ChunkEvent) -> None:
        if event.steps == ROBOT.chunk_steps and not kills:
            kills.append(event.steps)
            servers[0].kill()
            servers.append(Process(servers[0].port))

    try:
        store, report = roll(tmp_path / "killed", servers[0].port, batch=8, on_chunk=kill)
    finally:
        for server in servers:
            server.kill()
    assert kills == [ROBOT.chunk_steps]
    assert (report.rollouts, report.outcomes["error"]) == (8, 0)
    assert differing(store, alone) == []


def test_a_server_killed_while_it_thinks_loses_nothing(tmp_path: Path, alone: EpisodeStore) -> None:
    servers: list[Any] = []
    replacing: list[threading.Thread] = []

    def replace() -> None:
        servers[0].kill()
        servers.append(stub.StubServer(answer, port=servers[0].port))

    def answer(observation: dict[str, Any]) -> Any:
        if observation["prompt"] == "do 5" and not replacing:
            replacing.append(threading.Thread(target=replace))
            replacing[0].start()
            servers[0].closing.wait(5)
        return stub.openpi(observation)

    servers.append(stub.StubServer(answer))
    try:
        store, report = roll(tmp_path / "killed", servers[0].port, batch=8)
    finally:
        for thread in replacing:
            thread.join()
        for server in servers:
            server.kill()
    assert len(servers) == 2 and report.outcomes["error"] == 0
    assert differing(store, alone) == []


def nan(observation: dict[str, Any]) -> Any:
    return {"actions": np.full((15, 8), np.nan)}


def fail(observation: dict[str, Any]) -> Any:
    return observation["observation/joint_position"].weights


def die(observation: dict[str, Any]) -> Any:
    raise stub.Die


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda o: "no", "with the text 'no'"),
        (nan, "with nan"),
        (fail, "failed on rollout 'pick/5' step 12: AttributeError"),
        (die, "hung up 3 times when asked for rollout 'pick/5' step 12"),
        (lambda o: {"actions": np.zeros((4, 8))}, r"shape \(4, 8\)"),
    ],
)
def test_only_the_rollout_that_is_answered_badly_is_an_error(
    tmp_path: Path, alone: EpisodeStore, how: Callable[[dict[str, Any]], Any], says: str
) -> None:
    asked: list[bytes] = []

    def answer(observation: dict[str, Any]) -> Any:
        if observation["prompt"] == "do 5":
            seen = observation["observation/joint_position"].tobytes()
            if asked and seen != asked[0]:  # its second chunk, each time it is begun
                return how(observation)
            asked.append(seen)
        return stub.openpi(observation)

    with stub.StubServer(answer) as server:
        store, report = roll(tmp_path / "bad", server.port, batch=8)
    assert report.outcomes == {"success": 0, "failure": 0, "undecided": 7, "error": 1}
    assert differing(store, alone) == ["pi/pick/5"]
    episode = store.by_key("pi/pick/5")
    assert episode.success is None and episode.length == 1 + 4  # what it did until then is kept
    assert says.replace("\\", "") in episode.extra["error"]


def test_one_session_at_a_time_is_done_one_by_one(tmp_path: Path, alone: EpisodeStore) -> None:
    metadata = stub.ROBOARENA | {"needs_session_id": True}
    resets: list[str] = []
    plain = {
        "observation/exterior_image_1_left": "observation/exterior_image_0_left",
        **{k: k for k in ("observation/wrist_image_left", "observation/joint_position", "prompt")},
        "observation/gripper_position": "observation/gripper_position",
    }

    def answer(request: dict[str, Any]) -> Any:
        if request["endpoint"] == "reset":
            resets.append(request["session_id"])
            return "reset successful"
        assert request["session_id"] == resets[-1]  # this server remembers one
        return stub.hashed_actions({k: request[v] for k, v in plain.items()})

    with stub.StubServer(answer, metadata=metadata) as server:
        store, report = roll(tmp_path / "arena", server.port, batch=8, scheme="roboarena")
    assert report.outcomes["undecided"] == 8 and len(set(resets)) == 9
    assert differing(store, alone) == []
    assert json.loads(store.episode(0).extra["chunks"])[0]["step"] == 0
