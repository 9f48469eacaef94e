from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError
from worldeval.judging.panel import Panel, majority
from worldeval.judging.tables import judge_store
from worldeval.types import Cost, Episode, Outcome, Verdict

S, F, U, E = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED, Outcome.ERROR


class Member:
    """Says the same of every rollout."""

    def __init__(
        self, name: str, outcome: Outcome = U, probability: float | None = None, **more: Any
    ) -> None:
        self.name, self.outcome, self.probability, self.more = name, outcome, probability, more

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        return [self.say(episode.key) for episode in episodes]

    def say(self, key: str = "k") -> Verdict:
        return Verdict(key=key, outcome=self.outcome, probability=self.probability,
                       judge=self.name, **self.more)  # fmt: skip


def verdict_of(*said: Outcome | tuple[Outcome, float | None], **settings: Any) -> Verdict:
    members = [
        Member(str(number), *(what if isinstance(what, tuple) else (what, None)))
        for number, what in enumerate(said)
    ]
    return Panel(members, **settings).combine([member.say() for member in members])


@pytest.mark.parametrize("outcomes", list(product((S, F, U, E), repeat=3)))
def test_every_vote_of_three(outcomes: tuple[Outcome, ...]) -> None:
    """Majority and unanimity against their definitions, for all 64 ways to vote."""
    yes, no = outcomes.count(S), outcomes.count(F)
    by_majority = S if yes > no else F if no > yes else U
    unanimous = outcomes[0] if len(set(outcomes)) == 1 else U
    if not yes + no and E in outcomes:
        by_majority = unanimous = E
    assert verdict_of(*outcomes).outcome is by_majority
    assert verdict_of(*outcomes, rule="unanimous").outcome is unanimous
    share = verdict_of(*outcomes).probability
    assert share == (yes / (yes + no) if yes + no else None)
    assert verdict_of(*outcomes, quorum=2).outcome is (U if yes + no == 1 else by_majority)
    # Without probabilities the mean is that of the votes.
    assert verdict_of(*outcomes, rule="mean").outcome is by_majority
    assert verdict_of(*outcomes, rule="mean").probability == share


def test_a_tie_abstains() -> None:
    assert verdict_of(S, F).outcome is U and verdict_of(S, F).probability == 0.5
    assert verdict_of(S, F, U, S, F).outcome is U
    tied = verdict_of((S, 0.8), (F, 0.2), rule="mean")
    assert tied.outcome is U and tied.probability == pytest.approx(0.5)
    assert verdict_of((S, 0.8), (F, 0.21), rule="mean").outcome is S


def test_the_mean_weighs_probabilities_and_takes_votes_for_certain() -> None:
    said = ((S, 0.9), (F, 0.3), (F, None), (E, None), (U, None))
    verdict = verdict_of(*said, rule="mean")
    assert verdict.probability == pytest.approx((0.9 + 0.3 + 0) / 3) and verdict.outcome is F
    verdict = verdict_of(*said, rule="mean", weights=(6, 1, 1, 9, 9))
    assert verdict.probability == pytest.approx((6 * 0.9 + 0.3) / 8) and verdict.outcome is S
    undecided = verdict_of((U, 0.6), (F, 0.45), rule="mean")  # who abstains still leans
    assert undecided.probability == pytest.approx(0.525) and undecided.outcome is S
    nobody = verdict_of((U, 0.6), (U, 0.7), rule="mean")
    assert nobody.outcome is U and nobody.probability == pytest.approx(0.65)


def test_it_says_who_said_what_and_adds_up_the_cost() -> None:
    members = [
        Member("eye@1", S, 0.93, reason="0.93 of the way at frame 28", frames=(4, 28),
               cost=Cost(seconds=1.0, dollars=0.0)),
        Member("ear@2", F, None, frames=(2, 4),
               cost=Cost(seconds=2.5, requests=3, prompt_tokens=40, completion_tokens=2,
                         dollars=0.5)),
        Member("nose@3", S),
    ]  # fmt: skip
    two = Panel(members[:2]).combine([member.say() for member in members[:2]])
    assert two.reason == (
        "eye@1 says success (0.93): 0.93 of the way at frame 28; ear@2 says failure"
    )
    assert two.frames == (2, 4, 28) and two.judge == "majority(eye@1, ear@2)"
    assert two.cost == Cost(seconds=3.5, requests=3, prompt_tokens=40, completion_tokens=2,
                            dollars=0.5)  # fmt: skip
    three = Panel(members).combine([member.say() for member in members])
    assert three.cost.dollars is None  # nobody knows what the nose took
    assert three.cost.seconds == 3.5


def test_the_name_tells_members_rule_and_weights() -> None:
    a, b = Member("a"), Member("b")
    assert Panel([a, b], rule="unanimous").name == "unanimous(a, b)"
    assert Panel([a, b], rule="mean", weights=(2, 0.5)).name == "mean(a, b) x 2,0.5"
    assert Panel([a, b], quorum=2).name == "majority of 2(a, b)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": "a"}, "expected two judges or more"),
        ({"members": "aa"}, "asks one judge twice"),
        ({"rule": "median"}, "rule is 'median'"),
        ({"quorum": 0}, "quorum is 0"),
        ({"quorum": 3}, "quorum is 3"),
        ({"weights": (1, 1)}, "weights belong to the rule 'mean'"),
        ({"rule": "mean", "weights": (1,)}, "expected 2 numbers above 0"),
        ({"rule": "mean", "weights": (1, 0)}, "expected 2 numbers above 0"),
        ({"rule": "mean", "weights": (1, float("nan"))}, "expected 2 numbers above 0"),
    ],
)
def test_what_is_no_panel_is_refused(settings: dict[str, Any], message: str) -> None:
    members = [Member(name) for name in settings.pop("members", "ab")]
    with pytest.raises(ConfigError, match=message):
        Panel(members, **settings)


def test_verdicts_of_others_are_refused() -> None:
    a, b = Member("a"), Member("b")
    panel = Panel([a, b])
    with pytest.raises(MismatchError, match="expected one of each"):
        panel.combine([b.say(), a.say()])
    with pytest.raises(MismatchError, match="on the same rollout"):
        panel.combine([a.say("k"), b.say("l")])


def test_tables_combine_as_judging_together_does(make_store: Callable[..., EpisodeStore]) -> None:
    class Told(Member):
        """Right about one task only."""

        def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
            right = [S if e.success or e.task != self.name else F for e in episodes]
            return [
                Verdict(key=e.key, outcome=o, probability=0.9 if o is S else 0.2, judge=self.name)
                for e, o in zip(episodes, right, strict=True)
            ]

    store = make_store("s", range(1, 4))
    members = [Told("left"), Told("right")]
    panel = Panel(members, rule="mean")
    tables = [judge_store(member, store) for member in members]
    together = judge_store(panel, store)
    shuffled = tables[1].sample(frac=1, random_state=0)
    joined = panel.combine_tables([tables[0], shuffled])
    for column in together.columns:
        assert np.array_equal(joined[column], together[column], equal_nan=column in (
            "probability", "dollars")), column  # fmt: skip
    assert set(joined["outcome"]) == {"success"} or joined["outcome"].nunique() == 2
    with pytest.raises(MismatchError, match="asked about different rollouts"):
        panel.combine_tables([tables[0], shuffled[1:]])


def test_majority_alone() -> None:
    assert majority([]) == (U, None) == majority([U, E])
    assert majority([S, S, F]) == (S, 2 / 3)
