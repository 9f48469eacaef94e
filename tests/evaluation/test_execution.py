"""Workers, shards, gathering, resuming and the status of runs: equal results, each rollout once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from worldeval import cli
from worldeval.data.atomic import WriterLock
from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.execution import parts
from worldeval.evaluation.execution.parts import held_keys
from worldeval.evaluation.execution.status import status
from worldeval.rollout import engine
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.worlds.toy import toy_starts

POLICIES = """
from worldeval.worlds.toy import ToyPolicy

class Good(ToyPolicy):
    def __init__(self, robot):
        super().__init__(robot=robot, name="good", mistakes=0.3)

class Bad(ToyPolicy):
    def __init__(self, robot):
        super().__init__(robot=robot, name="bad", mistakes=0.7, clumsiness=0.3)
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The options of a toy evaluation, but for its folder."""
    (tmp_path / "toys.py").write_text(POLICIES)
    suite = tmp_path / "suite.json"
    Suite(name="s", robot="toy", chunks=4, starts=toy_starts(count=5), seed=3).save(suite)
    policies = [f"--policy=python:{tmp_path / 'toys.py'}:{name}" for name in ("Good", "Bad")]
    return [*policies, "--world=toy", f"--suite={suite}", "--batch=4", "--threads=1"]


def ran(verb: str, *words: str | Path) -> None:
    assert cli.main([verb, *map(str, words)]) == 0


def films(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """Key -> the bytes of each view's film."""
    store = EpisodeStore.open(folder)
    found = {}
    for number in range(len(store)):
        own = store.own_films(number)
        assert own is not None
        found[store.facts(number)["key"]] = tuple(path.read_bytes() for path in own)
    return found


def same(one: Path, other: Path) -> None:
    """Equal tables, byte for byte, and equal films."""
    a, b = (rollout_table(EpisodeStore.open(folder)) for folder in (one, other))
    pd.testing.assert_frame_equal(a, b)
    assert films(one) == films(other)
    for name in ("verdicts.parquet", "truth.parquet"):
        tables = [folder / name for folder in (one, other)]
        assert tables[0].is_file() == tables[1].is_file()
        if tables[0].is_file():
            texts = [pd.read_parquet(table).to_csv(index=False) for table in tables]
            assert texts[0] == texts[1]


def test_two_workers_make_what_one_process_makes(tmp_path: Path, words: list[str]) -> None:
    ran("evaluate", *words, "--out", tmp_path / "one")
    ran("evaluate", *words, "--out", tmp_path / "two", "--workers=2")
    same(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "two" / ".parts").exists()
    boards = [json.loads((tmp_path / n / "leaderboard.json").read_text()) for n in ("one", "two")]
    assert boards[0] == boards[1]


