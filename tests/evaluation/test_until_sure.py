"""Rollouts until the order is sure: right, no more than needed, and the same after a stop."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError, PolicyError
from worldeval.evaluation.stopping import Stopping, StoppingRule, mixed_rounds
from worldeval.evaluation.until_sure import SureReport, replay_until_sure, run_until_sure
from worldeval.judging.tables import kept_verdicts
from worldeval.rollout.engine import run
from worldeval.rollout.recording import open_rollouts
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.types import Episode, Outcome, Verdict
from worldeval.worlds.toy import ToyPolicy, ToyWorld, toy_robot, toy_starts

ROBOT = toy_robot(views=("top", "front"), image_size=(16, 16), steps_per_frame=6)
SUITE = Suite(name="s", robot="toy", chunks=1, starts=toy_starts(count=12))
RULE = StoppingRule(round_starts=8, alpha=0.2)


def policies(**mistakes: float) -> list[ToyPolicy]:
    """Policies of known true success rates, 1 - mistakes."""
    return [ToyPolicy(robot=ROBOT, name=name, mistakes=m) for name, m in mistakes.items()]


FIELD = {"best": 0.0, "middle": 0.5, "worst": 1.0}


def new_store(folder: Path) -> EpisodeStore:
    return open_rollouts(folder, ROBOT, images="lossless")


def sure(store: EpisodeStore, field: dict[str, float] = FIELD, **options: Any) -> SureReport:
    settings: dict[str, Any] = {"rule": RULE, "progress": False, **options}
    suite = settings.pop("suite", SUITE)
    return run_until_sure(ToyWorld(robot=ROBOT), policies(**field), suite, store, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeStore, SureReport]:
    store = new_store(tmp_path_factory.mktemp("whole"))
    return store, sure(store)


def test_the_order_is_right_and_rollouts_are_saved(whole: tuple[EpisodeStore, SureReport]) -> None:
    store, report = whole
    assert report.order == (("best",), ("middle",), ("worst",))
    assert not report.undecided and len(report.decisions) == 3
    assert report.possible == 3 * 24 and 0 < report.saved < report.possible
    held = Counter(key.partition("/")[0] for key in store.keys)
    assert held == report.used  # what is counted is what is in the store: nothing done in vain
    assert report.rollouts == len(store)
    # Of an early finished policy nothing is rolled out any more.
    assert all(count % RULE.round_starts == 0 for count in held.values())
    text = str(report)
    assert "best > middle > worst" in text and f"{report.saved} saved" in text
    low, high = report.differences["best", "worst"]
    assert low == -1 and high < -0.4
    json.dumps(report.to_json())


def test_every_round_has_an_equal_share_of_each_task(
    whole: tuple[EpisodeStore, SureReport],
) -> None:
    table = rollout_table(whole[0])
    counts = table.groupby(["policy", "task"]).size().unstack()
    assert (counts["touch-red"] == counts["touch-green"]).all()


def test_interrupted_anywhere_it_goes_on_to_the_same_end(
    tmp_path: Path, whole: tuple[EpisodeStore, SureReport]
) -> None:
    class Interrupted(ToyPolicy):
        """Ctrl-C at its n-th rollout."""

        left = 3

        def act(self, observations: Any) -> np.ndarray:
            Interrupted.left -= len(observations)
            if Interrupted.left < 0:
                raise KeyboardInterrupt
            return super().act(observations)

    store, stops = new_store(tmp_path), 0
    for calls in (3, 9, 17):
        Interrupted.left = calls
        field = [
            Interrupted(robot=ROBOT, name=name, mistakes=mistakes)
            for name, mistakes in FIELD.items()
        ]
        try:
            run_until_sure(
                ToyWorld(robot=ROBOT), field, SUITE, store, rule=RULE, batch=3, progress=False
            )
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3 and 0 < len(store) < len(whole[0])
    assert sure(store) == whole[1]
    assert store.keys == whole[0].keys


def test_what_was_rolled_out_before_is_used(
    tmp_path: Path, whole: tuple[EpisodeStore, SureReport]
) -> None:
    store = new_store(tmp_path)
    for policy in policies(**FIELD):
        run(ToyWorld(robot=ROBOT), policy, SUITE, store, batch=8, progress=False)
    held = set(store.keys)
    assert sure(store) == whole[1] == replay_until_sure(rollout_table(store), RULE)
    assert store.keys == held


def test_equals_use_up_the_suite_and_stay_undecided(tmp_path: Path) -> None:
    suite = dataclasses.replace(SUITE, starts=toy_starts(count=4))
    report = sure(new_store(tmp_path), {"a": 0.5, "b": 0.5}, suite=suite)
    assert report.undecided == (("a", "b"),) and report.saved == 0
    assert report.order == (("a", "b"),)
    assert "(a, b)" in str(report) and "a and b: rate of b minus a -" in str(report)
    assert report.differences["a", "b"].low < 0 < report.differences["a", "b"].high
    assert report.notes == ()


def test_the_undecided_enters_no_comparison(tmp_path: Path) -> None:
    def half_blind(store: EpisodeStore) -> pd.DataFrame:
        table = rollout_table(store)
        blind = (table["policy"] == "best") & (table["task"] == "touch-red")
        return table.assign(outcome=table["outcome"].where(~blind, Outcome.UNDECIDED.value))

    seen: list[int] = []
    report = sure(
        new_store(tmp_path),
        {"best": 0.0, "worst": 1.0},
        verdicts=half_blind,
        on_round=lambda plan, made: seen.append(plan.state.compared("best", "worst")),
    )
    assert seen == [0, 4, 8] and report.used == {"best": 16, "worst": 16}
    assert report.unknown == 8 and "8 of these 32 rollouts are undecided" in " ".join(report.notes)


def test_a_judge_is_asked_once_about_each_rollout(tmp_path: Path) -> None:
    class Marks:
        name, asked = "marks", 0

        def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
            self.asked += len(episodes)
            return [
                Verdict(
                    key=episode.key,
                    outcome=Outcome.SUCCESS if episode.success else Outcome.FAILURE,
                    probability=None,
                    judge=self.name,
                )
                for episode in episodes
            ]

    judge, store = Marks(), new_store(tmp_path)
    report = sure(store, {"good": 0.0, "bad": 0.4}, verdicts=lambda s: kept_verdicts(judge, s))
    assert report.order == (("good",), ("bad",)) and len(report.used) == 2
    assert judge.asked == len(store) == report.rollouts > 16  # more than one round


def test_readers_are_told_that_rates_are_biased(whole: tuple[EpisodeStore, SureReport]) -> None:
    decided, biased = whole[1].notes
    assert "(start states of 24: best " in decided and "80% or more: best > middle" in decided
    assert "biased towards the decision" in biased and "letters" in biased


def test_a_policy_may_fail_in_a_whole_later_round(tmp_path: Path) -> None:
    """One that has worked once is not taken for broken: its errors are kept, and are unknown."""

    class Tiring(ToyPolicy):
        asked = 0

        def act(self, observations: Any) -> np.ndarray:
            self.asked += len(observations)
            if self.asked > RULE.round_starts:
                raise RuntimeError("tired")
            return super().act(observations)

    suite = dataclasses.replace(SUITE, starts=toy_starts(count=8))
    field = [
        Tiring(robot=ROBOT, name="tiring", mistakes=0.5),
        *policies(other=0.5),
    ]
    report = run_until_sure(
        ToyWorld(robot=ROBOT), field, suite, new_store(tmp_path), rule=RULE, progress=False
    )
    assert report.unknown == 8 and report.rollouts == 32


def test_nothing_known_is_told_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "blind")
    world = ToyWorld(robot=ROBOT, truth=False)
    with pytest.raises(ConfigError, match="none of the 24 rollouts .*give a judge"):
        run_until_sure(world, policies(**FIELD), SUITE, store, rule=RULE, progress=False)
    assert len(store) == 24  # one round, not the suite
    with pytest.raises(DataError, match="have no verdict, the first begins at 'touch-"):
        sure(new_store(tmp_path / "mute"), verdicts=lambda store: rollout_table(store).iloc[1:])
    with pytest.raises(ConfigError, match="expected two or more"):
        sure(new_store(tmp_path / "one"), {"alone": 0.1})
    with pytest.raises(PolicyError):
        broken = ToyPolicy(robot=ROBOT, name="broken")
        broken.act = lambda observations: np.zeros(3)  # type: ignore[method-assign]
        run_until_sure(
            ToyWorld(robot=ROBOT),
            [broken, *policies(fine=0.0)],
            SUITE,
            new_store(tmp_path / "broken"),
            rule=RULE,
            progress=False,
        )


def table_of(outcomes: dict[str, list[int]], tasks: int = 2) -> pd.DataFrame:
    """A verdict table: policy -> outcomes of its start states; 2 is undecided."""
    words = (Outcome.FAILURE, Outcome.SUCCESS, Outcome.UNDECIDED)
    return pd.DataFrame(
        [
            {"policy": name, "task": f"t{i % tasks}", "start_id": f"t{i % tasks}/{i}"}
            | {"outcome": words[value].value}
            for name, values in outcomes.items()
            for i, value in enumerate(values)
        ]
    )


def test_a_replay_needs_every_start_of_every_policy() -> None:
    table = table_of({"a": [1] * 6, "b": [0] * 6})
    with pytest.raises(MismatchError, match="1 verdicts are missing, .* 'b' .*'t1/5'"):
        replay_until_sure(table.iloc[:-1])


def test_the_best_alone_takes_fewer_rollouts_than_the_order() -> None:
    """Two that are hard to tell apart do not matter to who looks for the best."""
    rng = np.random.default_rng(0)
    names = {"best": 0.95, "low": 0.3, "lower": 0.25, "lowest": 0.2}
    table = table_of({n: (rng.random(60) < rate).astype(int).tolist() for n, rate in names.items()})
    order, best = (replay_until_sure(table, StoppingRule(goal=goal)) for goal in ("order", "best"))
    assert best.order == (("best",), ("low", "lower", "lowest")) and not best.undecided
    assert "The best is decided" in str(best) and best.saved > order.saved
    assert len(order.order) == 2 and "3 of 6 pairs are decided" in str(order)
    assert json.loads(json.dumps(best.to_json()))["rule"]["goal"] == "best"
    assert "best > (low, lower, lowest)" in best.notes[0]


def test_the_family_wise_error_of_replays_stays_below_alpha() -> None:
    """Three equal policies and a worse one that shares their luck; tasks of unequal difficulty."""
    rng, wrong, decided = np.random.default_rng(0), 0, 0
    rule = StoppingRule(alpha=0.2, round_starts=10)
    task_rates = np.tile([0.2, 0.8], 30)
    for _ in range(30):
        luck = np.where(rng.random((4, 60)) < 0.5, rng.random(60), rng.random((4, 60)))
        solved = luck < task_rates - np.array([[0.0], [0.0], [0.0], [0.2]])
        table = table_of(dict(zip("abcd", solved.astype(int).tolist(), strict=True)))
        report = replay_until_sure(table, rule)
        wrong += any(d.worse != "d" for d in report.decisions)
        decided += len(report.decisions)
    assert decided > 30 and wrong <= 6  # 30 * 0.2; in expectation it is far below


def test_rounds_hold_every_start_once_and_every_task_in_its_share() -> None:
    tasks = {f"{t}/{i:02d}": t for t in ("red", "green", "blue") for i in range(10)}
    rounds = mixed_rounds(tasks, StoppingRule(round_starts=4))
    assert sorted(s for starts in rounds for s in starts) == sorted(tasks)
    assert [len(starts) for starts in rounds] == [6] * 5  # four, rounded up to whole turns
    assert all(Counter(tasks[s] for s in starts).values().__len__() == 3 for starts in rounds)
    assert all(set(Counter(tasks[s] for s in starts).values()) == {2} for starts in rounds)
    # The order of the suite is no matter; that of the seed is.
    backwards = dict(reversed(tasks.items()))
    assert mixed_rounds(backwards, StoppingRule(round_starts=4)) == rounds
    assert mixed_rounds(tasks, StoppingRule(round_starts=4, seed=1)) != rounds


def test_a_task_with_few_starts_is_spread_over_the_rounds() -> None:
    tasks = {f"many/{i:02d}": "many" for i in range(40)} | {f"few/{i}": "few" for i in range(5)}
    rounds = mixed_rounds(tasks, StoppingRule(round_starts=8))
    few = [sum(tasks[s] == "few" for s in starts) for starts in rounds]
    assert sum(few) == 5 and max(few) <= 2 and few.count(0) <= 1


def test_the_plan_asks_for_what_is_missing_only() -> None:
    tasks = {f"t/{i}": "t" for i in range(4)}
    plan = Stopping(["a", "b"], tasks, StoppingRule(round_starts=2))
    first = plan.rounds[0]
    known = {("a", first[0]): Outcome.SUCCESS}
    assert plan.wanted(known) == {"a": [first[1]], "b": list(first)}
    assert plan.advance(known) == [] and plan.done == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"goal": "worst"}, r"goal is 'worst', expected one of \['order', 'best'\]"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"round_starts": 0}, "round is 0"),
    ],
)
def test_impossible_rules(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        StoppingRule(**changes)


def test_the_toy_policies_are_as_good_as_they_say(
    whole: tuple[EpisodeStore, SureReport],
) -> None:
    table = rollout_table(whole[0])
    rates = table.groupby("policy")["outcome"].apply(lambda o: (o == "success").mean())
    assert rates["best"] == 1 and rates["worst"] == 0 and 0.3 < rates["middle"] < 0.7
