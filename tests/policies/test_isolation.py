"""A policy in a process of its own: equal answers, and what breaks there breaks nothing here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from worldeval.errors import ConfigError, MismatchError, PolicyError
from worldeval.policies.isolation import IsolatedPolicy
from worldeval.policies.loading import load_policy
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.types import Observation
from worldeval.worlds.toy import ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot(views=("top", "front"), image_size=(24, 32))

POLICY = """
import ctypes, hashlib, os, resource, signal, sys, time
import numpy as np
from dataclasses import replace
from worldeval.policies.scripted import ZeroPolicy

class Mine(ZeroPolicy):
    def __init__(self, robot, how: str = "well", rate: float | None = None):
        super().__init__(robot, name="mine")
        self.how = how
        self.spec = replace(self.spec, cameras=robot.views, state_keys=("pose",))
        if rate is not None:
            self.spec = replace(self.spec, rate_hz=rate)

    def reset(self, ids, instructions, seeds):
        self.seeds = dict(zip(ids, seeds))

    def act(self, observations):
        if any("0001" in o.rollout_id and o.step for o in observations):
            getattr(self, self.how)()
        return np.stack([self.answer(o) for o in observations])

    def answer(self, o):
        shown = [o.images["top"], o.images["front"], o.state["pose"]]
        seen = b"".join(array.tobytes() for array in shown)
        words = f"{o.instruction} {o.rollout_id} {o.step} {self.seeds[o.rollout_id]}".encode()
        o.images["top"][:] = 0  # what it is given is its own
        rng = np.random.default_rng(list(hashlib.sha256(seen + words).digest()))
        return rng.uniform(-1, 1, (self.spec.chunk, self.spec.action_dim))

    def well(self): ...
    def abort(self): os.abort()
    def fault(self): ctypes.string_at(0)
    def leave(self): os._exit(3)
    def hang(self): time.sleep(60)
    def stop(self): os.kill(os.getpid(), signal.SIGSTOP)
    def fork(self): os.fork()
    def child(self):
        if os.fork():
            os._exit(4)  # while a child holds everything open
        time.sleep(60)
    def eat(self): self.eaten = bytearray(4 << 30)
    def odd(self): raise type("Odd", (BaseException,), {})("x")
    def close(self):
        if self.how == "close_fails":
            raise RuntimeError("the connection is gone")
    def close_fails(self): ...
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "mine.py"
    path.write_text(POLICY)
    return path


@contextmanager
def isolated(uri: str, **options: float) -> Iterator[IsolatedPolicy]:
    policy = IsolatedPolicy(uri, ROBOT, **options)
    try:
        yield policy
    finally:
        policy.close()


def suite() -> Suite:
    return Suite(name="s", robot="toy", chunks=3, starts=toy_starts(count=2)[:2])


def rolled(policy: object, folder: Path, batch: int = 2) -> dict[str, tuple]:
    with open_rollouts(folder, ROBOT, images="lossless") as store:
        run(ToyWorld(robot=ROBOT), policy, suite(), store, batch=batch, progress=False)  # type: ignore[arg-type]
        episodes = [store.by_key(key) for key in sorted(store.keys)]
    return {
        e.extra["start_id"]: (e.actions.tobytes(), e.frames.tobytes(), e.extra["error"])
        for e in episodes
    }


