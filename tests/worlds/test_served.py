"""`worldeval serve-world`: equal frames to the bit, sessions come and go, bad messages are told."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

import worldeval
from tests.policies.servers import stub_server as stub
from worldeval import testing
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import (
    ConfigError,
    MismatchError,
    PolicyAwayError,
    StartStateError,
    WorldError,
)
from worldeval.evaluation.opening import ImaginationOptions, open_world
from worldeval.evaluation.serving import world_server
from worldeval.policies.scripted import RandomPolicy
from worldeval.policies.servers.serving import PolicyServer
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.vector_env import WorldVectorEnv
from worldeval.types import ActionChunk
from worldeval.worlds.loading import load_world
from worldeval.worlds.serving import WorldServer

ROBOT = testing.toy_robot(views=("top", "front"), image_size=(24, 32))
STARTS = testing.toy_starts(count=3)
SUITE = Suite(name="s", robot="toy", chunks=3, starts=STARTS, seed=5)


def toy(**options: Any) -> testing.ToyWorld:
    return testing.ToyWorld(robot=ROBOT, jitter_m=0.02, **options)


def toys(**options: Any) -> WorldServer:
    return WorldServer(toy, starts=STARTS, chunks=3, seed=5, **options)


def url(server: WorldServer, *arguments: str) -> str:
    return f"ws://127.0.0.1:{server.port}?" + "&".join(["timeout_s=20", *arguments])


def rolled(world: Any, suite: Suite, out: Path, batch: int = 3) -> EpisodeStore:
    with open_rollouts(out, world.robot, images="lossless") as store:
        run(world, RandomPolicy(world.robot), suite, store, batch=batch, progress=False)
    return EpisodeStore.open(out)


def same(a: EpisodeStore, b: EpisodeStore) -> None:
    assert a.keys == b.keys and len(a.keys)
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.poses, other.poses)
        assert one.success == other.success


def test_an_episode_through_the_server_is_the_one_in_process(tmp_path: Path) -> None:
    with toys() as server:
        served = load_world(url(server))
        assert served.robot == ROBOT and served.name == toy().name
        testing.check_world(served, STARTS[:2])
        same(rolled(served, SUITE, tmp_path / "a"), rolled(toy(), SUITE, tmp_path / "b"))
        served.close()


@pytest.mark.weights
def test_an_imagined_episode_through_the_server_is_the_one_in_process(tmp_path: Path) -> None:
    options = ImaginationOptions(sampler_steps=2, device="cpu")
    with world_server("imagination", options) as server:
        served = worldeval.connect_world(f"ws://127.0.0.1:{server.port}")
        starts = served.own_starts()[:2]
        assert len(served.own_starts()) == 100  # the shipped suite, with its seed
        suite = Suite(
            name="i", robot=served.robot.name, chunks=2, starts=starts, seed=served.own_seed
        )
        here = open_world("imagination", options)
        same(rolled(served, suite, tmp_path / "a"), rolled(here, suite, tmp_path / "b"))
        served.close()


def test_rollouts_of_a_gymnasium_vector_begin_anew_in_a_served_world() -> None:
    with toys() as server:
        served = load_world(url(server))
        envs = [WorldVectorEnv(world, SUITE, num_envs=2) for world in (served, toy())]
        seen = [env.reset(seed=1) for env in envs]
        for number in range(5):  # over the end of a rollout
            actions = np.random.default_rng(number).uniform(-1, 1, (2, 24)).astype(np.float32)
            seen = [env.step(actions) for env in envs]
            for view in ROBOT.views:
                assert np.array_equal(seen[0][0]["pixels"][view], seen[1][0]["pixels"][view])
        served.close()


def test_several_clients_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with toys(sessions=4) as server:
        failed: list[BaseException] = []

        def client(number: int) -> None:
            try:
                served = load_world(url(server))
                rolled(served, SUITE, tmp_path / str(number), batch=1 + number)
                served.close()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        for number in range(4):
            same(EpisodeStore.open(tmp_path / str(number)), rolled(toy(), SUITE, tmp_path / "x"))


def test_a_lost_connection_changes_nothing(tmp_path: Path) -> None:
    """The session is told again to a connection that does not know it."""
    with toys() as server:
        served, here = load_world(url(server)), toy()
        chunk = ActionChunk(
            actions=np.full((2, 6, 4), 0.3, np.float32), poses=np.zeros((2, 3, 4), np.float32)
        )
        seen = [world.reset(STARTS[:2], [1, 2]) for world in (served, here)]
        for number in range(4):
            if number == 2:
                for connection in list(server._connections):
                    connection.close()
            seen = [world.step(chunk, [0, 1]) for world in (served, here)]
            assert np.array_equal(seen[0].frames, seen[1].frames)
        served.close()


class Foreign:
    """A client of openpi's wire that is not ours, with the codec written out a second time."""

    def __init__(self, server: WorldServer) -> None:
        self._opened = ExitStack()
        there = f"ws://127.0.0.1:{server.port}"
        self.connection = self._opened.enter_context(connect(there, compression=None))
        self.metadata = stub.decode(self.connection.recv())

    def ask(self, message: Any) -> Any:
        self.connection.send(message if isinstance(message, bytes) else stub.encode(message))
        answer = self.connection.recv()
        return answer if isinstance(answer, str) else stub.decode(answer)

    def close(self) -> None:
        self._opened.close()


