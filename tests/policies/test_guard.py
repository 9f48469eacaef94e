"""Whatever a policy does in a call, it costs its own rollouts only and is told with its name."""

from __future__ import annotations

import builtins
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldeval.errors import ConfigError, DataError, PolicyError, PolicyGoneError, StartStateError
from worldeval.policies import watching
from worldeval.policies.guard import MOST_WORDS, Guard, Guarded, guarded
from worldeval.policies.own_state import settings
from worldeval.policies.scripted import ZeroPolicy
from worldeval.robots import RobotSpec
from worldeval.types import Observation


class Does(ZeroPolicy):
    """Does something in each act, and keeps what that gives back."""

    def __init__(self, robot: RobotSpec, *deeds: Callable[[], Any], name: str = "does") -> None:
        super().__init__(robot, name=name)
        self.deeds = iter(deeds)
        self.found: list[Any] = []

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        self.found.append(next(self.deeds)())
        return np.zeros((len(observations), self.spec.chunk, self.spec.action_dim), np.float32)


class Odd(BaseException):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def raising(error: BaseException) -> Callable[[], None]:
    def raise_() -> None:
        raise error

    return raise_


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("x"), "policy 'does' raised ValueError: x"),
        (DataError("my data"), "policy 'does' raised DataError: my data"),
        (StartStateError("gone"), "policy 'does' raised StartStateError: gone"),
        (PolicyError("no answer"), "policy 'does': no answer"),
        (PolicyError("policy 'does' is ill"), "policy 'does' is ill"),
        (Odd("x"), "policy 'does' raised Odd: x"),
        (SystemExit(0), "policy 'does' raised SystemExit: 0"),
        (GeneratorExit(), "policy 'does' raised GeneratorExit"),
        (StopIteration(), "policy 'does' raised StopIteration"),
        (MemoryError(), "policy 'does' raised MemoryError"),
        (Unspeakable(), "its text cannot be read: ValueError"),
    ],
)
def test_every_error_is_the_policys(toy_robot: RobotSpec, error: Any, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        guarded(Does(toy_robot, raising(error))).act([])
    assert says in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PolicyGoneError("gone")])