def test_shards_make_what_one_process_makes(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ran("evaluate", *words, "--out", tmp_path / "one")
    many = tmp_path / "many"
    for number in (3, 1, 2):
        ran("evaluate", *words, "--out", many, f"--shard={number}/3")
    assert "20 of 20 rollouts, all made" in capsys.readouterr().out
    ran("evaluate", *words, "--out", many)
    same(tmp_path / "one", many)


def test_a_shard_that_never_ran_is_made_by_the_command_without_shards(
    tmp_path: Path, words: list[str]
) -> None:
    ran("rollout", *words, "--out", tmp_path / "one")
    ran("rollout", *words, "--out", tmp_path / "many", "--shard=2/2")
    ran("rollout", *words, "--out", tmp_path / "many")
    assert films(tmp_path / "one") == films(tmp_path / "many")


def test_more_shards_than_rollouts_leave_some_with_none(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = [*words[1:], "--per-task=1", f"--out={tmp_path / 'run'}"]
    ran("rollout", *few, "--shard=3/3")
    assert "shard-3-of-3 has no rollouts" in capsys.readouterr().out
    ran("rollout", *few, "--shard=3/3", "--workers=2")


def test_folders_of_machines_without_a_common_disk_are_gathered(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ran("rollout", *words, "--out", tmp_path / "one")
    for number in (1, 2):
        ran("rollout", *words, "--out", tmp_path / f"machine-{number}", f"--shard={number}/2")
    taken = [f"--from={tmp_path / f'machine-{number}'}" for number in (2, 1)]
    ran("gather", tmp_path / "all", *taken)
    ran("gather", tmp_path / "all", *taken)  # nothing twice
    same(tmp_path / "one", tmp_path / "all")
    ran("rollout", *words, "--out", tmp_path / "other", "--chunks=3", "--shard=1/2")
    assert cli.main(["gather", str(tmp_path / "all"), f"--from={tmp_path / 'other'}"]) == 2
    assert "suite.chunks is 3" in capsys.readouterr().err


def cost_of(folder: Path) -> tuple[float | None, int]:
    found = status(folder)
    return found.cost, found.paid


def test_what_every_machine_took_is_told_once_of_what_is_gathered(
    tmp_path: Path, words: list[str]
) -> None:
    one, two, both = (tmp_path / name for name in ("one", "two", "all"))
    for number, folder in enumerate((one, two), 1):
        ran("rollout", *words, "--out", folder, f"--shard={number}/2", "--price-per-hour=3600")
    prices = [cost_of(folder) for folder in (one, two)]
    expected = sum(cost or 0.0 for cost, _ in prices), sum(paid for _, paid in prices)
    assert expected[1] == 20
    ran("gather", both, "--from", two, "--from", one)
    assert cost_of(both) == pytest.approx(expected)
    ran("gather", both, "--from", two, "--from", one)
    ran("gather", tmp_path / "third", "--from", both, "--from", one)
    shutil.copytree(two, tmp_path / "copy")
    ran("gather", tmp_path / "third", "--from", tmp_path / "copy")
    assert cost_of(both) == cost_of(tmp_path / "third") == pytest.approx(expected)
    ran("rollout", *words, "--out", two, "--price-per-hour=3600")  # it makes the others too
    more = cost_of(two)
    ran("gather", both, "--from", two)
    assert cost_of(both)[0] == pytest.approx((prices[0][0] or 0.0) + (more[0] or 0.0))


def test_of_earlier_versions_what_was_taken_is_told_once_too(
    tmp_path: Path, words: list[str]
) -> None:
    for number in (1, 2):
        folder = tmp_path / f"machine-{number}"
        ran("rollout", *words, "--out", folder, f"--shard={number}/2", "--price-per-hour=1")
        manifest = json.loads((folder / "run.json").read_text())
        for entry in manifest["spent"]:
            del entry["id"]
        (folder / "run.json").write_text(json.dumps(manifest))
    machines = [f"--from={tmp_path / f'machine-{number}'}" for number in (1, 2)]
    for _ in range(2):
        ran("gather", tmp_path / "all", *machines)
        spent = json.loads((tmp_path / "all" / "run.json").read_text())["spent"]
        assert [one["by"] for one in spent] == ["shard-1-of-2", "shard-2-of-2"]


def test_what_a_killed_process_took_is_told_once(tmp_path: Path, words: list[str]) -> None:
    """Before the run goes on, after it, and where its folder is gathered."""
    here = [*words, "--price-per-hour=3600"]
    ran("rollout", *here, "--per-task=1", "--out", tmp_path / "run")
    first = cost_of(tmp_path / "run")
    beat = {"name": "all", "host": "gone", "pid": 7, "began": 1000.0, "now": 1050.0, "made": 3}
    beat |= {"done": 3, "total": 20, "doing": "good", "workers": 1, "ended": False}
    beat |= {"price_per_hour": 3600.0}
    (tmp_path / "run" / ".progress-all.json").write_text(json.dumps(beat))
    killed = (first[0] or 0.0) + 50.0, first[1] + 3
    assert cost_of(tmp_path / "run") == pytest.approx(killed)
    ran("gather", tmp_path / "all", "--from", tmp_path / "run")
    ran("gather", tmp_path / "all", "--from", tmp_path / "run")
    assert cost_of(tmp_path / "all") == pytest.approx(killed)
    ran("rollout", *here, "--out", tmp_path / "run")
    spent = json.loads((tmp_path / "run" / "run.json").read_text())["spent"]
    assert [one["wall_s"] for one in spent][1] == 50.0 and len(spent) == 3
    assert cost_of(tmp_path / "run")[1] == 23  # the killed one's three were made again here
    ran("gather", tmp_path / "all", "--from", tmp_path / "run")
    assert cost_of(tmp_path / "all") == pytest.approx(cost_of(tmp_path / "run"))


def test_what_was_taken_until_ctrl_c_is_told_too(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = engine._Run._end

    def interrupted(self: Any, episode: Any, error: Any = None) -> None:
        end(self, episode, error)
        if episode.extra["start_id"].endswith("0004"):
            raise KeyboardInterrupt

    out = [*words, "--out", str(tmp_path / "run"), "--price-per-hour=3600"]
    with monkeypatch.context() as patched:
        patched.setattr(engine._Run, "_end", interrupted)
        assert cli.main(["rollout", *out]) == 130
    cost, paid = cost_of(tmp_path / "run")
    assert cost and paid >= 4
    ran("rollout", *out)
    spent = json.loads((tmp_path / "run" / "run.json").read_text())["spent"]
    assert [one["by"] for one in spent] == ["all", "all"] and spent[0]["id"] != spent[1]["id"]


@pytest.mark.parametrize("given", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_shards_that_are_none_are_refused(
    tmp_path: Path, words: list[str], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["rollout", *words, f"--out={tmp_path / 'r'}", f"--shard={given}"]) == 2
    assert "expected I/N" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_run_is_resumed_from_any_folder_and_its_status_told(
    tmp_path: Path,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    ran("rollout", *words, "--out=run", "--shard=1/2", "--price-per-hour=3")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    ran("status", out)
    told = capsys.readouterr().out
    assert f"{out}: 10 of 20 rollouts, nobody at work (`worldeval resume {out}`" in told
    assert "per rollout" in told
    ran("resume", out)
    ran("status", out)
    assert "20 of 20 rollouts, all made" in capsys.readouterr().out
    ran("rollout", *words, "--out", tmp_path / "one")
    assert films(tmp_path / "one") == films(out)
    spent = json.loads((out / "run.json").read_text())["spent"]
    assert [one["by"] for one in spent] == ["shard-1-of-2", "all"]
    parts = {"policy", "model", "decode", "write", "engine"}
    assert all(parts == set(one["seconds"]) for one in spent)


def test_options_are_read_back_from_a_run(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ran("rollout", *words, "--out", tmp_path / "one")
    kept = f"--config={tmp_path / 'one' / 'run.json'}"
    ran("rollout", kept, "--out", tmp_path / "two")
    assert films(tmp_path / "one") == films(tmp_path / "two")
    ran("rollout", kept, "--out", tmp_path / "three", "--per-task=1", "--policy=random")
    made = rollout_table(EpisodeStore.open(tmp_path / "three"))
    assert set(made["policy"]) == {"good", "bad", "random"} and len(made) == 6
    assert cli.main(["evaluate", kept]) == 2
    assert "keeps no options of `worldeval evaluate` (but of rollout)" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert "has no run.json" in capsys.readouterr().err


DAMAGES = {
    "spent[0].workers is missing": {"spent": [{"by": "all", "wall_s": 1.0}]},
    "spent is 'much', expected a list": {"spent": "much"},
    "plan is 'all', expected a list": {"extra": {"plan": "all"}},
    "plan[0].starts is missing": {"extra": {"plan": [{"policies": ["a"]}]}},
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_account_of_a_run_is_named(
    tmp_path: Path, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = {"format": "worldeval-run-1", **DAMAGES[told]}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert cli.main(["status", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "run.json' is damaged" in error and told in error


def test_a_beat_that_is_none_of_ours_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"format": "worldeval-run-1"}))
    beat = {"name": "all", "host": "h", "pid": 1, "began": "long ago", "now": 1e12, "made": 1}
    beat |= {"done": 1, "total": 2, "doing": "p", "workers": 1, "ended": False}
    (tmp_path / ".progress-all.json").write_text(json.dumps(beat))
    ran("status", tmp_path)
    assert "nobody at work" in capsys.readouterr().out


SLOW = """
import time
from worldeval.worlds.toy import ToyPolicy

class Slow(ToyPolicy):
    def __init__(self, robot):
        super().__init__(robot=robot, name="slow", mistakes=0.3)

    def act(self, observations):
        time.sleep(0.1)
        return super().act(observations)
"""


def children(pid: int) -> list[int]:
    """Worker processes of a head."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in found}
    return [one for one, line in lines.items() if b"spawn_main" in line]


def until(ready: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not ready():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_gathering_that_was_killed_while_it_removed_parts_leaves_no_half_of_one(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["rollout", *words, "--out", tmp_path / "run"]
    for lost in ("meta", "data"):

        def some(place: Path, lost: str = lost, **_: object) -> None:
            shutil.rmtree(place / lost)
            raise KeyboardInterrupt

        ran(*run, "--per-task=1", "--shard=1/2")
        with monkeypatch.context() as killed:
            killed.setattr(parts, "shutil", SimpleNamespace(rmtree=some))
            assert cli.main([*map(str, run), "--per-task=1"]) == 130
        ran("status", tmp_path / "run")
        ran(*run, "--shard=1/2")
        ran(*run)
        assert not (tmp_path / "run" / ".parts").exists()
        shutil.rmtree(tmp_path / "run")


def test_a_run_is_read_while_its_parts_are_gathered(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for number in (1, 2):
        ran("rollout", *words, f"--shard={number}/2", "--out", run)
    listed = parts.stores_of_run

    def and_then_gathered(folder: Path) -> list[Path]:
        found = listed(folder)
        monkeypatch.setattr(parts, "stores_of_run", listed)
        ran("gather", run)
        return found

    monkeypatch.setattr(parts, "stores_of_run", and_then_gathered)
    assert len(held_keys(run)) == 20 and not (run / ".parts").exists()


def test_a_part_whose_writer_lives_on_stays_until_it_does_not(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_RELEASE_S", 0.2)
    run = tmp_path / "run"
    ran("rollout", *words, "--shard=1/2", "--out", run)
    lock = WriterLock(run / ".parts" / "shard-1-of-2" / ".writer.lock")
    lock.acquire()
    ran("rollout", *words, "--out", run)
    assert (run / ".parts" / "shard-1-of-2" / "meta").exists()
    lock.release()
    ran("rollout", *words, "--out", run)
    assert not (run / ".parts").exists()
    ran("rollout", *words, "--out", tmp_path / "one")
    assert films(tmp_path / "one") == films(run)


def test_a_killed_worker_and_an_ended_head_lose_nothing(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "toys.py").write_text(SLOW)
    words = [f"--policy=python:{tmp_path / 'toys.py'}:Slow", *words[2:]]
    out = tmp_path / "run"
    given = ["rollout", *words, "--batch=1", f"--out={out}", "--workers=2"]
    printed = tmp_path / "printed"
    with printed.open("w") as lines:
        head = subprocess.Popen(
            [sys.executable, "-u", "-m", "worldeval", *given],
            stdout=lines,
            stderr=subprocess.PIPE,
            text=True,
        )
    until(lambda: len(held_keys(out)) >= 1, head)
    os.kill(children(head.pid)[0], signal.SIGKILL)
    before = len(held_keys(out))
    until(lambda: len(held_keys(out)) >= before + 2, head)
    # On a busy machine the other worker is faster than the head, which then has yet to notice.
    until(lambda: "a worker died (killed by SIGKILL" in printed.read_text(), head)
    head.send_signal(signal.SIGTERM)
    _, told = head.communicate(timeout=100)
    assert head.returncode == 130 and "rollouts of this run are kept" in told
    assert 0 < len(held_keys(out)) < 10
    ran("resume", out, "--workers=1")
    ran("rollout", *words, "--out", tmp_path / "one")
    assert films(tmp_path / "one") == films(out)
