"""The process of one policy: answers what ``isolation.py`` asks until it hangs up.

Enters: a socket inherited from the parent. Leaves: answers to "making it", "reset", "act", "close".
It dies with its parent, also while the policy hangs, is the first to go when memory runs out, and
never hears Ctrl-C: the parent decides.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import os
import signal
import socket
import sys
from typing import Any

import numpy as np

from worldeval.errors import WorldEvalError
from worldeval.policies import framing, watching
from worldeval.policies.checking import shaped_actions
from worldeval.policies.guard import guarded
from worldeval.policies.loading import load_policy
from worldeval.robots import RobotSpec, robot_from_json
from worldeval.terminal import Terminal
from worldeval.types import Observation, Policy

PR_SET_PDEATHSIG = 1


def serve(settings: dict[str, Any]) -> None:
    """Answer until the parent closes; ends the process. settings: as ``isolation._Process``."""
    _die_with(settings["parent"], settings["on_main_thread"])
    link = socket.socket(fileno=settings["link"])
    link.set_inheritable(False)
    if settings["threads"] is not None:  # answers are to be those of the parent's process
        importlib.import_module("torch").set_num_threads(settings["threads"])
    _bound_memory(settings["memory"])
    watching.process_is_its_own = True
    sys.stdout, sys.stderr = Terminal(sys.stdout), Terminal(sys.stderr, "\r\n\t")  # may be closed
    process, answering = os.getpid(), _Answers()
    while True:
        try:
            header, arrays = framing.receive(link)
        except framing.Closed:
            os._exit(0)
        answer: list[np.ndarray] = []
        try:
            said, answer = answering.to(header, arrays)
        except KeyboardInterrupt as stop:
            said = {"error": str(stop), "kind": "KeyboardInterrupt"}
        except WorldEvalError as error:
            said = {"error": str(error), "kind": type(error).__name__}
        if os.getpid() != process:  # the policy forked, and this is the copy: it has no say
            os._exit(1)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        try:
            framing.send(link, said, answer)
        except OSError:
            os._exit(0)
        if header["call"] == "close":
            os._exit(0)  # whatever threads are left


class _Answers:
    """The policy, and what it answers to each call."""

    def __init__(self) -> None:
        self.policy: Policy | None = None
        self.robot: RobotSpec | None = None

    def to(
        self, header: dict[str, Any], arrays: list[np.ndarray]
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        call = header["call"]
        if call == "making it":
            self.robot = robot_from_json(header["robot"])
            self.policy = guarded(load_policy(header["uri"], self.robot))
            return {"spec": dataclasses.asdict(self.policy.spec)}, []
        assert self.policy is not None and self.robot is not None
        if call == "reset":
            self.policy.reset(header["ids"], header["instructions"], header["seeds"])
        elif call == "act":
            seen = observations_from(header["rows"], arrays)
            actions = self.policy.act(seen)
            return {}, [shaped_actions(actions, self.policy.spec, self.robot, len(seen))]
        elif call == "close":
            self.policy.close()
        return {}, []


def observations_from(rows: list[dict[str, Any]], arrays: list[np.ndarray]) -> list[Observation]:
    """Observations as ``IsolatedPolicy.act`` sent them."""
    left = iter(arrays)
    return [
        Observation(
            images={name: next(left) for name in row["images"]},
            state={name: next(left) for name in row["state"]},
            instruction=row["instruction"],
            rollout_id=row["rollout_id"],
            step=row["step"],
        )
        for row in rows
    ]


def _die_with(parent: int, on_main_thread: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        if on_main_thread:  # Linux means the thread that started this process, which may end first
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:  # a container may forbid it; then the kernel chooses
            pass
    if os.getppid() != parent:  # it died before it could be told of
        os._exit(1)


def _bound_memory(most_bytes: int | None) -> None:
    if most_bytes is None:
        return
    import resource

    # Data, not addresses: GPUs and threads reserve addresses by the hundred GiB and use few.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    resource.setrlimit(kind, (most_bytes, most_bytes))
