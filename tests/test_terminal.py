"""Whatever names hold and wherever the output goes: nothing moves the terminal, no work is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from worldeval import cli
from worldeval.terminal import Terminal, guarded_streams, printable

NASTY = "\x1b[5mblink\x1b]0;owned\x07\x9b2J\u202ereversed\udcff\x00"


def run(
    *words: str, shell: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``worldeval doctor --json``-like commands in a process of their own, with a redirection."""
    line = " ".join([f'exec "{sys.executable}" -m worldeval', *words, shell])
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=60,
    )


def test_codes_show_as_question_marks_and_text_as_it_is() -> None:
    assert printable(NASTY) == "?[5mblink?]0;owned??2J?reversed??"
    for text in ("käse 的 🤖 é", "plain", ""):
        assert printable(text) == text
    assert printable("a\nb\r", keep="\n") == "a\nb?"


def test_commands_print_no_codes_and_progress_bars_move(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with guarded_streams():
        print(NASTY, "10\u00a0%\tof", end="\n")
        print("\r50%|x|", NASTY, file=sys.stderr, end="")
    shown = capsys.readouterr()
    assert shown.out == f"{printable(NASTY)} 10\u00a0%\tof\n"
    assert shown.err == f"\r50%|x| {printable(NASTY)}"
    assert not isinstance(sys.stdout, Terminal), "the streams are put back"


@pytest.mark.parametrize("stream", ["sys.stdout", "sys.stderr", "sys.__stdout__"])
def test_a_stream_that_a_stranger_closes_takes_text_again(stream: str) -> None:
    code = (
        "import os, sys; from worldeval.terminal import guarded_streams\n"
        "with guarded_streams() as (out, err):\n"
        f"    kept = os.dup({stream}.fileno()); {stream}.close()\n"
        "    os.dup2(kept, 2 if 'err' in sys.argv[1] else 1)\n"  # as the guard of policies does
        "    print('out', flush=True); print('err', file=sys.stderr)\n"
        "    assert out.lost is None and err.lost is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code, stream], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_an_ascii_terminal_shows_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as file:
        Terminal(file).write("näme 的 85 %\n")
    assert path.read_bytes() == b"n?me ? 85 %\n"
    done = run("rollout", "--help", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_harm_nothing(closed: str) -> None:
    done = run("--version", shell=closed)
    assert done.returncode == 0
    assert done.stderr == ""
    assert run("rolout", shell=closed).returncode == 2


def test_a_closed_output_is_not_the_first_file_that_is_opened(tmp_path: Path) -> None:
    """Else what a library prints lands in it."""
    code = (
        "import os, sys\nfrom worldeval import terminal\nterminal.fill_descriptors()\n"
        f"number = os.open({str(tmp_path / 'precious')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "sys.exit(number <= 2)"
    )
    done = subprocess.run(["bash", "-c", f'exec "{sys.executable}" -c "$0" >&- 2>&-', code])
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_the_output_is_one_sentence() -> None:
    done = run("--version", shell=">/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("worldeval: the work is done, but standard output took no more")
    assert "No space left on device" in done.stderr and done.stderr.count("\n") == 1
    assert run("--version", shell="2>/dev/full").returncode == 0


def test_a_reader_that_went_away_ends_no_work(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom worldeval import terminal\n"
        "with terminal.guarded_streams():\n"
        "    for _ in range(20_000): print('a line')\n"
        f"    open({str(tmp_path / 'done')!r}, 'w').close()\n"
    )
    line = f'"{sys.executable}" -c "$0" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line, code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line\n", "")
    assert (tmp_path / "done").exists()


def test_names_from_data_move_no_terminal_and_no_browser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Policies, tasks, judges and files with codes: ranked, calibrated, refused."""
    script = "<script>alert(1)</script>"
    rows = [
        {
            "key": f"{policy}/{task}/{k}",
            "policy": policy,
            "task": task,
            "start_id": f"{task}/{k}",
            "world": "w\x1b[2J",
            "judge": "judge\x1b[5m",
            "outcome": "success" if (k + len(policy)) % 3 else "failure",
            "probability": 0.5,
        }
        for policy in ("p\x1b[31m", script)
        for task in ("a", "b\x1b]0;owned\x07")
        for k in range(6)
    ]
    table = tmp_path / "verdicts.parquet"
    pd.DataFrame(rows).to_parquet(table)
    truth = tmp_path / "truth.parquet"
    pd.DataFrame(rows).assign(judge="truth").to_parquet(truth)
    refused = tmp_path / "\x1b[31mmissing"
    for words in (
        ["rank", table, "--against", truth, "--out", tmp_path / "ranked"],
        ["calibrate", table, "--truth", truth, "--out", tmp_path / "calibrated"],
        ["rank", refused, "--out", tmp_path / "no"],
        ["rank", table, "--out", tmp_path / "no", "--nonsense", "\x1b[31m"],
    ):
        code = cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        assert code == (2 if tmp_path / "no" in words else 0), shown.err
        assert printable(shown.out, "\n") == shown.out
        assert printable(shown.err, "\n") == shown.err
    for page in (*tmp_path.glob("*/report.html"), *tmp_path.glob("*/calibration.html")):
        text = page.read_text()
        assert script not in text and "\x1b" not in text, page
