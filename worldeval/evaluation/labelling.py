"""People label the rollouts of an evaluation, without knowing whose they are.

Enters: a folder of rollouts, verdicts and trust where there are some, and what a rater says.
Leaves: ``labels.csv`` in the folder, one line a label, written at once; who else labels at the same
time loses nothing. `worldeval judge --judge human:labels.csv` and `worldeval calibrate --truth
labels.csv` take it.

First come the rollouts of which judge and trust are least sure: a label teaches most there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.data.tables import DECIDED, DISTRUST, TRUSTED
from worldeval.errors import ConfigError, WorldEvalError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.judging.human import WITHDRAWN, Label, append_label, blind_id, read_labels
from worldeval.types import Outcome

if TYPE_CHECKING:
    from worldeval.judge_calibration.raters import RaterAgreement

LABELS = "labels.csv"
"""In the folder of the evaluation."""
MOST_CHARACTERS = 1000
"""Of a comment, and of a rater's name."""


@dataclass(frozen=True, kw_only=True)
class ToLabel:
    """A rollout as a rater sees it: nothing here tells the policy.

    blind: its name for raters (``judging.human.blind_id``). unsure: 0 where judge and trust are
    sure, up to 2 where neither is.
    """

    blind: str
    task: str
    instruction: str
    unsure: float


class Labelling:
    """The rollouts of an evaluation as a queue for raters.

    seed: of the order among rollouts of which one is as unsure. Made anew it sees new rollouts;
    labels are read when they are asked for.
    """

    def __init__(self, evaluation: Evaluation | str | Path, *, seed: int = 0) -> None:
        if not isinstance(evaluation, Evaluation):
            evaluation = Evaluation.open(evaluation)
        self.evaluation = evaluation
        self.path = evaluation.folder / LABELS
        unsure = _unsure(evaluation)
        self._keys: dict[str, str] = {}
        items = []
        for place, row in _rows(evaluation):
            key = str(row["key"])
            blind = blind_id(key)
            self._keys[blind] = key
            doubt = unsure.get(key, 2.0)
            items.append(
                (
                    -round(doubt, 1),
                    hashlib.sha256(f"{seed}/{key}".encode()).hexdigest(),
                    ToLabel(
                        blind=blind,
                        task=str(row["task"]),
                        instruction=str(row["instruction"]),
                        unsure=doubt,
                    ),
                    place,
                )
            )
        items.sort(key=lambda item: item[:2])
        self.items: tuple[ToLabel, ...] = tuple(item for _, _, item, _ in items)
        self._stores = {item.blind: place for _, _, item, place in items}

    def where(self, blind: str) -> tuple[Path, str]:
        """Store and key of a rollout: for who shows its pictures, not for who rates them.

        Raises ConfigError for a name that no rollout has.
        """
        if blind not in self._keys:
            raise ConfigError(
                f"no rollout of {self.evaluation.folder} has the blind name {blind!r}; take one "
                "from the queue"
            )
        return self._stores[blind], self._keys[blind]

    def labels(self) -> list[Label]:
        """All that stand, in the order in which they were given."""
        return read_labels(self.path) if self.path.is_file() else []

    def said_by(self, rater: str) -> dict[str, Label]:
        """Blind name -> this rater's last label that stands."""
        known = {key: blind for blind, key in self._keys.items()}
        found = {}
        for label in self.labels():
            name = label.rollout[0]
            blind = name if name in self._keys else known.get(name)
            if label.rater == rater and len(label.rollout) == 1 and blind is not None:
                found[blind] = label
        return found

    def queue(self, rater: str) -> list[ToLabel]:
        """What this rater has not labelled yet, the least sure first."""
        done = self.said_by(rater)
        return [item for item in self.items if item.blind not in done]

    def label(
        self,
        blind: str,
        outcome: Outcome | str,
        *,
        rater: str,
        credit: float | None = None,
        artefact: bool = False,
        comment: str = "",
    ) -> None:
        """Write down what a rater says of a rollout; said again, it replaces what was said.

        credit: share of the task that was solved, where it was in part. artefact: the pictures show
        what cannot be. Raises ConfigError for what is no label.
        """
        self.where(blind)
        for what, text in (("comment", comment), ("rater's name", rater)):
            if len(text) > MOST_CHARACTERS:
                raise ConfigError(
                    f"the {what} has {len(text)} characters, expected {MOST_CHARACTERS} at most"
                )
        append_label(
            self.path,
            key=blind,
            rater=rater,
            outcome=outcome,
            reason=comment,
            credit=credit,
            artefact=artefact,
        )

    def undo(self, rater: str) -> str | None:
        """Take this rater's newest label back; the blind name of its rollout, None without one."""
        mine = [label for label in self.labels() if label.rater == rater]
        mine = [label for label in mine if label.rollout[0] in self._keys]
        if not mine:
            return None
        blind = mine[-1].rollout[0]
        append_label(self.path, key=blind, rater=rater, outcome=WITHDRAWN)
        return blind

    def agreement(self) -> RaterAgreement | None:
        """Cohen's kappa of every two raters and alpha over all; None with fewer than two."""
        from worldeval.judge_calibration.raters import agreement_of_raters

        known = {key: blind for blind, key in self._keys.items()}
        said: dict[str, dict[Any, Outcome]] = {}
        for label in self.labels():
            name = label.rollout[0]
            said.setdefault(label.rater, {})[known.get(name, name)] = label.outcome
        return agreement_of_raters(said) if len(said) > 1 else None


def _rows(evaluation: Evaluation) -> list[tuple[Path, Mapping[str, Any]]]:
    """Every rollout but those that ended in an error, and the store it lies in."""
    from worldeval.data.store.episodes import EpisodeStore

    rows = []
    for place in evaluation.stores:
        store = EpisodeStore.open(place)
        if len(store):
            for row in store.metadata().to_dict("records"):
                if row.get("outcome") != Outcome.ERROR.value:
                    rows.append((place, row))
    return rows


def _unsure(evaluation: Evaluation) -> dict[str, float]:
    """Key -> how near the judge's probability is to a half (0 to 1), and, added to it, the rank of
    its distrust among all (0 to 1; 1 for what is not trusted). Of what nobody judged nothing."""
    try:
        verdicts = evaluation.verdicts
        trust = evaluation.trust
    except WorldEvalError:  # not judged, or of other rollouts: then all are as unsure
        return {}
    doubts = {}
    for row in verdicts.to_dict("records"):
        probability = row.get("probability")
        known = probability is not None and probability == probability
        doubt = 1.0
        if str(row["outcome"]) in DECIDED:
            doubt = 1 - abs(2 * float(probability) - 1) if known else 0.0
        doubts[str(row["key"])] = doubt
    if trust is not None and "key" in trust.columns:
        ranks = trust[DISTRUST].rank(pct=True).fillna(1.0)
        for key, rank, trusted in zip(trust["key"], ranks, trust[TRUSTED], strict=True):
            if str(key) in doubts:
                doubts[str(key)] += float(rank) if trusted else 1.0
    return doubts
