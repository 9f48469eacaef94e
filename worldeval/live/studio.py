"""An imagined world that is open for driving: its start states, any number of drives, and a store.

Enters: a world model and recorded start states, as for `worldeval rollout`. Leaves: ``Drive``s that
share the model's weights and nothing else, and episodes in a folder with run.json beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from worldeval.data.atomic import alone
from worldeval.errors import StartStateError, StoreError
from worldeval.evaluation.opening import (
    ImaginationOptions,
    adapter_of,
    fingerprint,
    imagination_content,
    open_imagination,
)
from worldeval.live.drive import Drive

if TYPE_CHECKING:
    from worldeval.imagination.env import Imagination
    from worldeval.robots import RobotSpec
    from worldeval.types import Policy, StartState


class Studio:
    """Opens a world model once, for many drives at once."""

    def __init__(self, world: Imagination, options: ImaginationOptions) -> None:
        """Use ``open``."""
        self._world, self._options = world, options
        self._starts = {start.start_id: start for start in world.start_states()}

    @classmethod
    def open(
        cls,
        world_model: str | Path | None = None,
        *,
        starts: str | Path | None = None,
        device: str | None = None,
        memory: str | None = None,
        sampler_steps: int | None = None,
        action_space: str | None = None,
    ) -> Self:
        """world_model, starts: a checkpoint and a store that begins at the start states; the
        shipped ones if None. The rest as for `worldeval rollout`."""
        options = ImaginationOptions(
            world_model=None if world_model is None else Path(world_model),
            starts=None if starts is None else Path(starts),
            device=device,
            memory=memory,
            sampler_steps=sampler_steps,
            action_space=action_space,
        )
        return cls(open_imagination(options), options)

    @property
    def robot(self) -> RobotSpec:
        return self._world.robot

    @property
    def starts(self) -> tuple[StartState, ...]:
        """All that a drive can begin at."""
        return tuple(self._starts.values())

    def drive(self, start: str | StartState | None = None, *, seed: int = 0) -> Drive:
        """A rollout to drive. start: a start state or its name; the first if None.

        Raises StartStateError for one that this world does not have.
        """
        if start is None or isinstance(start, str):
            found = self.starts[0] if start is None else self._starts.get(start)
            if found is None:
                some = ", ".join(map(repr, list(self._starts)[:3]))
                raise StartStateError(
                    f"there is no start state {start!r}; choose one of {len(self._starts)}, such "
                    f"as {some}"
                )
            start = found
        world = self._world.beside()
        return Drive(world, start, seed=seed, adapter=adapter_of(self.robot, self._options))

    @property
    def shipped_policies(self) -> dict[str, str]:
        """Name -> URI of the policies that come with worldeval, where they are of this robot."""
        from worldeval import shipped
        from worldeval.worlds.sawyer import ROBOT

        if self.robot.name != ROBOT.name:
            return {}
        return {name: str(folder) for name, folder in shipped.policies().items()}

    def policy(self, uri: str) -> Policy:
        """A policy for one drive, as `worldeval rollout --policy` names it."""
        from worldeval.policies.loading import load_policy

        return load_policy(uri, self.robot)

    def save(
        self,
        drive: Drive,
        folder: str | Path,
        *,
        name: str = "live",
        instruction: str | None = None,
    ) -> str:
        """Add a drive's way from the start to now to the store in ``folder``; its key.

        name: of who drove, the policy's name in tables. Several may save at once. Raises
        ConfigError where the folder holds rollouts of another world model.
        """
        from worldeval.data.provenance import write_manifest
        from worldeval.rollout.recording import open_rollouts, rollout_key

        folder = Path(folder)
        model = self._options.folder
        rollout_key_of = rollout_key(name, drive.start.start_id)
        drive.episode(rollout_key_of, policy=name)  # what cannot be saved makes no folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder / "live"):
                write_manifest(
                    folder,
                    command="live",
                    config={
                        "world": "imagination",
                        "imagination": self._options,
                        "world_model": fingerprint(str(model)),
                    },
                    seed=None,
                    content=imagination_content(self._options),
                )
                with open_rollouts(folder, self.robot) as store:
                    number = sum(key.startswith(f"{rollout_key_of}/") for key in store.keys)
                    key = f"{rollout_key_of}/{number + 1:03d}"
                    store.append(drive.episode(key, policy=name, instruction=instruction))
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written: {error.strerror or error}; free some space or choose "
                "another folder"
            ) from error
        return key
