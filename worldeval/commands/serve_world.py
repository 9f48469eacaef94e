"""``worldeval serve-world``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.opening import ImaginationOptions


@dataclass(frozen=True, kw_only=True)
class ServeWorld:
    """Serve a world to other processes: an imagined one for a policy with torch pins of its own.

    It listens until Ctrl-C. Each client has a session with a batch of rollouts in it, whose frames
    are to the bit those of the world in process: --world ws://HOST:PORT, or worldeval.connect_world
    from Python. Nobody has to show a key, so it listens on this machine alone.

    For example:
      worldeval serve-world
      worldeval serve-world --world metaworld --port 9000
    """

    world: str = "imagination"
    """The world: any that --world of the other verbs takes."""
    suite: Path | None = None
    """JSON file of the start states that clients without a suite take; as of --world, if not
    given."""
    imagination: Annotated[ImaginationOptions, tyro.conf.arg(name="")] = field(
        default_factory=ImaginationOptions
    )
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in the network ask."""
    port: int = 8001
    """Port to listen on; 0 takes a free one."""
    sessions: int = 8
    """So many batches of rollouts at once; a further one takes the place of the oldest."""
    threads: int = 2
    """Cores that torch may use. In imagination another number may round otherwise in a few
    pixels."""

    def run(self) -> None:
        from worldeval.evaluation.opening import set_threads
        from worldeval.evaluation.serving import world_server

        set_threads(self.threads)
        server = world_server(
            self.world,
            self.imagination,
            suite=self.suite,
            host=self.host,
            port=self.port,
            sessions=self.sessions,
        )
        try:
            print(f"ws://{self.host}:{server.port}", flush=True)
            server.serve_forever()
        finally:
            server.close()
