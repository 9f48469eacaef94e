"""How varied the imagined rollouts shall be: a configuration, checked before anything is imagined.

Enters: shares and sizes. Leaves: ``Variety``, which ``planning.py`` turns into recipes.
"""

from __future__ import annotations

from dataclasses import dataclass

from worldeval.errors import ConfigError

TEMPLATES = "templates"
SHARES = ("moved", "reworded", "noisy", "near_failure")


@dataclass(frozen=True, kw_only=True)
class Variety:
    """What is varied, and how often."""

    variations: int = 4
    """Varied starts of each start state of the suite."""
    samples: int = 1
    """Rollouts from each varied start, with other seeds and noise; several are needed for the
    advantage over the policy's own value (best of so many)."""
    moved: float = 0.5
    """Share of the varied starts at which the arm is first moved to a random pose that it can
    reach, by interpolation inside imagination."""
    reach: float = 0.25
    """How far the arm is moved at most, in shares of its range along each axis."""
    reworded: float = 0.5
    """Share of the varied starts with other words for the same instruction."""
    wording: str = TEMPLATES
    """Who finds these words: templates (offline), or any OpenAI-compatible endpoint as
    'http://localhost:8000/v1?model=NAME' (add &key_env=VARIABLE where it wants a key)."""
    noisy: float = 0.5
    """Share of the rollouts with exploration noise on the actions. Of several from one start the
    first has none: it shows what the policy itself does there."""
    noise: float = 0.1
    """Standard deviation of that noise, in shares of the largest action."""
    near_failure: float = 0.0
    """Share of the varied starts that begin where failed rollouts of this very run stopped making
    progress; needs a judge that measures progress."""

    def __post_init__(self) -> None:
        for name in SHARES:
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share!r}, expected a share from 0 to 1")
        for name in ("variations", "samples"):
            count = getattr(self, name)
            if type(count) is not int or not 1 <= count <= 10_000:
                raise ConfigError(f"{name} is {count!r}, expected 1 or more, at most 10000")
        if not 0 < self.reach <= 1:
            raise ConfigError(
                f"reach is {self.reach!r}, expected a share above 0, at most 1; moved = 0 moves no "
                "arm"
            )
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"noise is {self.noise!r}, expected 0 to 1 of the largest action")

    @property
    def near_failures(self) -> int:
        """Of the varied starts of each start state, those that wait for failures."""
        return round(self.near_failure * self.variations)
