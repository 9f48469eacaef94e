"""``worldeval resume``, ``worldeval status`` and ``worldeval gather``."""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with an evaluation or with rollouts that were interrupted, with the options of then.

    Equals the same command once more. Of a run of shards, it goes on with all of them.

    For example:
      worldeval resume runs/mine
      worldeval resume runs/mine --workers 4
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder that `worldeval evaluate` or `worldeval rollout` wrote."""
    workers: int | None = None
    """Processes that roll out now; as then, if not given."""

    def run(self) -> None:
        from worldeval.commands.evaluate import Evaluate
        from worldeval.commands.rollout import Rollout
        from worldeval.commands.saved_options import saved
        from worldeval.data.provenance import read_manifest
        from worldeval.data.remote import url_of

        if (url := url_of(self.run_dir)) is not None:
            raise ConfigError(
                f"{url} is no folder here; on another machine, give the command of the run once "
                f"more with --mirror {url} and an --out that does not exist yet"
            )
        kinds: dict[str, type[Evaluate] | type[Rollout]] = {
            "evaluate": Evaluate,
            "rollout": Rollout,
        }
        extra = read_manifest(self.run_dir).get("extra", {})
        kind = kinds.get(extra.get("verb"))
        if kind is None:
            raise ConfigError(
                f"{self.run_dir} was begun neither by `worldeval evaluate` nor by `worldeval "
                "rollout` of this version; run its own command again, it continues too"
            )
        then = saved(kind, self.run_dir)
        folder = self.run_dir.absolute()
        place = extra.get("working_folder")
        if isinstance(place, str) and Path(place).is_dir():
            os.chdir(place)  # relative paths mean what they meant
        execution = dataclasses.replace(then.execution, shard=None)
        if self.workers is not None:
            execution = dataclasses.replace(execution, workers=self.workers)
        dataclasses.replace(then, out=folder, execution=execution).run()


@dataclass(frozen=True, kw_only=True)
class StatusVerb:
    """How far a run is: rollouts made, rate, time left, errors, cost. Disturbs nobody at work.

    For example:
      worldeval status runs/mine
      worldeval status runs/mine --price-per-hour 2.5
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder that `worldeval evaluate` or `worldeval rollout` writes; or the URL of one
    (--mirror)."""
    price_per_hour: float | None = None
    """What each machine costs per hour; as the run was told, if not given."""
    errors: bool = False
    """Show where each error came from."""

    def run(self) -> None:
        from worldeval.evaluation.execution.mirroring import at_hand
        from worldeval.evaluation.execution.status import status
        from worldeval.terminal import printable

        with at_hand(self.run_dir) as folder:
            found = status(folder, self.price_per_hour)
        print(found)
        for error in found.errors if self.errors else ():
            told = error.traceback or error.error
            print(f"\n{printable(error.key)}\n{printable(told, keep=chr(10))}")


@dataclass(frozen=True, kw_only=True)
class Gather:
    """Make what several machines or processes rolled out one run, each rollout once.

    The parts that shards wrote below one folder, and with --from whole folders that machines
    without a common disk wrote with the same options. Repeating it adds what came since.

    For example:
      worldeval gather runs/mine
      worldeval gather runs/mine --from copies/machine-1 --from copies/machine-2
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run; made anew, if it does not exist and --from is given."""
    from_: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(name="from")] = ()
    """Another folder of the same run, or the URL of one (--mirror); repeat it for several. It stays
    as it is."""

    def run(self) -> None:
        from worldeval.evaluation.execution.gathering import gather_runs
        from worldeval.evaluation.execution.mirroring import at_hand

        with ExitStack() as opened:
            others = [opened.enter_context(at_hand(one, films=True)) for one in self.from_]
            print(gather_runs(self.run_dir, others))
