"""A suite: the start states from which every policy begins, and for how long it may try.

Enters and leaves: a JSON file. A suite names its robot and its seed, so that the same file gives
the same rollouts in any world: the seeds of a rollout derive from (suite seed, start_id) alone,
never from its place in a batch or from the order of the policies (``rollout_seed``).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldeval.data.files import read_json
from worldeval.data.provenance import write_atomically
from worldeval.errors import ConfigError
from worldeval.types import StartState

MOST_CHUNKS = 10_000
LARGEST_SEED = 2**63 - 1
"""What a table can hold."""


def rollout_seed(seed: int, start_id: str, purpose: str) -> int:
    """A seed in [0, 2^32) for one rollout and one purpose ("world" or "policy").

    Hashed, so that neighbouring rollouts share nothing, and world and policy never draw the same
    numbers. 32 bits because some simulators take no more.
    """
    digest = hashlib.sha256(f"worldeval/{seed}/{purpose}/{start_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Start states for one robot.

    robot: ``RobotSpec.name`` that the worlds must have.
    chunks: length of a rollout in chunks of the robot (``RobotSpec.chunk_steps`` control steps),
        also for policies that execute fewer steps at a time.
    starts: in the order in which they are run. seed: of all randomness in the rollouts.
    """

    name: str
    robot: str
    chunks: int
    starts: tuple[StartState, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(self.starts))
        if not self.name:
            raise ConfigError("suite: name is empty, expected a name for the suite")
        if type(self.chunks) is not int or not 1 <= self.chunks <= MOST_CHUNKS:
            raise ConfigError(
                f"suite {self.name!r}: chunks is {_number(self.chunks)}, expected 1 or more, at "
                f"most {MOST_CHUNKS}"
            )
        check_seed(self.seed, f"suite {self.name!r}")
        if not self.starts:
            raise ConfigError(f"suite {self.name!r} has no start states, expected at least one")
        for start in self.starts:
            check_seed(start.seed, f"suite {self.name!r}: start state {start.start_id!r}")
            if not start.start_id or not start.task:
                raise ConfigError(
                    f"suite {self.name!r}: a start state has start_id {start.start_id!r} and task "
                    f"{start.task!r}, expected a name for each"
                )
        start_id, times = Counter(start.start_id for start in self.starts).most_common(1)[0]
        if times > 1:
            raise ConfigError(
                f"suite {self.name!r}: start state {start_id!r} occurs {times} times, expected "
                "every start_id once; remove the repetitions"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order of their first start state."""
        return tuple(dict.fromkeys(start.task for start in self.starts))

    def subset(
        self,
        tasks: Sequence[str] | None = None,
        per_task: int | None = None,
        *,
        name: str | None = None,
    ) -> Suite:
        """The suite with some tasks only, and the first ``per_task`` start states of each.

        Rollouts of a subset are those of the full suite: same starts, same seeds.
        """
        for task in tasks or ():
            if task not in self.tasks:
                raise ConfigError(
                    f"suite {self.name!r} has no task {task!r}{_did_you_mean(task, self.tasks)}; "
                    f"it has {list(self.tasks)}"
                )
        if per_task is not None and per_task < 1:
            raise ConfigError(f"suite {self.name!r}: per_task is {per_task!r}, expected >= 1")
        wanted = self.tasks if tasks is None else tasks
        taken: Counter[str] = Counter()
        starts = []
        for start in self.starts:
            if start.task in wanted and (per_task is None or taken[start.task] < per_task):
                taken[start.task] += 1
                starts.append(start)
        return dataclasses.replace(self, starts=tuple(starts), name=name or self.name)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "suite") -> Suite:
        """Build from parsed JSON; ``source`` names it in errors."""
        _check_keys(values, cls, source)
        starts = values["starts"]
        if not isinstance(starts, (list, tuple)):
            raise ConfigError(f"{source}: starts is {type(starts).__name__}, expected a list")
        built = []
        for i, start in enumerate(starts):
            _check_keys(start, StartState, f"{source}: starts[{i}]")
            built.append(StartState(**start))
        return cls(**{**values, "starts": tuple(built)})

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        return write_atomically(path, text)

    @classmethod
    def load(cls, path: str | Path) -> Suite:
        if not os.path.lexists(path):
            raise ConfigError(
                f"suite file {str(path)!r} does not exist; name one that does, or "
                "record start states first"
            )
        values = read_json(path, "suite file", error=ConfigError)
        return cls.from_json(values, source=f"suite file {str(path)!r}")


def _check_keys(values: Any, kind: type, source: str) -> None:
    """Every key known, every key without default given, strings where strings are expected."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected a JSON object, got {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise ConfigError(
                f"{source}: unknown key {key!r}{_did_you_mean(key, fields)}; known are "
                f"{list(fields)}"
            )
    for name, f in fields.items():
        if f.default is dataclasses.MISSING and name not in values:
            raise ConfigError(f"{source}: key {name!r} is missing")
        expected = {"str": str, "int": int}.get(str(f.type))
        if name in values and expected and type(values[name]) is not expected:
            raise ConfigError(f"{source}: {name} is {values[name]!r}, expected {expected.__name__}")


def check_seed(seed: object, whose: str) -> None:
    """Raise ConfigError unless ``seed`` is a whole number that a table can hold."""
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"{whose}: seed is {_number(seed)}, expected an int >= 0, below 2^63")


def _number(value: object) -> str:
    if type(value) is int and value.bit_length() > 128:  # Python refuses to write out long ones
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:60]


def _did_you_mean(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
