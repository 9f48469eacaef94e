"""``worldeval merge``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Merge a fine-tuned policy with its base: w = (1 - alpha) BASE + alpha TUNED.

    What was learned anew stays, and less of what was known is lost (RETAIN). Takes any two policies
    of equal shapes in safetensors: checkpoints of worldeval, folders as Hugging Face or LeRobot
    write them (sharded ones too), single files. With --sweep, writes one policy for each alpha, to
    be ranked in imagination.

    For example:
      worldeval merge checkpoints/policies/short runs/tuned --alpha 0.5 --out runs/merged
      worldeval merge checkpoints/policies/short runs/tuned --sweep 0 0.25 0.5 1 --out runs/sweep
      worldeval merge checkpoints/policies/short runs/tuned --group '^views=0.2' --out runs/merged
    """

    base: Annotated[Path, tyro.conf.Positional]
    """The policy before fine-tuning: a folder or a safetensors file."""
    tuned: Annotated[Path, tyro.conf.Positional]
    """The policy after it."""
    out: Path
    """Folder of the merged policy; with --sweep, of one folder for each alpha."""
    alpha: float | None = None
    """Share of TUNED, 0 to 1 (0.5 if not given)."""
    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another share for some tensors, as PATTERN=ALPHA: those in whose name the regular expression
    is found; of several the first that fits counts."""
    sweep: tuple[float, ...] = ()
    """Several shares, 0 to 1, for one policy each."""

    def run(self) -> None:
        from worldeval.learning.merging import Mixture, merge, sweep

        groups = tuple(read_group(words) for words in self.group)
        if self.sweep:
            if self.alpha is not None:
                raise ConfigError("alpha and sweep are both given; expected one of them")
            for folder in sweep(self.base, self.tuned, self.out, self.sweep, groups):
                print(folder)
            return
        alpha = 0.5 if self.alpha is None else self.alpha
        print(merge(self.base, self.tuned, self.out, Mixture(alpha=alpha, groups=groups)))


def read_group(words: str) -> tuple[str, float]:
    """("^views", 0.2) of "^views=0.2". ConfigError if it is no such pair."""
    pattern, _, share = words.rpartition("=")
    try:
        alpha = float(share)
    except ValueError:
        alpha = None
    if not pattern or alpha is None:
        raise ConfigError(f"group is {words!r}, expected PATTERN=ALPHA, such as '^views=0.2'")
    return pattern, alpha
