"""``worldeval rank``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Rank the policies of judged rollouts: rates with intervals, and agreement with the truth.

    Prints the leaderboard and writes leaderboard.json and report.html.

    For example:
      worldeval rank runs/mine --out runs/mine-ranked
      worldeval rank runs/mine --real runs/truth --out runs/mine-ranked
    """

    folder: tyro.conf.Positional[Path]
    """Folder of rollouts, judged by `worldeval judge`."""
    out: Path
    """Folder to write the leaderboard to."""
    real: Path | None = None
    """What truly happened from the same start states: a verdict table (parquet), or a folder of
    rollouts in a world that knows."""
    seed: int = 0
    """Of the bootstrap over tasks."""

    def run(self) -> None:
        from worldeval.commands.verdicts import read_truth, read_verdicts, write_ranking
        from worldeval.rollout.provenance import write_manifest

        imagined = read_verdicts(self.folder)
        real = None if self.real is None else read_truth(self.real)
        write_manifest(self.out, command="rank", config=self, seed=self.seed, allow_changes=True)
        facts = {"imagined": str(self.folder), "real": str(self.real), "seed": self.seed}
        print(write_ranking(imagined, real, self.out, seed=self.seed, provenance=facts))
        print(self.out / "report.html")
