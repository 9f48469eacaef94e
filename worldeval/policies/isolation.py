"""A policy in a process of its own: what it breaks is its own rollouts.

Enters: a policy's URI, a robot, limits. Leaves: an ``IsolatedPolicy``, a Policy whose answers are
byte for byte those of the same policy in this process. Its process is spawned, not forked, and
leads a group of its own. When it hangs, aborts, runs out of memory or answers nonsense, the group
is killed, the rollouts under way are errors that say how it ended, and the next reset starts it
anew. Between the two go JSON and the bytes of arrays (``framing.py``); ``isolated_child.py`` is the
other side.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from worldeval import errors
from worldeval.errors import ConfigError, PolicyError, WorldEvalError
from worldeval.policies import framing
from worldeval.policies.guard import MAKING, check_limit, too_late
from worldeval.policies.loading import SERVERS
from worldeval.robots import RobotSpec
from worldeval.types import Observation, PolicySpec

NOT_ISOLATED = ("keyboard", *SERVERS)
"""Schemes that run nobody's code here: a person at this terminal, a server that is a process."""
MAKE = "making it"
CLOSING_S = 30.0
"""How long its close() may take at most."""
START = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path']; "
    "from worldeval.policies.isolated_child import serve; serve(settings)"
)


class IsolatedPolicy:
    """A policy that acts in another process.

    limit_s: seconds that a call may last, and making it MAKING times as long; None for no limit.
    memory_gib: of data that the process may have (stacks and code not counted); None for no limit.
    """

    watches_itself = True

    def __init__(
        self,
        uri: str,
        robot: RobotSpec,
        *,
        limit_s: float | None = None,
        memory_gib: float | None = None,
    ) -> None:
        check_limit(limit_s)
        if memory_gib is not None and not 0 < memory_gib < math.inf:
            raise ConfigError(f"policy_memory is {memory_gib!r} GiB, expected more than 0")
        if not hasattr(os, "killpg"):
            raise ConfigError("--isolate needs Linux or macOS; leave it out")
        self._uri, self._robot = uri, robot
        self._limit_s = math.inf if limit_s is None else limit_s
        self._memory = None if memory_gib is None else int(memory_gib * 2**30)
        self._name = repr(uri)
        self._process: _Process | None = None
        self.spec = self._make()

    def reset(
        self, rollout_ids: Sequence[str], instructions: Sequence[str], seeds: Sequence[int]
    ) -> None:
        if self._process is None:
            made = self._make()
            if made != self.spec:
                raise PolicyError(
                    f"policy {self._name} was started anew and says {made}, before that "
                    f"{self.spec}; its spec must depend on its arguments alone"
                )
        self._ask(
            "reset",
            {
                "ids": list(rollout_ids),
                "instructions": list(instructions),
                "seeds": [int(seed) for seed in seeds],
            },
        )

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        arrays, rows = [], []
        for seen in observations:
            rows.append(
                {
                    "images": list(seen.images),
                    "state": list(seen.state),
                    "instruction": seen.instruction,
                    "rollout_id": seen.rollout_id,
                    "step": seen.step,
                }
            )
            arrays += [*seen.images.values(), *seen.state.values()]
        expected = (len(observations), self.spec.chunk, self.spec.action_dim)
        _, answer = self._ask("act", {"rows": rows}, arrays, most_bytes=4 * math.prod(expected))
        if len(answer) != 1 or answer[0].shape != expected or answer[0].dtype != np.float32:
            self._end(f"answered {[a.shape for a in answer]}, expected one array of {expected}")
        return answer[0]

    def close(self) -> None:
        if self._process is None:
            return
        try:
            self._ask("close", {}, limit_s=min(self._limit_s, CLOSING_S))
        finally:
            self._stop()

    def _make(self) -> PolicySpec:
        self._process = _Process(self._memory)
        robot = dataclasses.asdict(self._robot)
        header, _ = self._ask(
            MAKE, {"uri": self._uri, "robot": robot}, limit_s=self._limit_s * MAKING
        )
        try:
            spec = spec_from_json(header["spec"])
        except (KeyError, TypeError, ValueError) as error:
            self._end(f"answered no spec ({error!r})")
        self._name = repr(spec.name)
        return spec

    def _ask(
        self,
        what: str,
        header: dict[str, Any],
        arrays: Sequence[np.ndarray] = (),
        *,
        most_bytes: float = 0,
        limit_s: float | None = None,
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        if self._process is None:
            raise PolicyError(f"policy {self._name} has no process any more; call reset before act")
        process = self._process
        limit_s = self._limit_s if limit_s is None else limit_s
        try:
            framing.send(process.link, {**header, "call": what}, arrays, limit_s=limit_s)
            answer, values = framing.receive(
                process.link, most_bytes=most_bytes, limit_s=limit_s, is_alive=process.is_alive
            )
        except framing.TooLate:
            self._stop()
            raise PolicyError(
                f"{too_late(self._name, what, limit_s)}; its process was killed and is started "
                "anew for other rollouts"
            ) from None
        except framing.Garbled as error:
            self._end(f"answered no message ({error})")
        except (framing.Closed, OSError):
            self._end(process.how_it_ended(), what)
        except BaseException:  # Ctrl-C: an answer still to come must not meet the next request
            self._stop()
            raise
        if "error" in answer:
            if what == MAKE:
                self._stop()
            raise _raised(answer)
        return answer, values

    def _end(self, how: str, what: str = "act") -> NoReturn:
        self._stop()
        raise PolicyError(
            f"policy {self._name} {how} ({what}) in its own process, which is started anew for "
            "other rollouts; look at what it printed last"
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()


class _Process:
    """The process of a policy, the leader of a group that is killed with it."""

    def __init__(self, memory: int | None) -> None:
        self.link, theirs = socket.socketpair()
        settings = {
            "link": theirs.fileno(),
            "path": [place or os.getcwd() for place in sys.path],
            "memory": memory,
            "parent": os.getpid(),
            "on_main_thread": threading.current_thread() is threading.main_thread(),
            "threads": _torch_threads(),
        }
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self.link.close()
            raise PolicyError(
                f"no process can be started for a policy ({error}); free memory or run without "
                "--isolate"
            ) from error
        finally:
            theirs.close()
        self._finalizer = weakref.finalize(self, _kill, self._child, self.link)

    def is_alive(self) -> bool:
        return self._child.poll() is None

    def how_it_ended(self) -> str:
        """In words; it has ended, or is about to."""
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            return "hung up"
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
            memory = ", perhaps for lack of memory" if name == "SIGKILL" else ""
            return f"was ended by signal {name}{memory}"
        return f"ended its process with exit code {code}"

    def kill(self) -> None:
        self._finalizer()


def _kill(child: subprocess.Popen[bytes], link: socket.socket) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it and all of its children are gone
        child.kill()
    child.wait()
    link.close()


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _raised(answer: dict[str, Any]) -> BaseException:
    """The error that a policy's process tells of, of the class that it had there."""
    kind, text = str(answer.get("kind")), str(answer["error"])
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt(text)
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, WorldEvalError):
        return found(text)
    return PolicyError(text)


def spec_from_json(values: dict[str, Any]) -> PolicySpec:
    """A PolicySpec from what ``dataclasses.asdict`` made of it, after JSON."""
    size = values["image_size"]
    return PolicySpec(
        name=str(values["name"]),
        cameras=tuple(map(str, values["cameras"])),
        image_size=None if size is None else (int(size[0]), int(size[1])),
        state_keys=tuple(map(str, values["state_keys"])),
        action_space=str(values["action_space"]),
        action_dim=int(values["action_dim"]),
        chunk=values["chunk"],  # as they are: check_timing says what is wrong with them
        execute=values["execute"],
        rate_hz=values["rate_hz"],
    )
