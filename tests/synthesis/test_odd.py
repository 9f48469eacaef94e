"""Episodes that stand out by their length, their jerk, or because nothing moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldeval.synthesis.diagnosis.odd import find_odd, jerk, standstill


def made(paths: dict[str, np.ndarray], task: str = "push") -> pd.DataFrame:
    table = pd.DataFrame({"key": list(paths), "task": task})
    return find_odd(table, paths, fps=10).set_index("key")


def smooth(length: int = 30, seed: int = 0) -> np.ndarray:
    times = np.linspace(0, 1, length)[:, None]
    return 0.1 + 0.5 * times**2 + 0.01 * seed * times


def test_a_parabola_has_no_jerk_and_a_cubic_six_times_its_factor() -> None:
    times = np.arange(20)[:, None] / 10
    assert jerk(times**2, fps=10) == pytest.approx(0, abs=1e-8)
    assert jerk(2 * times**3, fps=10) == pytest.approx(12)
    assert jerk(np.concatenate([times**3, times**3], 1), fps=10) == pytest.approx(6 * 2**0.5)
    assert np.isnan(jerk(times[:3], fps=10)), "not known of three frames"


def test_a_standstill_is_told_as_its_share_wherever_it_lies() -> None:
    moving = np.linspace(0, 1, 11)[:, None]
    assert standstill(moving) == 0 and standstill(moving[:1]) == 0
    assert standstill(np.zeros((11, 3))) == 1
    still = np.full((10, 1), 0.5)
    for path in ([still, 0.5 + moving[1:]], [0.5 - moving[::-1][:-1], still]):
        assert standstill(np.concatenate(path)) == pytest.approx(9 / 19)
    drift = np.arange(1001)[:, None] * 1e-3
    assert standstill(drift) < 0.01, "slow is not still: it is measured from where the run began"


def test_what_is_far_from_the_others_of_its_task_is_told() -> None:
    paths = {f"push/{i}": smooth(30 + i % 3, i) for i in range(12)}
    paths["push/long"], paths["push/short"] = smooth(70), smooth(8)
    paths["push/still"] = np.concatenate([smooth(10), np.repeat(smooth(10)[-1:], 21, 0)])
    paths["push/jerky"] = smooth() + np.random.default_rng(0).normal(0, 0.05, (30, 1))
    found = made(paths)
    told = found["flags"][found["flags"] != ""]
    assert set(told.index) == {"push/long", "push/short", "push/still", "push/jerky"}
    assert told["push/long"] == "long: 70 frames, 31 are usual for push"
    assert told["push/short"].startswith("short: 8 frames")
    assert "standing still for 70 % of it in one piece" in told["push/still"]
    assert told["push/jerky"].startswith("jerky: ")


def test_each_task_has_its_own_usual_and_few_episodes_have_none() -> None:
    paths = {f"a/{i}": smooth(20) for i in range(8)} | {f"b/{i}": smooth(60) for i in range(8)}
    table = pd.DataFrame({"key": list(paths), "task": [key[0] for key in paths]})
    assert set(find_odd(table, paths, fps=10)["flags"]) == {""}
    few = {"a/0": smooth(20), "a/1": smooth(20), "a/2": smooth(90)}
    assert set(made(few)["flags"]) == {""}


def test_a_frame_more_than_all_others_is_not_odd() -> None:
    paths = {f"push/{i}": smooth(30) for i in range(9)} | {"push/9": smooth(31)}
    assert set(made(paths)["flags"]) == {""}


def test_no_episodes_give_an_empty_table() -> None:
    found = find_odd(pd.DataFrame({"key": [], "task": []}), {}, fps=10)
    assert len(found) == 0 and list(found) == ["key", "task", "length", "jerk", "still", "flags"]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 9))
def test_every_episode_gets_a_row_whatever_its_path(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = made({str(i): rng.uniform(size=(n, 2)) for i, n in enumerate(lengths)})
    assert list(found["length"]) == lengths
    assert found["still"].between(0, 1).all()
    assert (found["jerk"].isna() == (found["length"] < 4)).all()


def test_a_store_is_looked_at_without_its_gripper(tmp_path: Path) -> None:
    from tests.apps.conftest import write_rollouts
    from worldeval import odd_episodes

    store = write_rollouts(tmp_path / "store", starts=3)
    found = odd_episodes(tmp_path / "store")
    assert list(found["key"]) == store.metadata()["key"].tolist()
    assert (found["length"] == 17).all() and (found["still"] < 0.3).all()
