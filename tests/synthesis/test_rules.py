"""The rules keep what they say, in any order; a new one is one file; the funnel adds up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from worldeval.errors import ConfigError, DataError
from worldeval.synthesis.rules import Chosen, Rule, chosen_rule, known_rules
from worldeval.synthesis.selecting import select
from worldeval.synthesis.tables import Tables, with_advantage


def tables(**columns: object) -> Tables:
    """Six rollouts of two tasks; ``columns`` replace those that there are."""
    keys = list("abcdef")
    made: dict[str, object] = {
        "key": keys,
        "task": ["open"] * 3 + ["close"] * 3,
        "instruction": ["open it", "open it", "please open it", *["close it"] * 3],
        "group": ["1", "1", "1", "2", "2", "3"],
        "noise": [0.0, 0.1, 0.1, 0.0, 0.1, 0.0],
        "outcome": ["success", "success", "failure", "success", "undecided", "success"],
        "probability": [0.95, 0.7, 0.2, 0.85, 0.5, np.nan],
    }
    made.update(columns)
    line = np.linspace(0, 1, 9)[:, None] * np.ones(4)
    paths = {key: line * (0.5 + 0.1 * i) for i, key in enumerate(keys)}
    return Tables(rollouts=pd.DataFrame(made), paths=paths)


def kept(text: str, given: Tables) -> list[str]:
    return list(chosen_rule(text)(given).index)


def test_success_needs_a_verdict_and_confidence() -> None:
    assert kept("success", tables()) == ["f", "a", "d"]  # no probability: the verdict alone counts
    assert kept("success?threshold=0.5", tables()) == ["f", "a", "d", "b"]


def test_advantage_is_over_what_the_policy_itself_does_there() -> None:
    table = with_advantage(tables().rollouts).set_index("key")
    assert table.loc["b", "value"] == 0.95  # of the one without noise
    assert table.loc["a", "value"] == pytest.approx(0.45)  # of the others, all with noise
    assert np.isnan(table.loc["f", "value"])  # tried once, and not judged
    assert table.loc["d", "value"] == 0.5


def test_advantage_keeps_the_best_of_each_start_above_the_margin() -> None:
    given = Tables(rollouts=with_advantage(tables().rollouts), paths={})
    assert kept("advantage", given) == ["a", "d"]
    assert kept("advantage?margin=0.4", given) == ["a"]


def test_one_try_per_start_has_no_advantage() -> None:
    given = tables(group=list("123456"))
    with pytest.raises(ConfigError, match="each varied start was tried once; give --samples 4"):
        kept("advantage", Tables(rollouts=with_advantage(given.rollouts), paths={}))


def test_near_copies_lose_the_less_sure_one_but_not_for_other_words() -> None:
    given = tables()
    same = Tables(rollouts=given.rollouts, paths=dict.fromkeys("abcdef", given.paths["a"]))
    assert kept("distinct", same) == ["a", "d", "c"]
    assert len(kept("distinct?least=0", same)) == 6
    assert len(kept("distinct", given)) == 6


def test_quotas_of_tasks_and_instructions() -> None:
    assert kept("quota?per_task=1", tables()) == ["a", "d"]
    assert kept("quota?per_instruction=1", tables()) == ["a", "d", "c"]
    assert len(kept("quota", tables())) == 6


def test_trust_progress_artefacts_and_labels_read_their_column() -> None:
    given = tables(
        trusted=pd.array([True, False, None, True, True, False], dtype="boolean"),
        distrust=[0.3, 0.9, 0.5, 0.1, 0.2, 0.8],
        progress=[1.0, 0.9, 0.1, 0.8, np.nan, 0.5],
        artefacts=[0.0, 0.5, 0.1, 0.2, 0.0, 0.05],
        label=["success", "failure", "undecided", "success", "", "success"],
    )
    assert kept("trust", given) == ["d", "e", "a"]
    assert kept("progress", given) == ["a", "b", "d"]
    assert sorted(kept("artefacts", given)) == ["a", "c", "e", "f"]
    assert kept("labels", given) == ["a", "d", "f"]


def test_the_funnel_counts_per_task_what_is_left() -> None:
    funnel = select(tables(), [chosen_rule("success"), chosen_rule("quota?per_task=1")])
    counts = funnel.counts()
    assert list(counts.columns) == ["imagined", "judged", "judged a success", "within the quota"]
    assert counts.loc["open"].tolist() == [3, 3, 1, 1]
    assert counts.loc["close"].tolist() == [3, 2, 2, 1]
    assert counts.loc["all"].tolist() == [6, 5, 3, 2]
    assert funnel.kept == ["a", "d"]
    assert funnel.lost_at("b") == "judged a success" and funnel.lost_at("f") == "within the quota"
    assert funnel.scores_of("a") == {
        "success?threshold=0.8": 0.95,
        "quota?per_task=1&per_instruction=null": 1.0,
    }


def test_a_selection_of_nothing_says_where_it_got_lost() -> None:
    funnel = select(tables(), [chosen_rule("success?threshold=1"), chosen_rule("quota?per_task=1")])
    assert funnel.kept == ["f"]
    none = select(tables(probability=0.1), [chosen_rule("success"), chosen_rule("quota")])
    said = "6 imagined, 5 judged, 0 judged a success, 0 within the quota"
    assert none.why_nothing() == (
        f"nothing survived the selection: {said} (rule success?threshold=0.8)"
    )


def test_without_rules_everything_is_kept() -> None:
    assert select(tables(), []).kept == list("abcdef")


@pytest.mark.parametrize("name", known_rules())
def test_every_rule_can_be_given_nothing(name: str) -> None:
    given = tables(
        trusted=True, distrust=0.1, progress=1.0, artefacts=0.0, label="success",
        value=0.5, advantage=0.5,
    ).only(())  # fmt: skip
    assert len(chosen_rule(name)(given)) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sucess", "there is no rule 'sucess' to select by, did you mean 'success'?"),
        ("success?treshold=0.9", "has no setting 'treshold', did you mean 'threshold'?"),
        (
            "success?threshold=high",
            "rule 'success\\?threshold=high': threshold is 'high'",
        ),
        ("success?threshold", "rule 'success\\?threshold': cannot read 'threshold'"),
        ("trust?x=1", "rule 'trust' has no setting 'x'; it has none"),
        ("quota?per_task=1.5", "per_task is 1.5, expected a whole number or null"),
    ],
)
def test_a_rule_that_is_none_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen_rule(text)


@pytest.mark.parametrize(
    "text",
    ["success?threshold=7", "quota?per_task=0", "distinct?least=-1", "artefacts?most=2"],
)
def test_settings_out_of_range_are_sentences(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        chosen_rule(text)


def test_a_rule_that_makes_up_rollouts_is_refused() -> None:
    rule = Rule("bad", "bad", (), lambda tables: pd.Series({"z": 1.0}))
    with pytest.raises(DataError, match=r"rule bad kept \['z'\]"):
        select(tables(), [Chosen(rule, {})])
