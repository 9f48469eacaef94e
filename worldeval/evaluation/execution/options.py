"""How an evaluation is spread over processes and machines: the options of ``rollout`` and
``evaluate``. None of them changes a result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import tyro

from worldeval.errors import ConfigError
from worldeval.tracking import require

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """How the work is spread."""

    workers: int = 1
    """Processes that roll out at the same time, each with a world model and --threads of its own;
    on several GPUs one each in turn. They share out whole batches: results are those of one
    process with this --batch and these --threads."""
    executor: Literal["local", "ray"] = "local"
    """Where they run: on this machine, or as actors of a Ray cluster (pip install ray), which must
    share the folder --out."""
    shard: str | None = None
    """Only part I/N of the batches, such as 2/8: N machines that share the folder --out make one
    part each; then the same command without --shard goes on with all."""
    retries: int = 0
    """How often a rollout that ended in an error is begun again before the error is kept."""
    disk_wait: float = 3600.0
    """Seconds to wait for space on a full disk before the run ends; 0 ends it at once."""
    mirror: str | None = None
    """URL to keep all files of the run at too, such as s3://BUCKET/RUN (pip install
    'worldeval[s3]'); each rollout lies there as a whole soon after it is made. A folder --out that
    does not exist yet is filled from there first, so that another machine goes on."""
    trackers: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """What shows the rollouts and the ranking while they are made, if it is installed: trackio or
    wandb, or with a project wandb:my-project; repeat it for both."""
    price_per_hour: float | None = None
    """What this machine costs per hour, in any currency: `worldeval status` then tells what a
    rollout costs."""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        if type(self.workers) is not int or self.workers < 1:
            raise ConfigError(f"workers is {self.workers!r}, expected 1 or more processes")
        if type(self.retries) is not int or self.retries < 0:
            raise ConfigError(f"retries is {self.retries!r}, expected 0 or more")
        require(self.trackers)
        self.part()

    def part(self) -> Shard | None:
        return None if self.shard is None else Shard.read(self.shard)

    @property
    def alone(self) -> bool:
        """Whether this process rolls out itself."""
        return self.workers == 1 and self.executor == "local"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part ``number`` (from 1) of ``count`` equal ones."""

    number: int
    count: int

    @classmethod
    def read(cls, words: str) -> Shard:
        """From ``2/8``. ConfigError if it is no such part."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", words)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(
                f"shard is {words!r}, expected I/N with I from 1 to N, such as 2/8; an array of "
                "SLURM that counts from 0 needs --shard $((SLURM_ARRAY_TASK_ID + 1))/N"
            )
        return cls(number=number, count=count)

    @property
    def name(self) -> str:
        return f"shard-{self.number}-of-{self.count}"

    def of(self, things: Sequence[_T], batch: int, turn: int = 0) -> list[_T]:
        """Every ``count``-th batch of things: whole batches, since a world model's rounding differs
        with the size of a batch. turn: of lists of which each begins with another shard."""
        batches = [things[i : i + batch] for i in range(0, len(things), batch)]
        mine = [b for i, b in enumerate(batches) if (i + turn) % self.count == self.number - 1]
        return [one for some in mine for one in some]
