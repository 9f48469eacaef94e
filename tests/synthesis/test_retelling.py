import numpy as np
import pandas as pd

from worldeval.synthesis.retelling import REWORDED, retold
from worldeval.synthesis.tables import Tables

SAID = {"open": ("open the drawer", "pull the handle"), "close": ("close the drawer",)}


def tables(count: int, *, asked: bool = True) -> Tables:
    rows = [
        {"key": f"p/{task}/{i}", "task": task, "instruction": f"please {words[i % len(words)]}",
         "asked": words[i % len(words)]}
        for task, words in SAID.items() for i in range(count)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return Tables(rollouts=frame if asked else frame.drop(columns="asked"), paths={})


def test_words_are_those_of_the_task_and_half_of_them_reworded() -> None:
    rows = retold(tables(400)).rollouts
    known = {words for said in SAID.values() for words in said}
    assert abs((~rows["instruction"].isin(known)).mean() - REWORDED) < 0.06
    opening = rows[rows["task"] == "open"]["instruction"]
    assert not opening.str.contains("close").any()
    shares = [(opening == words).mean() / (1 - REWORDED) for words in SAID["open"]]
    np.testing.assert_allclose(shares, 0.5, atol=0.09)


def test_what_is_drawn_depends_on_the_rollout_and_not_on_those_beside_it() -> None:
    whole = retold(tables(20)).rollouts.set_index("key")["instruction"]
    other = tables(20).rollouts.sample(frac=1, random_state=0)
    shuffled = retold(Tables(rollouts=other, paths={})).rollouts.set_index("key")["instruction"]
    assert whole.to_dict() == shuffled.to_dict()


def test_rollouts_that_say_nothing_else_are_known_by_what_they_were_told() -> None:
    rows = retold(tables(50, asked=False)).rollouts
    assert rows["instruction"].str.contains("drawer|handle").all()
    assert rows["instruction"].nunique() > 5
