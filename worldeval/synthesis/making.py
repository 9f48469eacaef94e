"""What made imagined rollouts: enough to make them again bit for bit on the same machine.

Enters: the options of a run. Leaves: a ``Making``, kept as JSON in every episode beside its recipe
and those of its batch. What it names is digested, so that a changed policy, world model or start
state is reported instead of imagined.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval import shipped
from worldeval.data import digests
from worldeval.data.files import parsed_json
from worldeval.data.provenance import jsonable, machine, versions
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.evaluation.opening import ImaginationOptions, imagination_content
from worldeval.policies.content import policy_content
from worldeval.settings import settings_from

if TYPE_CHECKING:
    from worldeval.rollout.suite import Suite

VERSIONS = ("python", "worldeval", "numpy", "torch")


@dataclass(frozen=True, kw_only=True)
class Making:
    """How the rollouts of one run are imagined.

    policy: its URI, as given in ``folder``. imagination: options, their paths in full. chunks and
    seed are of the suite. threads: cores of torch; arithmetic depends on them. content: what the
    names stand for, thing -> part -> digest. versions, processor: told where bits differ.
    """

    policy: str
    folder: str
    imagination: Mapping[str, Any]
    chunks: int
    seed: int
    threads: int
    content: Mapping[str, Any]
    versions: Mapping[str, Any]
    processor: str

    @classmethod
    def of(
        cls, policy: str, options: ImaginationOptions, suite: Suite, *, threads: int, but: Path
    ) -> Making:
        """Of a run that begins now. but: the folder that is written to."""
        options = in_full(options)
        return cls(
            policy=policy,
            folder=os.getcwd(),
            imagination=jsonable(options),
            chunks=suite.chunks,
            seed=suite.seed,
            threads=threads,
            content=_content(policy, options, but),
            versions={name: versions()[name] for name in VERSIONS},
            processor=str(machine()["processor"]),
        )

    @classmethod
    def from_text(cls, text: str, whose: str) -> Making:
        """What ``to_text`` wrote. DataError, naming ``whose`` it is, if it did not."""
        try:
            return settings_from(cls, parsed_json(text), whole=True)
        except (ValueError, ConfigError) as error:
            raise DataError(
                f"what made {whose} cannot be read ({error}); it was not made by `worldeval "
                "synthesize`, or is damaged"
            ) from error

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    def options(self) -> ImaginationOptions:
        """How to imagine, as options."""
        given = dict(self.imagination)
        for name in ("world_model", "starts", "adapter"):
            if given.get(name) is not None:
                given[name] = Path(str(given[name]))
        return settings_from(ImaginationOptions, given)

    def check(self) -> None:
        """Raise MismatchError unless policy, world model and start states are what they were."""
        now = jsonable(_content(self.policy, self.options(), None))
        for thing in {**self.content, **now}:
            before, after = self.content.get(thing), now.get(thing)
            if before != after:
                raise MismatchError(
                    f"the {thing} has changed since: it was {before}, now it is {after}; restore "
                    "it, for an episode is made again by what made it"
                )


def in_full(options: ImaginationOptions) -> ImaginationOptions:
    """Options that name the world model and start states that they leave open."""
    return replace(
        options,
        world_model=options.folder.absolute(),
        starts=(options.starts or shipped.path(shipped.STARTS)).absolute(),
        adapter=None if options.adapter is None else options.adapter.absolute(),
    )


def _content(policy: str, options: ImaginationOptions, but: Path | None) -> dict[str, Any]:
    return {
        "policy": policy_content(policy, but=but),
        **imagination_content(options),
        "start states": digests.of_inputs(options.starts),
    }