def test_a_foreign_client_needs_neither_poses_nor_whole_start_states() -> None:
    with toys() as server:
        client, here = Foreign(server), toy()
        assert client.metadata["action_space"] == ROBOT.action_space
        assert client.metadata["worldeval_world"]["robot"]["name"] == "toy"
        begun = client.ask({"endpoint": "reset", "starts": [STARTS[0].start_id], "seeds": [7]})
        assert np.array_equal(begun["frames"], here.reset(STARTS[:1], [7]).frames)
        actions = np.random.default_rng(0).uniform(-1, 1, (1, 6, 4)).astype(np.float32)
        env = WorldVectorEnv(here, SUITE, num_envs=1)
        env.reset(seed=0)
        here.reset(STARTS[:1], [7])
        for _ in range(2):
            answer = client.ask({"endpoint": "step", "actions": actions})
            expected = env.step(actions)[0]["pixels"]["top"]
            assert np.array_equal(answer["frames"][:, -1, 0], expected)
            assert answer["success"].dtype == np.bool_
        client.close()


BAD: list[tuple[Any, str]] = [
    (b"\xc1nonsense", "is no message in msgpack"),
    ([1, 2], "a request is list, expected a map"),
    ({"endpoint": "infer"}, "endpoint is 'infer', expected 'reset', 'step' or 'close'"),
    ({"endpoint": "step"}, "is not known; reset it first"),
    ({"endpoint": "reset"}, "starts is NoneType, expected a list"),
    ({"endpoint": "reset", "starts": []}, "a reset has 0 starts and 0 seeds"),
    ({"endpoint": "reset", "starts": ["nowhere"]}, "start state 'nowhere' is not served"),
    ({"endpoint": "reset", "starts": [{"task": "x"}]}, "expected its start_id, or a map of"),
    ({"endpoint": "reset", "starts": [STARTS[0].start_id], "seeds": [-1]}, "seeds has -1"),
    ({"endpoint": "reset", "starts": [STARTS[0].start_id], "rows": [0]}, "rows is .0."),
]
STEPS: list[tuple[dict[str, Any], str]] = [
    ({}, "actions is object of shape .., expected numbers of shape .1, K, 4."),
    ({"actions": np.zeros((1, 6, 3), np.float32)}, "shape .1, 6, 3., expected"),
    ({"actions": np.zeros((1, 5, 4), np.float32)}, "5 control steps, expected a multiple of 2"),
    ({"actions": np.full((1, 6, 4), np.nan)}, "not finite"),
    ({"actions": np.zeros((1, 6, 4)), "rows": [3]}, "rows is .3., expected different numbers"),
    ({"actions": np.zeros((1, 6, 4)), "rows": 0}, "rows is int, expected a list"),
    ({"actions": np.zeros((1, 6, 4)), "poses": np.zeros((1, 2, 4))}, "poses is float64 of shape"),
]


def test_bad_messages_are_answered_with_a_sentence_and_the_session_goes_on() -> None:
    with toys() as server:
        client = Foreign(server)
        for message, said in BAD:
            answer = client.ask(message)
            assert "Traceback" not in str(answer)
            with pytest.raises(WorldError, match=said):
                raise WorldError(answer["error"])
        client.ask({"endpoint": "reset", "starts": [STARTS[0].start_id]})
        for more, said in STEPS:
            answer = client.ask({"endpoint": "step"} | more)
            with pytest.raises(WorldError, match=said):
                raise WorldError(answer["error"])
        good = client.ask({"endpoint": "step", "actions": np.zeros((1, 6, 4), np.float32)})
        assert good["frames"].shape == (1, 3, 2, 24, 32, 3)
        client.close()


