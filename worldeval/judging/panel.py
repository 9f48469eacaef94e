"""``Panel``: several judges that give one verdict.

Enters: judges, or the tables that they have written. Leaves: one verdict per rollout, by one of
three rules::

    majority    what most of those say who decide
    unanimous   what all say; one that abstains or differs leaves the rollout undecided
    mean        the (weighted) mean of the probabilities, against 1/2

A tie is undecided, never a failure. Judges that err in the same way make a panel sure and wrong:
`worldeval calibrate` measures a panel like any judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from worldeval.errors import ConfigError, MismatchError
from worldeval.types import Cost, Episode, Judge, Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["majority", "unanimous", "mean"]


class Panel:
    """A ``types.Judge`` made of others."""

    def __init__(
        self,
        members: Sequence[Judge],
        *,
        rule: Rule = "majority",
        weights: Sequence[float] | None = None,
        quorum: int = 1,
    ) -> None:
        """weights: of the members in the mean; equal by default.

        quorum: how many members must decide for the panel to.
        Raises ConfigError for fewer than two members, one twice, or settings that do not fit.
        """
        names = [member.name for member in members]
        if len(names) < 2:
            raise ConfigError(f"a panel of {names}, expected two judges or more")
        if len(set(names)) < len(names):
            raise ConfigError(f"a panel of {names} asks one judge twice; name each once")
        if rule not in get_args(Rule):
            raise ConfigError(f"rule is {rule!r}, expected one of {get_args(Rule)}")
        if not 1 <= quorum <= len(names):
            raise ConfigError(f"quorum is {quorum!r}, expected 1 to {len(names)} members")
        if weights is not None:
            if rule != "mean":
                raise ConfigError(f"weights belong to the rule 'mean', not to {rule!r}")
            if len(weights) != len(names) or not all(0 < w < np.inf for w in weights):
                raise ConfigError(
                    f"weights is {tuple(weights)!r}, expected {len(names)} numbers above 0"
                )
        self.members = tuple(members)
        self.rule: Rule = rule
        self.weights = tuple(map(float, weights or [1.0] * len(names)))
        self.quorum = quorum
        shares = "" if weights is None else " x " + ",".join(f"{w:g}" for w in self.weights)
        least = "" if quorum == 1 else f" of {quorum}"
        self.name = f"{rule}{least}({', '.join(names)}){shares}"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Ask every member about every episode; verdicts in the order of ``episodes``."""
        of_members = [member.judge(episodes) for member in self.members]
        return [self.combine(verdicts) for verdicts in zip(*of_members, strict=True)]

    def combine(self, verdicts: Sequence[Verdict]) -> Verdict:
        """One verdict of the members' (in their order) on one rollout.

        The probability is the mean one under "mean", else the share of the votes for success; None
        where nobody has one. Cost is the sum. ERROR where no member decides and one says ERROR.
        Raises MismatchError for verdicts of others, or on several rollouts.
        """
        names, keys = [v.judge for v in verdicts], {v.key for v in verdicts}
        if names != [member.name for member in self.members] or len(keys) != 1:
            raise MismatchError(
                f"verdicts of {names} on {sorted(keys)}, expected one of each of "
                f"{[member.name for member in self.members]} on the same rollout"
            )
        outcome, probability = self._decision(verdicts)
        decided = sum(v.outcome.decided for v in verdicts)
        if decided < self.quorum:
            outcome = Outcome.UNDECIDED
        if not decided and any(v.outcome == Outcome.ERROR for v in verdicts):
            outcome = Outcome.ERROR
        costs = [v.cost for v in verdicts]
        dollars = [cost.dollars for cost in costs if cost.dollars is not None]
        return Verdict(
            key=verdicts[0].key,
            outcome=outcome,
            probability=None if outcome == Outcome.ERROR else probability,
            judge=self.name,
            reason="; ".join(_said(verdict) for verdict in verdicts),
            frames=tuple(sorted({number for v in verdicts for number in v.frames})),
            cost=Cost(
                seconds=sum(cost.seconds for cost in costs),
                requests=sum(cost.requests for cost in costs),
                prompt_tokens=sum(cost.prompt_tokens for cost in costs),
                completion_tokens=sum(cost.completion_tokens for cost in costs),
                # a sum with one unknown price is unknown
                dollars=sum(dollars) if len(dollars) == len(costs) else None,
            ),
        )

    def combine_tables(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """The panel's verdict table from the members' (``tables.py``), in the first one's order.

        Raises MismatchError if they are not about the same rollouts.
        """
        import pandas as pd

        from worldeval.data.tables import VERDICT_COLUMNS
        from worldeval.judging.tables import MADE, row_of, verdicts_of

        asked = [set(table["key"]) for table in tables]
        differing = sorted(set.union(*asked) - set.intersection(*asked))
        if differing:
            raise MismatchError(
                f"the judges of a panel were asked about different rollouts: {differing[0]!r} is "
                "not in every table; judge the same store with all of them"
            )
        of_members = [{verdict.key: verdict for verdict in verdicts_of(table)} for table in tables]
        rows = [
            row_of(self.combine([by_key[facts["key"]] for by_key in of_members]), facts)
            for facts in tables[0].to_dict("records")
        ]
        table = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
        table.attrs = {MADE: tables[0].attrs.get(MADE, "{}")}
        return table

    def _decision(self, verdicts: Sequence[Verdict]) -> tuple[Outcome, float | None]:
        if self.rule == "mean":
            return mean_probability(verdicts, self.weights)
        outcome, share = majority([verdict.outcome for verdict in verdicts])
        if self.rule == "unanimous" and len({verdict.outcome for verdict in verdicts}) > 1:
            outcome = Outcome.UNDECIDED
        return outcome, share


def majority(outcomes: Sequence[Outcome]) -> tuple[Outcome, float | None]:
    """What most of the votes say, and the share of them for success; None without votes.

    Only SUCCESS and FAILURE are votes. UNDECIDED on a tie or without any.
    """
    votes = [outcome for outcome in outcomes if outcome.decided]
    if not votes:
        return Outcome.UNDECIDED, None
    share = votes.count(Outcome.SUCCESS) / len(votes)
    return _against_half(share), share


def mean_probability(
    verdicts: Sequence[Verdict], weights: Sequence[float]
) -> tuple[Outcome, float | None]:
    """The weighted mean of the probabilities of success, and what it says against 1/2.

    A verdict without a probability counts as 1 or 0 by its outcome; one that has neither, and an
    error, does not count. UNDECIDED at 1/2 (within rounding) or where none counts.
    """
    total = weight = 0.0
    for verdict, own in zip(verdicts, weights, strict=True):
        value = verdict.probability
        if value is None and verdict.outcome.decided:
            value = float(verdict.outcome == Outcome.SUCCESS)
        if value is not None and verdict.outcome != Outcome.ERROR:
            total, weight = total + own * value, weight + own
    if not weight:
        return Outcome.UNDECIDED, None
    return _against_half(total / weight), total / weight


def _against_half(share: float) -> Outcome:
    if abs(share - 0.5) < 1e-9:
        return Outcome.UNDECIDED
    return Outcome.SUCCESS if share > 0.5 else Outcome.FAILURE


def _said(verdict: Verdict) -> str:
    known = "" if verdict.probability is None else f" ({verdict.probability:.2f})"
    why = f": {verdict.reason}" if verdict.reason else ""
    return f"{verdict.judge} says {verdict.outcome.value}{known}{why}"
