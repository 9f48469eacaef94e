"""Settings of cloned policies and of their training, as values; no torch is imported here.

Enters: a robot, a store's name, choices. Leaves: ``BCConfig`` (the network, kept in the
checkpoint), ``Selection`` (which episodes) and ``BCTrainConfig`` (one candidate).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import tyro

from worldeval.errors import ConfigError
from worldeval.learning.config import LoopConfig
from worldeval.robots import RobotSpec
from worldeval.settings import settings_from

FAMILIES = ("film", "plain", "keypoints", "patches", "thumbnails", "nearest")
"""Networks that can be cloned into; the first is the shipped candidates'."""
LARGEST = 1e9
"""No bound of an action or a pose, in whatever unit."""
GROUP_CHANNELS = 8
"""Channels that are normalised together."""


@dataclass(frozen=True, kw_only=True)
class BCConfig:
    """What the network looks like and what its numbers mean; all of it goes into the checkpoint."""

    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    action_space: str
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    pose_low: tuple[float, ...]
    pose_high: tuple[float, ...]
    rate_hz: float
    chunk: int
    execute: int
    family: str = "film"
    """Which network, see ``policies/cloning/families.py``."""
    remembered: int = 0
    """Samples that the family "nearest" keeps."""
    use_text: bool = True
    use_state: bool = True
    channels: tuple[int, int, int] = (16, 32, 64)
    keypoints: int = 24
    flat_channels: int = 4
    text_buckets: int = 512
    text_dim: int = 32
    hidden: int = 192

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"family is {self.family!r}, expected one of {', '.join(FAMILIES)}")
        if (self.family == "nearest") != (self.remembered > 0):
            raise ConfigError(
                f"remembered is {self.remembered} in the family {self.family!r}, expected 1 or "
                "more in the family nearest and 0 in all others"
            )
        if not self.cameras:
            raise ConfigError("cameras is empty, expected at least one view")
        if any(size < 16 or size % 8 for size in self.image_size):
            raise ConfigError(f"image_size is {self.image_size}, expected multiples of 8 from 16")
        if any(c < GROUP_CHANNELS or c % GROUP_CHANNELS for c in self.channels[1:]):
            raise ConfigError(
                f"channels is {self.channels}, expected multiples of "
                f"{GROUP_CHANNELS} after the first"
            )
        if not 1 <= self.execute <= self.chunk:
            raise ConfigError(f"execute is {self.execute}, expected 1 to chunk = {self.chunk}")
        if len(self.action_low) != len(self.action_high):
            raise ConfigError("action_low and action_high differ in length")
        if len(self.pose_low) != len(self.pose_high):
            raise ConfigError("pose_low and pose_high differ in length")
        for name in ("action", "pose"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if any(not -LARGEST < a < b < LARGEST for a, b in zip(low, high, strict=True)):
                raise ConfigError(
                    f"{name}_low is {low} and {name}_high {high}, expected lower and then higher "
                    "numbers"
                )

    @classmethod
    def for_robot(cls, robot: RobotSpec, **settings: Any) -> BCConfig:
        """The config that fits ``robot``; ``settings`` override its fields."""
        return cls.from_json(
            {
                "cameras": robot.views,
                "image_size": robot.image_size,
                "action_space": robot.action_space,
                "action_low": robot.action_low,
                "action_high": robot.action_high,
                "pose_low": robot.pose_low,
                "pose_high": robot.pose_high,
                "rate_hz": robot.control_hz,
                "chunk": robot.chunk_steps,
                "execute": robot.chunk_steps,
                **settings,
            }
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BCConfig:
        """The inverse of ``to_json``; an unknown key raises."""
        return settings_from(cls, values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which episodes to learn from. ``demonstrations`` keeps so many of each task (None: all).

    Smaller selections are subsets of larger ones, because episodes are ordered by a hash of key.
    """

    tasks: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    only_successful: bool = False
    demonstrations: int | None = None
    held_out: int = 2
    """Episodes of each task kept apart to measure the error on, where there are 10 or more."""


@dataclass(frozen=True, kw_only=True)
class BCTrainConfig:
    """One candidate: what it learns from, what it may see, how long and how it is trained."""

    store: str = ""
    """Folder of the store with the episodes to learn from."""
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Stores to learn from in place of --store, of one robot; give it once for each."""
    mix: tuple[float, ...] = ()
    """Shares of the samples that come from the stores of --data, in their order; the last one takes
    what is left (0.5 for two stores: half from each). Without it every frame counts alike."""
    start_from: str | None = None
    """Policy to fine-tune (a checkpoint of this kind): its network and weights are the first. A
    short run does: --loop.steps 400 --loop.learning-rate 3e-4."""
    verdicts: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Tables of verdicts (`worldeval judge`) on episodes of the stores, parquet or CSV with the
    columns key and outcome: they say which are solved, in place of the stores."""
    advantage: str | None = None
    """Weigh episodes by this number of theirs (a column of the stores, or probability of
    --verdicts): they are drawn in proportion to exp(advantage / temperature)."""
    temperature: float | None = None
    """Of --advantage, in its unit; None: its standard deviation in each store."""
    tasks: tuple[str, ...] | None = None
    """Tasks to learn; None takes all of the store."""
    kinds: tuple[str, ...] | None = None
    """Kinds of episodes (column ``kind``); None takes all."""
    demonstrations: int | None = None
    """Episodes of each task; None takes all."""
    only_successful: bool = False
    """Whether to learn from solved episodes alone; with expert labels, failures teach recovery."""
    labels: str = "expert"
    """"expert": what an expert would have done at each visited state; "executed" actions."""
    label_noise: float = 0.0
    """Standard deviation of the error of a sloppy demonstrator, in the robot's action units."""
    label_gain: float = 1.0
    """Factor on demonstrated motion: below 1 it is too slow, above too fast."""
    family: str = "film"
    """Which network, see ``policies/cloning/families.py``."""
    remembered: int = 0
    """Samples that the family "nearest" keeps; it is not trained."""
    cameras: tuple[str, ...] | None = None
    """Views it sees; None all of the robot's."""
    use_text: bool = True
    """Whether it reads the instruction."""
    use_state: bool = True
    """Whether it sees the robot's state."""
    channels: tuple[int, int, int] = (16, 32, 64)
    """Channels of the three levels of the image network, multiples of 8 after the first."""
    hidden: int = 192
    """Width of the layers behind the image network."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=2500,
            batch=96,
            learning_rate=1.5e-3,
            warmup=100,
            schedule="cosine",
            weight_decay=1e-2,
            beta2=0.999,
            ema=0.995,
            threads=1,
            save_every_s=30.0,
            validate_every=500,
        )
    )
    shift_px: int = 2
    """Images are shifted by up to so many pixels."""
    jitter: float = 0.15
    """Largest relative change of brightness, contrast and tint."""
    blur_share: float = 0.25
    """Share of the samples that are blurred."""
    corrupted_share: float = 0.35
    """Share of the frames that have a corrupted twin, if a corruption is given at all; a sample
    whose frame has one takes it at even odds."""
    state_noise: float = 0.01
    """Standard deviation on the pose, scaled to [-1, 1]."""
    gripper_dropout: float = 0.3
    """Share of samples that are not told the gripper's state: it predicts its own next command so
    well that a policy would else learn to copy it and never close."""
    word_dropout: float = 0.1
    """Probability that a word of the instruction is hidden."""
    idle_share: float = 0.2
    """Share of the frames kept at which nothing is left to do."""
    hold_weight: float = 0.1
    """Loss weight of standing still beyond the end of an episode."""

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"hidden is {self.hidden!r}, expected 1 or more")
        if self.store and self.data:
            raise ConfigError("store and data are both given, expected one; name all in data")
        if self.mix and len(self.mix) != len(self.data) - 1:
            raise ConfigError(
                f"mix has {len(self.mix)} shares for {len(self.data)} stores in data, expected one "
                "fewer than stores: the last one takes what is left"
            )
        if any(not 0 <= share <= 1 for share in self.mix) or sum(self.mix) > 1:
            raise ConfigError(f"mix is {self.mix}, expected shares from 0 to 1, together at most 1")
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature!r}, expected more than 0")
        if self.temperature is not None and self.advantage is None:
            raise ConfigError("temperature is given without advantage, which it is the scale of")
        if self.demonstrations is not None and self.demonstrations < 1:
            raise ConfigError(
                f"demonstrations is {self.demonstrations!r}, expected 1 or more, or None for all"
            )
        if self.labels not in ("expert", "executed"):
            raise ConfigError(f"labels is {self.labels!r}, expected 'expert' or 'executed'")
        for name in (
            "blur_share",
            "corrupted_share",
            "gripper_dropout",
            "word_dropout",
            "hold_weight",
            "idle_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 0 to 1")

    @property
    def stores(self) -> tuple[str, ...]:
        """Folders of all stores that it learns from."""
        stores = self.data or ((self.store,) if self.store else ())
        if not stores:
            raise ConfigError("there is nothing to learn from; give a store (--store, or --data)")
        if len(set(stores)) < len(stores):
            raise ConfigError(f"data is {list(stores)}, expected each store once")
        return stores

    @property
    def sources(self) -> tuple[tuple[str, float | None], ...]:
        """Each store that is drawn from, and its share of the samples; None: by its frames."""
        if not self.mix:
            return tuple((store, None) for store in self.stores)
        shares = (*self.mix, max(0.0, 1 - sum(self.mix)))
        pairs = zip(self.stores, shares, strict=True)
        return tuple((store, share) for store, share in pairs if share > 1e-9)

    @property
    def selection(self) -> Selection:
        return Selection(
            tasks=self.tasks,
            kinds=self.kinds,
            demonstrations=self.demonstrations,
            only_successful=self.only_successful,
        )

    def network(self, robot: RobotSpec) -> BCConfig:
        """The network to train from nothing; one that is fine-tuned stays as it is."""
        unknown = set(self.cameras or ()) - set(robot.views)
        if unknown:
            raise ConfigError(
                f"camera {sorted(unknown)[0]!r} is none of robot {robot.name!r}; "
                f"choose from {list(robot.views)}"
            )
        return BCConfig.for_robot(
            robot,
            cameras=self.cameras or robot.views,
            family=self.family,
            remembered=self.remembered,
            use_text=self.use_text,
            use_state=self.use_state,
            channels=self.channels,
            hidden=self.hidden,
        )

    def identity(self) -> dict[str, Any]:
        """What must be equal for a training to be the same one: all but how it is carried out."""
        values = json.loads(json.dumps(asdict(self)))
        for place in ("store", "data", "start_from", "verdicts", "loop"):
            del values[place]
        return {**values, "stores": len(self.data) or 1, **self.loop.identity()}
