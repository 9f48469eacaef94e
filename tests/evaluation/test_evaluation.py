"""An evaluation as a thing, in the toy world: made, continued, added to, refused, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import worldeval as we
from worldeval import cli
from worldeval.errors import ConfigError, DataError, MismatchError, PolicyError, StoreError
from worldeval.rollout.suite import Suite
from worldeval.worlds.toy import toy_starts

POLICIES = """
from worldeval.worlds.toy import ToyPolicy


class Toy(ToyPolicy):
    def __init__(self, robot, name, mistakes):
        super().__init__(robot=robot, name=name, mistakes=float(mistakes))
"""


def policy(folder: Path, name: str, mistakes: float) -> str:
    (folder / "toys.py").write_text(POLICIES)
    return f"python:{folder / 'toys.py'}:Toy?name={name}&mistakes={mistakes}"


def suite(folder: Path, count: int, chunks: int = 4) -> Path:
    path = folder / f"suite-{count}-{chunks}.json"
    starts = toy_starts(count=count)
    Suite(name=path.stem, robot="toy", chunks=chunks, starts=starts).save(path)
    return path


def evaluate(folder: Path, policies: list[str], starts: int = 3) -> we.Evaluation:
    return we.evaluate(
        policies, out=folder / "run", world="toy", suite=suite(folder, starts), threads=1
    )


def test_it_is_rolled_out_judged_ranked_and_can_be_looked_at(tmp_path: Path) -> None:
    run = evaluate(tmp_path, [policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)])
    assert "good" in repr(run) and "<iframe" in run._repr_html_() and "good" in run._repr_html_()
    assert {name: len(views) for name, views in run.rollouts.items()} == {"good": 6, "bad": 6}
    assert b"ftyp" in run.rollouts["good"][0].video().mp4[:16]
    assert "data:video/mp4" in run.rollouts["good"][0].video()._repr_html_()
    assert len(run.verdicts) == 12 and run.truth is not None and len(run.truth) == 12
    assert run.trust is None
    board = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert [row["name"] for row in board["policies"]] == ["good", "bad"]
    assert run.report().read_text().startswith("<!doctype html>")
    again = we.Evaluation.open(tmp_path / "run")
    pd.testing.assert_frame_equal(again.verdicts, run.verdicts)


def test_policies_and_start_states_are_added_and_nothing_is_made_twice(tmp_path: Path) -> None:
    good, bad = policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)
    evaluate(tmp_path, [good], starts=2)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("data/*/*.parquet")}
    run = evaluate(tmp_path, [bad], starts=2)
    assert {name: len(views) for name, views in run.rollouts.items()} == {"good": 4, "bad": 4}
    run = evaluate(tmp_path, [good, bad], starts=3)
    assert {name: len(views) for name, views in run.rollouts.items()} == {"good": 6, "bad": 6}
    assert files and all(p.stat().st_mtime_ns == then for p, then in files.items())
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert set(config["policies"]) == {good, bad}


def test_what_would_change_finished_results_is_refused(tmp_path: Path) -> None:
    good = policy(tmp_path, "good", 0)
    evaluate(tmp_path, [good])
    with pytest.raises(ConfigError, match=r"begun with policy_names\.good"):
        evaluate(tmp_path, [policy(tmp_path, "good", 1)])
    with pytest.raises(ConfigError, match=r"begun with suite\.chunks = 4, now it is 5"):
        we.evaluate(good, out=tmp_path / "run", world="toy", suite=suite(tmp_path, 3, 5), threads=1)
    # Another code of the same name, while a new policy is added, and after it left for a while.
    evaluate(tmp_path, [f"{policy(tmp_path, 'other', 1)}"])
    (tmp_path / "toys.py").write_text(POLICIES.replace("float(mistakes)", "1.0"))
    with pytest.raises(ConfigError, match="begun with"):
        we.evaluate(good, out=tmp_path / "run", world="toy", suite=suite(tmp_path, 3), threads=1)


def test_a_folder_of_an_earlier_version_is_continued_but_takes_no_other_policy(
    tmp_path: Path,
) -> None:
    good = policy(tmp_path, "good", 0)
    evaluate(tmp_path, [good])
    path = tmp_path / "run" / "run.json"
    manifest = json.loads(path.read_text())
    del manifest["config"]["policy_names"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="begun with policies"):
        evaluate(tmp_path, [good, policy(tmp_path, "bad", 1)])
    evaluate(tmp_path, [good])


def test_truth_is_kept_and_one_of_other_start_states_refused(tmp_path: Path) -> None:
    run = evaluate(tmp_path, [policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)])
    assert run.truth is not None
    table = tmp_path / "truth.csv"
    run.truth[["policy", "task", "start_id", "outcome"]].to_csv(table, index=False)
    run.rank(truth=table)
    assert (tmp_path / "run" / "given-truth.parquet").is_file()
    board = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert board["policies"][0]["true"]["rate"] == 1.0
    with pytest.raises(MismatchError, match="none of the start states"):
        run.rank(truth=run.truth.assign(start_id="elsewhere"))


def test_what_is_no_evaluation_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder"):
        we.Evaluation.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="holds no rollouts"):
        we.Evaluation.open(tmp_path)
    with pytest.raises(ConfigError, match="no policy was given"):
        we.evaluate([], out=tmp_path / "run", world="toy")
    assert not (tmp_path / "run").exists()


def test_rollouts_without_verdicts_say_so(tmp_path: Path) -> None:
    words = ["rollout", "--world", "toy", "--suite", str(suite(tmp_path, 1)), "--threads", "1"]
    words += ["--policy", policy(tmp_path, "good", 0), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    run = we.Evaluation.open(tmp_path / "run")
    assert "not judged yet (good 2)" in repr(run) and "not judged yet" in run._repr_html_()


def test_verdicts_that_cannot_be_used_are_told_where_the_evaluation_is_shown(
    tmp_path: Path,
) -> None:
    run = evaluate(tmp_path, [policy(tmp_path, "good", 0)])
    (tmp_path / "run" / "verdicts.parquet").write_bytes(b"no table")
    assert "verdicts.parquet" in repr(run) and "verdicts.parquet" in run._repr_html_()
    with pytest.raises(DataError):
        run.rank()


def test_a_leaderboard_is_made_once_and_anew_when_the_folder_has_changed(tmp_path: Path) -> None:
    good, bad = policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)
    run = evaluate(tmp_path, [good], starts=2)
    board = run.leaderboard()
    assert run.rank().leaderboard() is board and run.report() and run.leaderboard() is board
    evaluate(tmp_path, [bad], starts=2)  # by somebody else
    assert {row.name for row in run.leaderboard().policies} == {"good", "bad"}


def test_trust_in_the_verdicts_of_another_judge_is_left_out_and_told(tmp_path: Path) -> None:
    run = evaluate(tmp_path, [policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)])
    table = run.verdicts[["key", "policy", "task", "start_id", "judge"]]
    table = table.assign(trusted=True, distrust=0.0)
    table.to_parquet(tmp_path / "run" / "trust.parquet", index=False)
    assert run.leaderboard().trust is not None
    table.assign(judge="another").to_parquet(tmp_path / "run" / "trust.parquet", index=False)
    board = run.rank().leaderboard()
    assert board.trust is None
    assert any("cannot be told" in note and "another" in note for note in board.notes)
    with pytest.raises(MismatchError, match="worldeval trust"):
        _ = run.trust


def test_a_report_shows_the_surest_rollouts_and_leaves_the_store_as_it_is(tmp_path: Path) -> None:
    run = evaluate(tmp_path, [policy(tmp_path, "good", 0), policy(tmp_path, "bad", 1)])
    assert "data:video/mp4" in run.report().read_text()
    assert list((tmp_path / "run" / "clips").glob("*.mp4"))
    assert cli.main(["store", "verify", str(tmp_path / "run")]) == 0


BUG = """

