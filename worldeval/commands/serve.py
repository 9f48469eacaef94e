"""``worldeval serve-policy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ServePolicy:
    """Serve a policy to other tools, as RoboArena's and openpi's servers do.

    It listens until Ctrl-C. Clients of openpi and RoboArena can ask it, and so can worldeval, which
    gets the same actions as from the policy in process and compares all conventions first:
    --policy roboarena://HOST:PORT. Nobody has to show a key, so it listens on this machine alone.

    For example:
      worldeval serve-policy checkpoints/policies/full
      worldeval serve-policy random --robot droid-panda --port 9000
    """

    policy: Annotated[str, tyro.conf.Positional]
    """The policy: any that --policy of the other verbs takes."""
    robot: str = "metaworld-sawyer"
    """Name or file of the robot it is for (worldeval robots)."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in the network ask."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    sessions: int = 8
    """So many rollouts at once, each with a policy of its own in memory."""
    seed: int = 0
    """Seed of a rollout whose client names none."""
    conventions: Path | None = None
    """TOML file of conventions in which the policy differs from the robot's own."""

    def run(self) -> None:
        from worldeval.policies.loading import load_policy
        from worldeval.policies.servers.conventions import read_conventions
        from worldeval.policies.servers.serving import PolicyServer
        from worldeval.robots import read_robot

        robot = read_robot(self.robot)
        said = read_conventions(self.conventions) if self.conventions else None
        server = PolicyServer(
            lambda: load_policy(self.policy, robot),
            robot,
            host=self.host,
            port=self.port,
            sessions=self.sessions,
            conventions=said,
            seed=self.seed,
        )
        try:
            print(f"roboarena://{self.host}:{server.port}", flush=True)
            server.serve_forever()
        finally:
            server.close()