def test_answers_are_those_of_this_process(file: Path, tmp_path: Path) -> None:
    uri = f"python:{file}:Mine"
    here = rolled(load_policy(uri, ROBOT), tmp_path / "here")
    with isolated(uri) as policy:
        assert policy.spec == load_policy(uri, ROBOT).spec
        there = rolled(policy, tmp_path / "there")
    assert here == there and len(here) == 2 and len(set(here.values())) == 2


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("abort", "was ended by signal SIGABRT"),
        ("fault", "was ended by signal SIGSEGV"),
        ("leave", "ended its process with exit code 3"),
        ("hang", "did not answer within 2 s"),
        ("stop", "did not answer within 2 s"),
        ("child", "ended its process with exit code 4"),
        ("eat", "raised MemoryError"),
        ("odd", "raised Odd: x"),
    ],
)
def test_what_breaks_costs_its_own_rollout_alone(
    file: Path, tmp_path: Path, how: str, says: str
) -> None:
    good = rolled(load_policy(f"python:{file}:Mine", ROBOT), tmp_path / "good")
    limit_s = 2.0 if "did not answer" in says else 30.0  # a busy machine starts processes slowly
    with isolated(f"python:{file}:Mine?how={how}", limit_s=limit_s, memory_gib=2.0) as policy:
        found = rolled(policy, tmp_path / "bad")
    (bad,) = [name for name in found if "0001" in name]
    assert says in found[bad][2] and "policy 'mine'" in found[bad][2]
    assert {k: v for k, v in found.items() if k != bad} == {
        k: v for k, v in good.items() if k != bad
    }


def test_a_copy_of_its_process_answers_nothing(file: Path, tmp_path: Path) -> None:
    good = rolled(load_policy(f"python:{file}:Mine", ROBOT), tmp_path / "good")
    with isolated(f"python:{file}:Mine?how=fork") as policy:
        assert rolled(policy, tmp_path / "fork") == good


def test_what_cannot_be_made_says_why_at_once(file: Path) -> None:
    with pytest.raises(MismatchError, match="'mine' has rate_hz 3"):
        IsolatedPolicy(f"python:{file}:Mine?rate=3.5", ROBOT)
    with pytest.raises(ConfigError, match="did you mean 'how'"):
        IsolatedPolicy(f"python:{file}:Mine?hov=1", ROBOT)
    with pytest.raises(ConfigError, match="expected more than 0"):
        IsolatedPolicy(f"python:{file}:Mine", ROBOT, memory_gib=0)


def test_close_is_asked_and_nothing_is_left(file: Path) -> None:
    policy = IsolatedPolicy(f"python:{file}:Mine?how=close_fails", ROBOT)
    assert policy._process is not None
    child = policy._process._child
    with pytest.raises(PolicyError, match="'mine' raised RuntimeError: the connection is gone"):
        policy.close()
    assert child.returncode is not None
    policy.close()  # once more is fine
    with pytest.raises(PolicyError, match="call reset before act"):
        policy.act([])


def test_an_interrupted_call_leaves_no_late_answer(file: Path) -> None:
    with isolated(f"python:{file}:Mine?how=hang") as policy:
        policy.reset(["a/0001"], ["x"], [1])
        look = Observation(
            images={v: np.zeros((24, 32, 3), np.uint8) for v in ROBOT.views},
            state={"pose": np.zeros(ROBOT.pose_dim, np.float32)},
            instruction="x",
            rollout_id="a/0001",
            step=6,
        )
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                policy.act([look])
        finally:
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(PolicyError, match="call reset before act"):
            policy.act([look])
        policy.reset(["a/0000"], ["x"], [1])


ORPHAN = """
import os, sys
from worldeval.policies.isolation import IsolatedPolicy
from worldeval.worlds.toy import toy_robot
policy = IsolatedPolicy(sys.argv[1], toy_robot())
print(policy._process._child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_does_not_outlive_whoever_asked_it(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, f"python:{file}:Mine"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    child = int(done.stdout)
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the policy's process lives on")


def test_a_policy_may_close_its_streams(tmp_path: Path) -> None:
    path = tmp_path / "closing.py"
    path.write_text(
        "import sys\n"
        "from worldeval.policies.scripted import ZeroPolicy\n"
        "class Closing(ZeroPolicy):\n"
        "    def act(self, observations):\n"
        "        sys.stdout.close()\n"
        "        sys.stderr.close()\n"
        "        return super().act(observations)\n"
    )
    with isolated(f"python:{path}:Closing", limit_s=20.0, memory_gib=2.0) as policy:
        found = rolled(policy, tmp_path / "out")
    assert not any(error for _, _, error in found.values())