class Buggy(Toy):
    def act(self, observations):
        raise ValueError("bug")
"""


def test_a_policy_that_made_nothing_may_be_mended(tmp_path: Path) -> None:
    good, buggy = policy(tmp_path, "good", 0), f"python:{tmp_path / 'mine.py'}:Buggy?name=b"
    (tmp_path / "mine.py").write_text(POLICIES + BUG)
    mistaken = [f"{buggy}&mistakes=0"]
    with pytest.raises(PolicyError, match="bug"):
        evaluate(tmp_path, mistaken)
    with pytest.raises(PolicyError, match="1 of 2 policies gave no rollouts"):
        evaluate(tmp_path, [good, *mistaken], starts=2)  # other settings too: nothing was made
    (tmp_path / "mine.py").write_text(POLICIES + BUG.replace("raise ValueError", "return print"))
    with pytest.raises(PolicyError, match="1 of 2 policies gave no rollouts"):
        evaluate(tmp_path, [good, *mistaken], starts=2)
    (tmp_path / "mine.py").write_text(POLICIES + "\n\nclass Buggy(Toy):\n    pass\n")
    run = evaluate(tmp_path, [good, *mistaken], starts=2)
    assert {name: len(views) for name, views in run.rollouts.items()} == {"good": 4, "b": 4}
    (tmp_path / "mine.py").write_text(POLICIES + BUG)  # now there is something to spoil
    with pytest.raises(ConfigError, match="begun with"):
        evaluate(tmp_path, [good, *mistaken], starts=2)
