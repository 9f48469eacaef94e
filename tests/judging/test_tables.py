import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.judging.conftest import walk
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import VERDICT_COLUMNS, read_parquet
from worldeval.errors import DataError, MismatchError, StoreError
from worldeval.judging.tables import (
    FOLDER,
    check_current,
    judge_store,
    kept_path,
    kept_verdicts,
    verdicts_of,
)
from worldeval.types import Cost, Episode, Outcome, Verdict

MakeStore = Callable[..., EpisodeStore]


class Fixed:
    """Says success of what went where it was told to, and counts how often it was asked."""

    def __init__(self, name: str = "fixed") -> None:
        self.name, self.asked = name, 0

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        self.asked += len(episodes)
        return [
            Verdict(
                key=episode.key,
                outcome=Outcome.SUCCESS if episode.success else Outcome.UNDECIDED,
                probability=0.75 if episode.success else None,
                judge=self.name,
                reason="looked",
                frames=(1, 3, 5),
                cost=Cost(seconds=2.0, requests=1, prompt_tokens=90, completion_tokens=10,
                          dollars=0.25 if episode.success else None),
            )
            for episode in episodes
        ]  # fmt: skip


def test_a_row_holds_all_of_a_verdict_and_gives_it_back(
    make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store("s", range(1, 5))  # 16 episodes: two lots, asked together
    table = judge_store(Fixed(), store, tmp_path / "deep" / "verdicts.parquet")
    assert table.columns.tolist() == list(VERDICT_COLUMNS)
    assert table["key"].tolist() == [store.episode(i).key for i in range(16)]
    assert set(table["frames"]) == {"1 3 5"} and set(table["tokens"]) == {100}
    assert set(table["policy"]) == {"p"} and set(table["world"]) == {"recorded"}
    assert table["dollars"].isna().sum() == 8 == table["probability"].isna().sum()
    assert table["dollars"].sum() == 8 * 0.25
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "deep" / "verdicts.parquet"), table)

    back = verdicts_of(table)
    one = next(verdict for verdict in back if verdict.outcome is Outcome.SUCCESS)
    assert one.frames == (1, 3, 5) and one.probability == 0.75 and one.reason == "looked"
    assert one.cost == Cost(seconds=2.0, prompt_tokens=100, dollars=0.25)
    other = next(verdict for verdict in back if verdict.outcome is Outcome.UNDECIDED)
    assert other.probability is None and other.cost.dollars is None


def test_no_judge_is_asked_twice_and_none_overwrites_another(make_store: MakeStore) -> None:
    store = make_store("s", range(1, 2))
    first, second = Fixed("first@1"), Fixed("second: with a name, no file")
    tables = [kept_verdicts(judge, store) for judge in (first, second, first, second)]
    assert first.asked == second.asked == 4
    pd.testing.assert_frame_equal(tables[0], tables[2])
    kept = sorted(path.name for path in (store.root / "verdicts").iterdir())
    assert len(kept) == 2 and kept[0] == "first@1.parquet"

    # A rollout more: only this one is judged. A table of fewer columns: all are judged again.
    path = kept_path(first.name, store.root)
    tables[0][tables[0]["key"] != tables[0]["key"][0]].to_parquet(path)
    pd.testing.assert_frame_equal(kept_verdicts(first, store), tables[0])
    assert first.asked == 5
    tables[0].drop(columns="frames").to_parquet(path)
    pd.testing.assert_frame_equal(
        kept_verdicts(first, store).drop(columns="seconds"), tables[0].drop(columns="seconds")
    )
    assert first.asked == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "banana"}, "row 1 of .* has the outcome 'banana', expected one of"),
        ({"outcome": None}, "has the outcome"),
        ({"probability": 1.5}, r"row 1 of .* has probability 1.5, expected a number in \[0, 1\]"),
        ({"probability": float("inf")}, "has probability inf"),
        ({"key": "recorded/left/left/1"}, "has 'recorded/left/left/1' more than once"),
    ],
)
def test_a_kept_table_that_no_judge_writes_is_refused(
    make_store: MakeStore, change: dict[str, object], message: str
) -> None:
    store, judge = make_store("s", range(1, 2)), Fixed()
    table = kept_verdicts(judge, store)
    assert "recorded/left/left/1" in set(table["key"])
    table.assign(**change).to_parquet(kept_path(judge.name, store.root))
    with pytest.raises(DataError, match=message):
        kept_verdicts(judge, store)
    assert judge.asked == 4


