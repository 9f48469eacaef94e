"""``worldeval synthesize``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldeval.evaluation.stage import StageOptions
from worldeval.synthesis.synthesize import BATCH, Choice
from worldeval.synthesis.variety import Variety


def _stage() -> StageOptions:
    return StageOptions(batch=BATCH)


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Imagine varied rollouts of a policy and keep the good ones as a dataset to learn from.

    Writes OUT/imagined (all rollouts, judged), OUT/dataset (a store of those that the rules kept,
    marked as synthetic), OUT/funnel.json and OUT/report.html. The same command goes on where it
    was killed, and ends with the same dataset. Each episode says how to make it again.

    For example:
      worldeval synthesize --policy runs/mine --starts recordings/training --out runs/synthetic
      worldeval synthesize --policy runs/mine --starts recordings/training --samples 8 \\
          --select trust --select advantage?margin=0.2 --out runs/best-of-8
      worldeval synthesize --pool runs/synthetic --select success?threshold=0.95 --out runs/surest
      worldeval synthesize --again KEY --pool runs/synthetic --out runs/again
    """

    policy: str | None = None
    """Whose rollouts are imagined, as for `worldeval rollout`."""
    out: Path
    """Folder to write to; one that the same command wrote is continued."""
    choice: Annotated[Choice, tyro.conf.arg(name="")] = field(default_factory=Choice)
    variety: Annotated[Variety, tyro.conf.arg(name="")] = field(default_factory=Variety)
    pool: Path | None = None
    """Select from the rollouts of an earlier synthesis (its --out), instead of imagining."""
    seed: int | None = None
    """Of all randomness; the suite's, if not given. Another seed imagines other rollouts."""
    again: str | None = None
    """Make the episode with this key again from what stands in it (in --pool, or --out), and say
    whether every bit is the same."""
    stage: Annotated[StageOptions, tyro.conf.arg(name="")] = field(default_factory=_stage)

    def run(self) -> int | None:
        from worldeval.synthesis.synthesize import synthesize_stage

        if self.again is not None:
            return self._again(self.again)
        made = synthesize_stage(
            self.stage,
            self.policy,
            self.out,
            self.choice,
            self.variety,
            pool=self.pool,
            seed=self.seed,
            verb=self,
        )
        print(made.text())
        return None

    def _again(self, key: str) -> int:
        from worldeval.data.store.episodes import EpisodeStore
        from worldeval.evaluation.opening import stores_in
        from worldeval.synthesis.again import make_again

        stores = [EpisodeStore.open(place) for place in stores_in(self.pool or self.out)]
        held = next((store for store in stores if key in store), stores[0])
        made = make_again(held, key)
        print(made)
        return 0 if made.same else 1
