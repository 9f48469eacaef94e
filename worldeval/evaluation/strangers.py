"""How far a ranking by the shipped world and judge holds for policies that these have never seen.

In: ``checkpoints/strangers.json``, which ``benchmarks/ship.py strangers`` makes of a ranking of
held-out families against the truth. Out: a sentence that stands before any other figure, and one
that calls policies from which world and judge learned what they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from worldeval import shipped
from worldeval.data.files import load_json
from worldeval.errors import ConfigError
from worldeval.settings import settings_from

FORMAT = "worldeval-strangers-1"
Interval = tuple[float, float, float]
"""Value, low and high end (95 %)."""


@dataclass(frozen=True, kw_only=True)
class Strangers:
    """Agreement with the truth over policies of families that nothing was trained or chosen on.

    judge, world_model: name and digest of those that were measured; of others nothing is said.
    policies, starts: how many of each. seen: policies from which judge and world did learn.
    mean_error: of the rates, a share of 1.
    """

    format: str = FORMAT
    judge: str
    world_model: str
    policies: int
    starts: int
    pearson: Interval
    spearman: Interval
    top1_regret: Interval
    mean_error: float
    seen: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"format is {self.format!r}, expected {FORMAT!r}")

    def notes(self, policies: Collection[str]) -> list[str]:
        """What is to be said of a ranking of ``policies``, the held-out families first."""
        value, low, high = self.pearson
        said = [
            f"Over {self.policies} policies of families that judge and world model have never "
            f"seen: Pearson {value:.2f} ({low:.2f} to {high:.2f}), Spearman "
            f"{self.spearman[0]:.2f}, top-1 regret {self.top1_regret[0]:.2f}, rates off by "
            f"{100 * self.mean_error:.0f} points on average ({self.starts} start states each)."
        ]
        seen = [name for name in policies if name in self.seen]
        if seen:
            who = "All of these" if len(seen) == len(policies) else f"{len(seen)} of these"
            said.append(
                f"{who} policies are ones from which judge and world model learned (from other "
                f"start states): expect the ranking of others to hold less."
            )
        return said


def strangers_notes(
    policies: Collection[str], judges: Collection[str], world_model: str | None
) -> list[str]:
    """Of a ranking by the shipped judge and world; empty for others, or where nothing is known.

    Raises ConfigError for a damaged file.
    """
    path = shipped.folder() / shipped.STRANGERS
    if not path.is_file():
        return []
    known = read_strangers(path)
    if set(judges) != {known.judge} or world_model != known.world_model:
        return []
    return known.notes(policies)


def read_strangers(path: Path) -> Strangers:
    """ConfigError for a file that is none."""
    try:
        content = load_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}")
        return settings_from(Strangers, content, whole=True)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ConfigError(
            f"{path} is no measurement of strangers ({error}); make it again with "
            "`python benchmarks/ship.py strangers`, or delete it"
        ) from error