def test_names_of_judges_become_different_files(tmp_path: Path) -> None:
    names = ["a b", "a/b", "a-b", "a:b", "../../a-b", "x" * 300, "x" * 301]
    paths = {kept_path(name, tmp_path) for name in names}
    assert len(paths) == len(names)
    assert all(path.parent == tmp_path / "verdicts" for path in paths)
    assert all(len(path.name) < 120 for path in paths)


def test_a_judge_must_answer_what_it_was_asked(make_store: MakeStore, tmp_path: Path) -> None:
    class Backwards(Fixed):
        def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
            return super().judge(episodes)[::-1]

    with pytest.raises(DataError, match="one verdict an episode, in the same order"):
        judge_store(Backwards(), make_store("s", range(1, 2)), tmp_path / "v.parquet")
    assert not (tmp_path / "v.parquet").exists()


def test_an_empty_store_gives_an_empty_table(make_store: MakeStore) -> None:
    table = kept_verdicts(Fixed(), make_store("s", range(0)))
    assert table.columns.tolist() == list(VERDICT_COLUMNS) and not len(table)
    assert verdicts_of(table) == []


def test_what_cannot_be_read_or_written_is_said(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(np.arange(9).tobytes())
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as a parquet table"):
        read_parquet(tmp_path / "t.parquet")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write the verdict table"):
        judge_store(Fixed(), make_store("s", range(1, 2)), tmp_path / "file" / "v.parquet")


def test_rollouts_that_were_made_anew_are_judged_anew(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Fixed()
    store = make_store("s", range(1, 2))
    kept_verdicts(judge, store)
    verdicts = store.root / FOLDER
    aside = store.root.with_name("aside")
    verdicts.rename(aside)
    shutil.rmtree(store.root)
    again = make_store("s", range(1, 2))
    aside.rename(again.root / FOLDER)
    kept_verdicts(judge, again)
    assert judge.asked == 4  # the same content
    again.root.joinpath(FOLDER).rename(aside)
    shutil.rmtree(again.root)
    store = EpisodeStore.create(
        again.root, **{n: v for n, v in vars(again.layout).items() if n != "extra"}
    )
    for number in range(4):
        episode = again_episode(number)
        store.append(episode)
    store.close()
    aside.rename(store.root / FOLDER)
    kept = read_parquet(kept_path(judge.name, store.root))
    with pytest.raises(MismatchError, match="holds other rollouts .*run `worldeval judge"):
        check_current(kept, store.root)
    table = kept_verdicts(judge, store)
    assert judge.asked == 8 and len(table) == 4
    check_current(table, store.root)
    assert not caplog.records


def again_episode(number: int) -> Episode:
    """The episodes of ``make_store("s", range(1, 2))`` by name, with another picture."""
    task, to = (("left", "right")[number // 2], ("left", "right")[number % 2])
    episode = walk(f"recorded/{task}/{to}/1", task=task, to=to, row=1)
    episode.frames[3, 0, 0, 0] = 255
    return episode


def test_a_table_of_the_version_before_is_used_and_said(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    judge, store = Fixed(), make_store("s", range(1, 2))
    table = kept_verdicts(judge, store)
    table.attrs = {}
    table.to_parquet(kept_path(judge.name, store.root), index=False)
    kept_verdicts(judge, store)
    assert judge.asked == 4
    assert "4 verdicts of fixed" in caplog.text and "cannot be checked" in caplog.text
    check_current(read_parquet(kept_path(judge.name, store.root)), store.root)


def test_a_judge_of_the_same_name_with_other_settings_is_asked(make_store: MakeStore) -> None:
    judge, store = Fixed(), make_store("s", range(1, 2))
    for digest, asked in (("a", 4), ("a", 4), ("b", 8), ("b", 8)):
        judge.digest = digest  # type: ignore[attr-defined]
        kept_verdicts(judge, store)
        assert judge.asked == asked