def test_a_client_that_vanishes_frees_its_session() -> None:
    reset = {"endpoint": "reset", "starts": [STARTS[0].start_id]}
    made: list[int] = []

    def make() -> testing.ToyWorld:
        made.append(1)
        return toy()

    with WorldServer(make, starts=STARTS, sessions=2) as server:
        for _ in range(5):
            client = Foreign(server)
            client.ask(reset)
            client.connection.socket.close()  # without a word, as a process that was killed
            until = time.monotonic() + 10
            while server._open and time.monotonic() < until:
                time.sleep(0.01)
            assert not server._open
        assert len(made) == 1  # its world was taken over each time
        client = Foreign(server)
        client.ask(reset)
        assert client.ask({"endpoint": "close"})["closed"] and not server._open
        for name in ("a", "b", "c"):
            client.ask(reset | {"session_id": name})
        said = client.ask({"endpoint": "step", "session_id": "a", "actions": np.zeros((1, 6, 4))})
        assert "session 'a' was ended, because 2 others were begun after it" in said["error"]
        client.close()


def test_errors_of_the_world_reach_the_client_as_such() -> None:
    with toys() as server:
        served = load_world(url(server))
        other = testing.toy_starts(count=5)[-1]
        served.reset([other], [0])  # the toy has any: a whole start state is sent
        with pytest.raises(WorldError, match="seeds has|as many seeds"):
            served.reset(STARTS[:2], [1])
        seen = served.reset(STARTS[:1], [1])
        assert np.array_equal(seen.frames, toy().reset(STARTS[:1], [1]).frames)
        served.close()


def test_a_start_state_that_is_not_there_is_told_by_its_own_error(tmp_path: Path) -> None:
    from worldeval.worlds.recorded import RecordedWorld

    store = rolled(toy(), SUITE, tmp_path / "s")
    world = RecordedWorld(store, ROBOT)
    with WorldServer(lambda: world, starts=world.start_states()) as server:
        served = load_world(url(server))
        with pytest.raises(StartStateError, match=r"ws://.*: start state 'touch.* is neither"):
            served.reset([testing.toy_starts(count=9)[8]], [0])
        served.close()


def test_first_mistakes_of_a_client_are_told() -> None:
    with pytest.raises(PolicyAwayError, match="no world server answers at ws://127.0.0.1:9"):
        load_world("ws://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no argument 'timeout', did you mean 'timeout_s'"):
        load_world("ws://127.0.0.1:9?timeout=3")
    with pytest.raises(ConfigError, match="timeout_s is 'soon', expected a number"):
        load_world("ws://127.0.0.1:9?timeout_s=soon")
    with pytest.raises(ConfigError, match="names no server"):
        load_world("ws:9")
    with pytest.raises(ConfigError, match="expected ws://HOST:PORT"):
        worldeval.connect_world("http://127.0.0.1:9")
    with (
        PolicyServer(lambda: RandomPolicy(ROBOT), ROBOT) as policies,
        pytest.raises(MismatchError, match="so it serves no world; start one there"),
    ):
        load_world(f"ws://127.0.0.1:{policies.port}")


def test_the_verb_serves_and_rollout_goes_there(tmp_path: Path) -> None:
    from worldeval import cli

    command = [sys.executable, "-m", "worldeval", "serve-world", "--world", "toy", "--port", "0"]
    suite = Suite(name="s", robot="toy", chunks=2, starts=testing.toy_starts(count=2), seed=3)
    suite.save(tmp_path / "suite.json")
    command += ["--suite", str(tmp_path / "suite.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            there = process.stdout.readline().strip()
            words = ["rollout", "--policy", "random", "--world", there]
            assert cli.main([*words, "--out", str(tmp_path / "r")]) == 0
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    served, here = (
        EpisodeStore.open(tmp_path / "r"),
        rolled(testing.ToyWorld(), suite, tmp_path / "h"),
    )
    assert served.keys == here.keys  # its films are not lossless
    assert all(np.array_equal(a.poses, b.poses) for a, b in zip(served, here, strict=True))
