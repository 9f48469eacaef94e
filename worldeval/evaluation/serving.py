"""A world by name behind a port, with the start states that go with it.

Enters: what ``--world`` takes, and how to imagine. Leaves: a ``WorldServer``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldeval.evaluation.opening import ImaginationOptions, adapter_of, open_world
from worldeval.evaluation.stage import StageOptions
from worldeval.types import World
from worldeval.worlds.serving import WorldServer


def world_server(
    world: str,
    options: ImaginationOptions | None = None,
    *,
    suite: Path | None = None,
    **where: Any,
) -> WorldServer:
    """where: host, port and sessions. Sessions of an imagined world share its weights."""
    options = options or ImaginationOptions()
    first = open_world(world, options)
    chosen = StageOptions(world=world, suite=suite, imagination=options).chosen_suite(first)
    unused = [first]

    def make() -> World:
        if unused:
            return unused.pop()
        beside = getattr(first, "beside", None)
        return open_world(world, options) if beside is None else beside()

    try:
        return WorldServer(
            make,
            starts=chosen.starts,
            chunks=chosen.chunks,
            seed=chosen.seed,
            adapter=adapter_of(first.robot, options),
            **where,
        )
    except BaseException:
        first.close()
        raise
