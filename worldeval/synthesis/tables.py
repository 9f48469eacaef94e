"""What selection looks at: one row per imagined rollout, and the path of each.

Enters: a store of imagined rollouts, verdicts and trust beside it. Leaves: ``Tables``. Rules are
pure functions of it; what costs something to measure is measured only if a rule needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

KEY, TASK, INSTRUCTION, OUTCOME, PROBABILITY = (
    "key", "task", "instruction", "outcome", "probability",
)  # fmt: skip
ASKED = "asked"
"""Fact of a rollout: the suite's instruction for its start state, whatever the policy was told."""
TRUSTED, DISTRUST, PROGRESS, ARTEFACTS, VALUE, ADVANTAGE, LABEL = (
    "trusted", "distrust", "progress", "artefacts", "value", "advantage", "label",
)  # fmt: skip


TRIED_ONCE = (
    "the advantage over the policy's own value is not known of any rollout, for each varied start "
    "was tried once; give --samples 4 or more"
)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """rollouts: columns key, task, instruction, start_id, group, noise, outcome (of the judge),
    probability, and those that the rules need (trusted, progress, artefacts, value, advantage,
    label). paths: key -> poses (T+1, P) in shares of the robot's range.
    """

    rollouts: pd.DataFrame
    paths: Mapping[str, np.ndarray]

    def only(self, keys: Collection[str]) -> Tables:
        """These rollouts alone."""
        kept = self.rollouts[KEY].isin(set(keys))
        return replace(self, rollouts=self.rollouts[kept].reset_index(drop=True))


def no_rollouts() -> Tables:
    """Tables with every column and no row, on which the settings of a rule can be tried."""
    import pandas as pd

    columns = [
        KEY, TASK, INSTRUCTION, "start_id", "group", "noise", OUTCOME, PROBABILITY,
        TRUSTED, DISTRUST, PROGRESS, ARTEFACTS, VALUE, ADVANTAGE, LABEL,
    ]  # fmt: skip
    return Tables(rollouts=pd.DataFrame(columns=columns), paths={})


def with_advantage(rollouts: pd.DataFrame) -> pd.DataFrame:
    """``rollouts`` with the columns value and advantage.

    value: mean probability of success of the other rollouts from the same varied start, of those
    without exploration noise where there are any: what the policy itself is worth there. advantage:
    how much better this one is; NaN where there is no other, or nothing was judged.
    """
    values = []
    by_group = {group: rows for group, rows in rollouts.groupby("group")}
    for row in rollouts.to_dict("records"):
        others = by_group[row["group"]]
        others = others[(others[KEY] != row[KEY]) & others[PROBABILITY].notna()]
        own = others[others["noise"] == 0]
        used = own if len(own) else others
        values.append(float(used[PROBABILITY].mean()) if len(used) else float("nan"))
    found = rollouts.assign(**{VALUE: np.asarray(values, float)})
    return found.assign(**{ADVANTAGE: found[PROBABILITY].astype(float) - found[VALUE]})


def in_shares(poses: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Poses (T, P) in shares of the robot's range, 0 to 1."""
    return ((np.asarray(poses, np.float64) - low) / (high - low)).astype(np.float32)
