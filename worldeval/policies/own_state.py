"""What a policy changes of the process's state is its own: in force in its calls, nowhere else.

Enters: a call of a policy. Leaves: the process as it was, whatever the call did to the working
folder, torch's defaults, random numbers, warnings, the environment. Research code does such things
as a matter of course (hydra moves to another folder, loaders of large models make bfloat16 the
default), and relies on them later: so a policy finds its settings again when it is called again,
while worlds and other policies never see them. What must not stay even for the policy (a handler of
Ctrl-C, the file behind standard output) is put back for good.

Only settings that can be read are guarded: no code can undo a patched function of another module
or what a thread does between calls. ``isolation.py`` can.
"""

from __future__ import annotations

import builtins
import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldeval.errors import PolicyError
from worldeval.policies.process_limits import limits, set_limits, stop_timers, timers

HANDLED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD")
    if hasattr(signal, name)
)
"""Signals whose handlers a policy may replace in its calls only (ROS replaces that of Ctrl-C)."""


@dataclass(frozen=True)
class Setting:
    """One thing that a policy may change: how it is read (a value with ==) and how put back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    kept: bool = True
    """Whether it is in force again in the policy's later calls."""
    fresh: Any = None
    """Its value in a process that has touched nothing; for what is imported in the call itself."""


def _umask() -> int:
    mask = os.umask(0o077)  # there is no way to ask without setting it
    os.umask(mask)
    return mask


def _environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _filters(wanted: list[Any]) -> None:
    warnings.simplefilter("default")  # tells the warnings module that its filters are others now
    warnings.filters[:] = wanted  # type: ignore[index]


def _numpy_random() -> tuple[Any, ...]:
    name, numbers, *rest = np.random.get_state(legacy=True)
    return (name, np.asarray(numbers).tobytes(), *rest)


def _set_numpy_random(state: tuple[Any, ...]) -> None:
    name, numbers, *rest = state
    np.random.set_state((name, np.frombuffer(numbers, np.uint32), *rest))


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in HANDLED}


def _set_handlers(wanted: dict[int, Any]) -> None:
    for number, handler in wanted.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(wanted: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = wanted


def _set_builtins(wanted: dict[str, Any]) -> None:
    here = vars(builtins)
    for name in here.keys() - wanted.keys():
        del here[name]
    here.update(wanted)


PLAIN = (
    Setting("the working folder", os.getcwd, os.chdir),
    Setting("the umask", _umask, os.umask),
    Setting("environment variables", lambda: dict(os.environ), _environment),
    Setting("numpy's error state", np.geterr, lambda state: np.seterr(**state)),
    Setting("warnings filters", lambda: list(warnings.filters), _filters),
    Setting("Python's random state", random.getstate, random.setstate),
    Setting("numpy's random state", _numpy_random, _set_numpy_random),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Setting("built-in functions", lambda: dict(vars(builtins)), _set_builtins),
    Setting("resource limits", limits, set_limits),
    Setting("sys.stdout and its like", _streams, _set_streams),
)
ON_MAIN_THREAD = (
    Setting("timers", timers, stop_timers, kept=False),
    Setting("signal handlers", _handlers, _set_handlers, kept=False),
)


def _of_torch(torch: Any) -> tuple[Setting, ...]:
    """The settings of torch. Its default device is None-able: "cpu" set is slower than unset."""

    def default_device() -> str:
        return str(torch.get_default_device())

    def set_default_device(name: str) -> None:
        torch.set_default_device(None if name == "cpu" else name)

    def deterministic() -> tuple[bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def set_deterministic(state: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(state[0], warn_only=state[1])

    def cudnn() -> tuple[bool, bool, bool]:
        flags = torch.backends.cudnn
        return flags.enabled, flags.benchmark, flags.deterministic

    def set_cudnn(state: tuple[bool, bool, bool]) -> None:
        flags = torch.backends.cudnn
        flags.enabled, flags.benchmark, flags.deterministic = state

    def autocast() -> tuple[bool, bool]:
        return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")

    def set_autocast(state: tuple[bool, bool]) -> None:
        torch.set_autocast_enabled("cpu", state[0])
        torch.set_autocast_enabled("cuda", state[1])

    def random_state() -> bytes:
        return torch.get_rng_state().numpy().tobytes()

    def set_random_state(state: bytes) -> None:
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    dtype, threads = torch.get_default_dtype, torch.get_num_threads
    precision = torch.get_float32_matmul_precision
    return (
        Setting("torch's default dtype", dtype, torch.set_default_dtype, fresh=torch.float32),
        Setting("torch's default device", default_device, set_default_device, fresh="cpu"),
        Setting("torch's threads", threads, torch.set_num_threads),
        Setting("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled, fresh=True),
        Setting(
            "torch's deterministic flags", deterministic, set_deterministic, fresh=(False, False)
        ),
        Setting("cudnn's flags", cudnn, set_cudnn, fresh=(True, False, False)),
        Setting("torch's autocast", autocast, set_autocast, fresh=(False, False)),
        Setting(
            "torch's matmul precision",
            precision,
            torch.set_float32_matmul_precision,
            fresh="highest",
        ),
        Setting("torch's random state", random_state, set_random_state),
    )


_torch_settings: tuple[Setting, ...] = ()


def settings() -> tuple[Setting, ...]:
    """All that can be guarded now; torch's only where somebody has imported it."""
    global _torch_settings
    torch = sys.modules.get("torch")
    if not _torch_settings and hasattr(torch, "set_float32_matmul_precision"):
        _torch_settings = _of_torch(torch)
    main = threading.current_thread() is threading.main_thread()
    return PLAIN + _torch_settings + (ON_MAIN_THREAD if main else ())


def _read() -> dict[Setting, Any]:
    found = {}
    for setting in settings():
        try:
            found[setting] = setting.read()
        except (OSError, RuntimeError):  # a folder that is gone, a flag that two ways contradict
            found[setting] = None
    return found


class OwnState:
    """The settings that one policy has made, put in place around each of its calls."""

    def __init__(self) -> None:
        self._changed: dict[Setting, Any] = {}

    @contextmanager
    def in_force(self, policy: str) -> Iterator[None]:
        """What was changed is put back at the end, or blamed on ``policy`` in a PolicyError."""
        before = _read()
        for setting, value in self._changed.items():
            _write(setting, value, policy)
        try:
            with _descriptors():
                yield
        finally:
            after = _read()
            self._changed = {}
            lost: PolicyError | None = None
            for setting, value in after.items():
                found = before.get(setting, setting.fresh)
                if value == found or found is None:
                    continue
                if setting.kept and value is not None:
                    self._changed[setting] = value
                try:
                    _write(setting, found, policy)
                except PolicyError as error:  # the other settings are put back first
                    lost = error
            if lost is not None:
                raise lost


def _write(setting: Setting, value: Any, policy: str) -> None:
    try:
        setting.write(value)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise PolicyError(
            f"policy {policy} changed {setting.name}, which cannot be put back ({error}); let it "
            "leave that alone, or run it with --isolate"
        ) from error


@contextmanager
def _descriptors() -> Iterator[None]:
    """Standard output and error go where they went before, whatever was done to descriptors."""
    held = {}
    for number in (1, 2):
        try:
            held[number] = (_file(number), os.dup(number))
        except OSError:  # it was closed by whoever started this program
            continue
    try:
        yield
    finally:
        for number, (file, copy) in held.items():
            if _file(number) != file:
                os.dup2(copy, number)
            os.close(copy)


def _file(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino
