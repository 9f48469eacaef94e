"""Turns the words of the command line into things: worlds, stores of rollouts, fingerprints.

Enters: names, paths and URIs. Leaves: an open world, the stores below a folder, and the digest that
tells whether an output folder was begun with the same weights or the same file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval import shipped
from worldeval.errors import ConfigError, MismatchError, StoreError
from worldeval.worlds.loading import SCHEMES, load_world, where_of

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.env import Imagination
    from worldeval.motion.adapters import Adapter
    from worldeval.robots import RobotSpec
    from worldeval.types import World
    from worldeval.world_model.interfaces import LatentModelConfig

IMAGINATION = "imagination"
HYBRID = "hybrid"
"""hybrid:WORLD, of metaworld where no other is named: the world model draws what another does."""


@dataclass(frozen=True, kw_only=True)
class ImaginationOptions:
    """How to imagine. What is not given is as the checkpoint says."""

    world_model: Path | None = None
    """Checkpoint of the world model; the shipped one, if not given."""
    starts: Path | None = None
    """Store whose episodes begin at the start states; the shipped one, if not given."""
    memory: str | None = None
    """Which past frames the model looks at: pose, strided, none, and for Ctrl-World published
    (replay, keyboard) or published-policy."""
    solver: str | None = None
    """Sampler: euler, heun, dpmpp_2m."""
    sampler_steps: int | None = None
    """Steps of the sampler; fewer are faster and coarser."""
    preset: str | None = None
    """Of an imported Ctrl-World: published (to the letter) or improved."""
    robot: str | None = None
    """The robot: a TOML file, a name of `worldeval robots`, or module:attr; as the world model
    says, if not given."""
    action_space: str | None = None
    """What policies command, where the robot knows several ways (a Panda: absolute_pose,
    delta_pose, joint_position, joint_velocity)."""
    steps_per_frame: int | None = None
    """Control steps between two frames, where the robot leaves a choice (a Panda: 3; 2 for slow,
    fine motions)."""
    adapter: Path | None = None
    """Learned adapter that turns joint velocities into poses (`worldeval train adapter`, or the
    published action_adapter.pth); integration, if not given."""
    gripper_most: float | None = None
    """Gripper commands above it become it (Ctrl-World's runs: 0.75 to 0.97, as the object allows);
    closes wholly, if not given."""
    device: str | None = None
    """cpu or cuda; a GPU if there is one."""

    @property
    def folder(self) -> Path:
        return self.world_model or shipped.path(shipped.WORLD_MODEL)


def commanded_as_recorded(
    options: ImaginationOptions, recorded: EpisodeStore
) -> ImaginationOptions:
    """``options`` with the action space of recordings that are to be imagined again, unless they
    name one."""
    from worldeval.data.fit import kept_robot
    from worldeval.worlds.named import space_of

    if options.action_space is not None:
        return options
    if (robot := kept_robot(recorded)) is not None:
        return replace(options, action_space=robot.action_space)
    layout = recorded.layout
    return replace(options, action_space=space_of(layout.robot_type, layout.action_names))


def open_world(name: str, options: ImaginationOptions | None = None) -> World:
    """The world of that name (``worlds/loading.py``); ``options`` are for imagination."""
    if name == IMAGINATION:
        return open_imagination(options or ImaginationOptions())
    if imagines(name):
        from worldeval.imagination.hybrid import Hybrid

        drawn = open_imagination(options or ImaginationOptions())
        return Hybrid(load_world(name.partition(":")[2] or "metaworld"), drawn)
    return load_world(name, beside=(IMAGINATION, HYBRID))


def imagines(name: str) -> bool:
    """Whether the world ``name`` needs the world model."""
    return name.partition(":")[0] in (IMAGINATION, HYBRID) and not name.startswith("imagination:")


def open_imagination(
    options: ImaginationOptions, starts: EpisodeStore | None = None
) -> Imagination:
    """The world model as a world. starts: instead of ``options.starts``."""
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.imagination.env import Imagination, default_device
    from worldeval.learning.devices import check_device
    from worldeval.world_model.latent_rollout import FrameRollouts
    from worldeval.world_model.loading import open_world_model

    check_device(options.device)
    if starts is None:
        starts = EpisodeStore.open(options.starts or shipped.path(shipped.STARTS))
    device = options.device or default_device()
    model, codec = open_world_model(
        options.folder, preset=options.preset, bfloat16=device.startswith("cuda")
    )
    if starts.layout.robot_type != model.config.robot:
        raise MismatchError(
            f"{starts.root} was recorded with robot {starts.layout.robot_type!r}, the world model "
            f"{options.folder} is of {model.config.robot!r}; give one of the same robot"
        )
    sampler = model.config.sampler
    if options.solver is not None:
        sampler = replace(sampler, solver=options.solver)
    if options.sampler_steps is not None:
        sampler = replace(sampler, steps=options.sampler_steps)
    frame_rollouts = FrameRollouts(
        model,
        codec,
        memory=options.memory,
        sampler=sampler,
        device=device,
    )
    return Imagination(frame_rollouts, robot_of(model.config, options), starts)


def robot_of(config: LatentModelConfig, options: ImaginationOptions) -> RobotSpec:
    """The robot that a world model was trained for, commanded as ``options`` say.

    Raises MismatchError for a robot of another name, poses or rate in ``options``.
    """
    from worldeval.data.fit import check_made_for
    from worldeval.robots import read_robot
    from worldeval.worlds.named import SAWYER, as_asked, robot_named

    kept = config.spec
    if options.robot is not None:
        given = read_robot(options.robot)
        check_made_for(f"world model {options.folder}", kept, given, rates=False)
        if given.name != config.robot:
            raise MismatchError(
                f"world model {options.folder} was trained for robot {config.robot!r}, the robot "
                f"given is {given.name!r}; leave --robot out, or give that robot"
            )
        return as_asked(
            given, action_space=options.action_space, steps_per_frame=options.steps_per_frame
        )
    if kept is not None:
        return as_asked(
            kept, action_space=options.action_space, steps_per_frame=options.steps_per_frame
        )
    own = config.robot == SAWYER  # it leaves no choice, and the model is compared with it
    return robot_named(
        config.robot,
        action_space=options.action_space,
        steps_per_frame=options.steps_per_frame,
        image_size=None if own else config.image_size,
        statistics=None if own else (config.pose_low, config.pose_high),
    )


def adapter_of(robot: RobotSpec, options: ImaginationOptions) -> Adapter:
    """What turns chunks of the robot's actions into poses."""
    from worldeval.motion.adapters import adapter_for

    learned = None
    if options.adapter is not None:
        from worldeval.policies.joint_adapter import LearnedAdapter

        learned = LearnedAdapter.load(options.adapter)
    return adapter_for(robot, learned, gripper_most=options.gripper_most)


def set_threads(threads: int) -> None:
    """How many cores torch may use; more than there are makes everything slower."""
    if threads < 1:
        raise ConfigError(f"threads is {threads}, expected 1 or more")
    import torch

    torch.set_num_threads(threads)


def stores_in(folder: Path) -> list[Path]:
    """``folder`` if it is a store, else the stores in it and in its ``rollouts``."""
    if (folder / "meta" / "info.json").is_file():
        return [folder]
    below = [*folder.glob("*/meta/info.json"), *folder.glob("rollouts/*/meta/info.json")]
    if not below:
        raise StoreError(
            f"{folder} holds no rollouts; give a folder that `worldeval rollout` or "
            "`worldeval demo` wrote"
        )
    return sorted(info.parent.parent for info in below)


def fingerprint(uri: str) -> str | None:
    """Twelve digits that change with the weights or the file behind a policy's URI.

    None for what has neither (``random``): its arguments are in the URI itself.
    """
    place = uri.partition("?")[0]
    for prefix in ("bc:", "python:"):
        place = place.removeprefix(prefix)
    folder = Path(place)
    if (folder / "config.json").is_file():
        from worldeval.data import checkpoint

        return checkpoint.digest(folder)
    file = Path(place.rpartition(":")[0] or place)
    if file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return None


def imagination_content(options: ImaginationOptions) -> dict[str, dict[str, str]]:
    """What decides how is imagined, for ``provenance``: thing -> part -> digest."""
    from worldeval.data import digests

    beside = options.folder.parent / "autoencoder"
    parts = {"weights and settings": digests.of_path(options.folder)}
    if beside.is_dir():
        parts["autoencoder"] = digests.of_path(beside)
    found = {"world model": parts}
    if options.adapter is not None:
        found["adapter"] = {str(options.adapter): digests.of_path(options.adapter)}
    return found


def world_content(name: str, options: ImaginationOptions) -> dict[str, dict[str, str]]:
    """What decides what the world ``name`` shows, for ``provenance``: the model's files, or the
    code of a world that is not worldeval's own."""
    from worldeval.data import digests
    from worldeval.policies.content import code_content, policy_content

    if imagines(name):
        return imagination_content(options)
    if name.partition(":")[0] in SCHEMES:  # files among its arguments, as of a policy
        parts = policy_content(name)
        place = Path(name.partition(":")[2].partition("?")[0])
        if place.is_dir():
            parts["what it names"] = digests.of_path(place)
        return {f"world {name}": parts} if parts else {}
    where = where_of(name)
    return {} if where is None else {f"world {name}": code_content(where)}


def world_model_of(folder: Path) -> str | None:
    """Digest of the world model that imagined a folder's rollouts, as its run.json says.

    None where the world was another, or nothing says. Looks at the folder (of a file: its folder)
    and at those it lies in, since a store of rollouts may be one of several in a run.
    """
    from worldeval.data.provenance import MANIFEST, read_manifest

    inner = folder if folder.is_dir() else folder.parent
    for place in (inner, *inner.resolve().parents[:2]):
        if (place / MANIFEST).is_file():
            digest = read_manifest(place).get("config", {}).get("world_model")
            return str(digest) if digest else None
    return None