def test_ctrl_c_and_a_server_that_is_gone_end_the_run(
    toy_robot: RobotSpec, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        guarded(Does(toy_robot, raising(error))).act([])


def test_a_long_complaint_is_cut(toy_robot: RobotSpec) -> None:
    with pytest.raises(PolicyError) as caught:
        guarded(Does(toy_robot, raising(ValueError("x" * 10**6)))).act([])
    assert len(str(caught.value)) < MOST_WORDS + 100 and "(1000000 characters)" in str(caught.value)


def set_torch_apart() -> None:
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(7)
    torch.set_num_threads(3)


def set_python_apart() -> None:
    os.chdir("/")
    os.umask(0o077)
    os.environ["SOME_SETTING"] = "1"
    os.environ.pop("PATH")
    sys.path.insert(0, "/nowhere")
    np.seterr(all="raise")
    warnings.simplefilter("error")
    random.seed(1)
    np.random.seed(1)
    sys.setrecursionlimit(5000)
    sys.stdout = sys.stderr


def state() -> dict[str, Any]:
    found = {setting.name: setting.read() for setting in settings()}
    return {**found, "sys.path": list(sys.path)}


@pytest.mark.parametrize("raises", [False, True])
def test_what_a_policy_sets_is_its_own(toy_robot: RobotSpec, raises: bool) -> None:
    """It finds its settings again in its next call; nobody else ever sees them."""

    def spoil() -> dict[str, Any]:
        set_torch_apart()
        set_python_apart()
        seen = state()
        if raises:
            raise ValueError("and raises")
        return seen

    with guarded(ZeroPolicy(toy_robot)).guard.around("act"):
        pass  # the settings of torch are known from here on
    before = state()
    policy = Does(toy_robot, spoil, state)
    guard = guarded(policy)
    try:
        if raises:
            with pytest.raises(PolicyError, match="and raises"):
                guard.act([])
        else:
            guard.act([])
        assert state() == before
        assert torch.get_default_dtype() == torch.float32 and torch.zeros(1).device.type == "cpu"
        guard.act([])
        assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    if not raises:
        assert policy.found[0] == policy.found[1] != before
    assert policy.found[-1]["torch's default dtype"] == torch.bfloat16
    assert policy.found[-1]["sys.path"][0] == "/nowhere"


def test_two_policies_have_two_states(toy_robot: RobotSpec, tmp_path: Path) -> None:
    here = os.getcwd()
    mover = Does(toy_robot, lambda: os.chdir(tmp_path), os.getcwd, name="mover")
    other = Does(toy_robot, os.getcwd, name="other")
    first, second = guarded(mover), guarded(other)
    first.act([])
    second.act([])
    first.act([])
    assert mover.found[1] == str(tmp_path) and other.found == [here] and os.getcwd() == here


def test_handlers_of_signals_do_not_stay(toy_robot: RobotSpec) -> None:
    before = signal.getsignal(signal.SIGINT)
    policy = guarded(Does(toy_robot, lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)))
    policy.act([])
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_done_to_standard_output_is_undone(
    toy_robot: RobotSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    def redirect() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(2)

    guarded(Does(toy_robot, redirect)).act([])
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")


def test_a_folder_that_cannot_be_put_back_is_blamed(
    toy_robot: RobotSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "inner"
    inner.mkdir()
    os.chdir(inner)

    def remove() -> None:
        os.chdir(tmp_path)
        inner.rmdir()

    with pytest.raises(PolicyError, match="'does' changed the working folder.*put back.*isolate"):
        guarded(Does(toy_robot, remove)).act([])


def test_a_call_that_hangs_is_ended_and_the_next_one_works(toy_robot: RobotSpec) -> None:
    policy = Does(toy_robot, lambda: time.sleep(60), lambda: "well")
    before = signal.getsignal(signal.SIGALRM)
    guard = guarded(policy, 0.2)
    began = time.monotonic()
    with pytest.raises(PolicyError, match=r"'does' did not answer within 0.2 s \(act\).*--policy-"):
        guard.act([])
    assert time.monotonic() - began < 5
    guard.act([])
    assert policy.found == ["well"] and signal.getsignal(signal.SIGALRM) == before


def test_a_policy_that_catches_everything_is_rung_again(
    toy_robot: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "AGAIN_S", 0.05)
    tries: list[int] = []

    def stubborn() -> None:
        while len(tries) < 3:
            try:
                threading.Event().wait()
            except:  # noqa: E722
                tries.append(1)
        threading.Event().wait()

    with pytest.raises(PolicyError, match="did not answer within 0.1 s"):
        guarded(Does(toy_robot, stubborn), 0.1).act([])
    assert len(tries) == 3


STUCK = """
import ctypes, sys
import numpy as np
from worldeval.policies import watching
from worldeval.policies.guard import Guard
watching.GRACE_S, watching.AGAIN_S = 0.1, 0.05
with Guard("'mine'", limit_s=0.1).around("act"):
    while True:
        try:
            ctypes.CDLL(None).usleep(100_000)
        except BaseException:
            pass
"""


def test_what_cannot_be_interrupted_ends_the_program_with_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "policy 'mine' has not answered" in done.stderr and "--isolate" in done.stderr
    assert "Traceback" not in done.stderr


def test_people_and_servers_are_not_hurried(toy_robot: RobotSpec) -> None:
    policy = Does(toy_robot, lambda: time.sleep(0.3))
    policy.watches_itself = True  # type: ignore[attr-defined]
    guarded(policy, 0.05).act([])
    hurried = Guard("p", limit_s=0.05)
    assert hurried.limit_s and guarded(Guarded(policy, hurried)).guard.limit_s is None


def test_a_policy_cannot_end_the_program_with_a_code_of_its_own(toy_robot: RobotSpec) -> None:
    policy = Guarded(Does(toy_robot, lambda: os._exit(0)))
    with pytest.raises(PolicyError, match=r"'does' raised SystemExit: os\._exit\(0\)"):
        policy.act([])
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7, "outside it is the real one"


def test_timers_and_limits_are_put_back(toy_robot: RobotSpec) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fewer() -> None:
        signal.alarm(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    policy = Guarded(Does(toy_robot, fewer, lambda: resource.getrlimit(resource.RLIMIT_FSIZE)))
    policy.act([])
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == (soft, hard)
    policy.act([])
    assert policy.found[1] == (0, hard), "it finds its own limit again"


def test_built_in_functions_are_put_back(toy_robot: RobotSpec) -> None:
    before = print
    policy = Guarded(Does(toy_robot, lambda: setattr(builtins, "print", None), lambda: print))
    policy.act([])
    assert builtins.print is before
    policy.act([])
    assert policy.found[1] is None, "the policy finds its own again"


@pytest.mark.parametrize("answer", [np.ones(3) * 1j, np.ma.masked_array(np.ones(3), mask=True)])
def test_no_part_of_an_answer_is_left_out(toy_robot: RobotSpec, answer: np.ndarray) -> None:
    class Answers(ZeroPolicy):
        def act(self, observations: Sequence[Observation]) -> np.ndarray:
            return answer

    with pytest.raises(PolicyError, match="complex or masked"):
        Guarded(Answers(toy_robot)).act([])


@pytest.mark.parametrize("limit_s", [0, -1, float("nan")])
def test_a_limit_that_is_none(limit_s: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0"):
        Guard("p", limit_s=limit_s)


def test_a_copy_of_the_process_does_not_come_back(toy_robot: RobotSpec) -> None:
    """A policy that forks must not leave two evaluations that write to one folder."""
    policy = Does(toy_robot, os.fork)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guarded(policy).act([])  # a copy that came back would run the rest of the tests again
    _, status = os.waitpid(policy.found[0], 0)
    assert os.waitstatus_to_exitcode(status) == 1


class Lazy:
    """An answer that runs code of the policy when it is read."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        os.chdir("/")
        raise Odd("late")


def test_reading_an_answer_is_a_part_of_the_call(toy_robot: RobotSpec) -> None:
    class Answers(ZeroPolicy):
        def act(self, observations: Sequence[Observation]) -> Any:
            return Lazy()

    here = os.getcwd()
    with pytest.raises(PolicyError, match="raised Odd: late"):
        guarded(Answers(toy_robot)).act([])
    assert os.getcwd() == here


@pytest.fixture
def event() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_threads_that_are_left_are_known_by_their_policy(
    toy_robot: RobotSpec, event: threading.Event
) -> None:
    spinner = threading.Thread(target=event.wait, name="spinner")
    guarded(Does(toy_robot, spinner.start)).act([])
    assert "thread 'spinner' of policy 'does'" in watching.left_running()
    event.set()
    spinner.join()
    assert not any("spinner" in name for name in watching.left_running())


def test_the_guard_costs_less_than_a_hundredth_of_a_chunk(toy_robot: RobotSpec) -> None:
    policy = guarded(Does(toy_robot, *[lambda: None] * 60), 100.0)
    seconds = []
    for _ in range(60):
        began = time.perf_counter()
        policy.act([])
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.002  # a chunk of eight imagined rollouts takes half a second
