"""Thousands of broken inputs: each ends in right values or in one sentence, soon and small.

    .venv/bin/python benchmarks/fuzz.py [--count 2000] [--seed 0] [--work runs/fuzz] [--only store]
    .venv/bin/python benchmarks/fuzz.py --index 1234          one input again, its output shown

Checkpoints, stores, suites, tables, LeRobot datasets (one file changed) and options (one value
odd), drawn from the seed and the number of the input alone. Each runs in a child forked from a
process that has imported everything, one in twenty in a program of its own. Results are kept line
by line in WORK/results.jsonl, and the same command goes on where it stopped; inputs that end
wrongly are kept in WORK/violations/SEED-NUMBER with what they printed.

Limits: 30 s by the clock, and 2 GiB of resident memory, watched from outside twenty times per
second. Not RLIMIT_AS or RLIMIT_DATA: torch and pyarrow map and reserve gigabytes that they never
touch, and an array that is reserved and stays empty costs nothing; what is touched is what a
machine runs out of, and nothing touches 2 GiB between two looks.

    right     done, and the result equals that of the unbroken input
    other     done, and the input says something else now (another number in a table), as it may
    sentence  exit code 2 (or 1, where a verb reports damage) and words for people
    Violations: silent (done or "nothing damaged", with other values), net (a fault, exit code 70),
    traceback, hang, memory, crash, codes (terminal escape codes in what was printed), exit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a child of a fork must not wait for threads

import numpy as np
import psutil
from fuzz_inputs import BASES, KINDS, Words, copy_valid, mutate, odd_command, options_of
from fuzz_valid import make_valid

SECONDS, MEMORY = 30.0, 2 * 2**30
GOOD = ("right", "other", "sentence")
SHARES = {"checkpoint": 4, "store": 4, "suite": 2, "table": 3, "lerobot": 3, "option": 4}
ACT = "rollout --policy world/policies/able --out out --threads 1 --per-task 1 --chunks 1"
RANK = "rank verdicts.parquet --real trials.csv --weights weights.json --out out"
CHECK = "calibrate verdicts.parquet --truth labels.csv --draws 20 --out out"
PREPARE = "--out out --workers 1 --image-size 24 32"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--only", choices=list(SHARES))
    parser.add_argument("--index", type=int)
    options = parser.parse_args()
    fuzz = Fuzz(options.work, options.seed)
    if options.index is not None:
        print(json.dumps(fuzz.one(options.index, show=True), indent=1))
        return 0
    rows = fuzz.all(options.count, options.only)
    print(table(rows))
    return int(any(row["class"] not in GOOD for row in rows))


class Fuzz:
    """Inputs by their number, below a folder that keeps what was found."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work.resolve(), seed
        self.work.mkdir(parents=True, exist_ok=True)
        self.valid = self.work / "valid"
        if not (self.valid / "store" / "verdicts.parquet").is_file():
            shutil.rmtree(self.valid, ignore_errors=True)
            _in_child(lambda: make_valid(self.valid), self.work / "making.txt", 300)
            if not (self.valid / "store" / "verdicts.parquet").is_file():
                raise SystemExit(f"the valid things could not be made: {self.work / 'making.txt'}")
        warm_up()

    def all(self, count: int, only: str | None = None) -> list[dict[str, Any]]:
        kept = self.work / "results.jsonl"
        lines = kept.read_text().splitlines() if kept.is_file() else []
        rows = [row for row in map(json.loads, lines) if row["seed"] == self.seed]
        done = {row["index"] for row in rows}
        with kept.open("a") as file:
            for index in range(count):
                if index in done or (only and target_of(index, self.seed) != only):
                    continue
                rows.append(self.one(index))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                if rows[-1]["class"] not in GOOD:
                    print(
                        index, *(rows[-1][k] for k in ("class", "target", "kind", "what", "said"))
                    )
        return [row for row in rows if row["index"] < count and only in (None, row["target"])]

    def one(self, index: int, show: bool = False) -> dict[str, Any]:
        """Run one input and say how it ended."""
        case = self.work / "case"
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        rng = np.random.default_rng([self.seed, index])
        target = target_of(index, self.seed)
        ended = _in_child(
            lambda: run(self.valid, case, target, rng, real=index % 20 == 7),
            case / "said.txt",
            SECONDS,
        )
        said = (case / "said.txt").read_text(errors="replace")
        note = case / "note.json"
        found = json.loads(note.read_text()) if note.is_file() else {}
        row = {
            "seed": self.seed, "index": index, "target": target, "kind": found.get("kind", "?"),
            "what": found.get("what", "?"), "words": found.get("words", []),
            "class": classed(ended, found, said, self.expected(target, found)),
            "exit": found.get("exit"), "seconds": round(ended["seconds"], 2),
            "mib": round(ended["memory"] / 2**20), "said": " ".join(said.split())[-300:],
        }  # fmt: skip
        if row["class"] not in GOOD:
            place = self.work / "violations" / f"{self.seed}-{index}"
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(exist_ok=True)
            case.rename(place)
            (place / "row.json").write_text(json.dumps(row, indent=1))
        if show:
            print(said)
        return row

    def expected(self, target: str, found: dict[str, Any]) -> Any:
        """What the same words give with nothing broken; run once and kept."""
        if target == "option" or "result" not in found:
            return None
        key = hashlib.sha256(json.dumps([target, found["words"]]).encode()).hexdigest()[:12]
        kept = self.work / f"expected-{key}.json"
        if not kept.is_file():
            case = self.work / "unbroken"
            shutil.rmtree(case, ignore_errors=True)
            case.mkdir()
            words = found["words"]
            _in_child(lambda: unbroken(self.valid, case, target, words), case / "said.txt", 120)
            (case / "note.json").rename(kept)
        return json.loads(kept.read_text())["result"]


def target_of(index: int, seed: int) -> str:
    names = [name for name, share in SHARES.items() for _ in range(share)]
    return str(np.random.default_rng([seed, index, 1]).choice(names))


def warm_up() -> None:
    """Import what verbs import, so that children need not; nothing is run, no thread is begun."""
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import tyro  # noqa: F401

    for name in ("evaluation.demo", "imagination.env", "judging.loading", "policies.loading",
                 "reports.ranking.page", "world_model.prepare"):  # fmt: skip
        import_module(f"worldeval.{name}")
    for verb in BASES:
        options_of(verb)
    torch.set_num_threads(1)


# ------------------------------------------------------------------------- in the child
def run(valid: Path, case: Path, target: str, rng: np.random.Generator, *, real: bool) -> None:
    """Break a copy of the valid things in ``case``, run the command, and note what came of it."""
    copy_valid(valid, case / "in")
    os.chdir(case / "in")
    os.environ["WORLDEVAL_CHECKPOINTS"] = "world"
    os.environ["TMPDIR"] = str(case)
    if target == "option":
        what, words = odd_command(rng)
        kind = words[-1][:40]
    else:
        path, words = choose(target, rng)
        what, kind = str(path), str(rng.choice(KINDS))
        others = [p for p in Path(".").rglob("*") if p.is_file() and p.suffix == path.suffix]
        mutate(path, others, kind, rng)
    _note(case, kind=kind, what=what, words=words)
    carried_out(case, target, words, real=real)


def unbroken(valid: Path, case: Path, target: str, words: Words) -> None:
    copy_valid(valid, case / "in")
    os.chdir(case / "in")
    os.environ["WORLDEVAL_CHECKPOINTS"] = "world"
    _forget(words)
    carried_out(case, target, words, real=False)


def choose(target: str, rng: np.random.Generator) -> tuple[Path, Words]:
    """The file to break, and the words that read it."""

    def any_of(*roots: str) -> Path:
        root = Path(str(rng.choice(list(roots))))
        files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")
        return files[int(rng.integers(len(files)))] if root.is_dir() else root

    if target == "checkpoint":
        parts = ("world-model", "autoencoder", "judge", "policies/able")
        path = any_of(*(f"world/{part}" for part in parts))
        words = ["judge", "store", "--threads", "1"] if "judge" in path.parts else ACT.split()
    elif target == "store":
        verbs = ("store verify store", "store compact store", "judge store --threads 1")
        words = str(rng.choice(verbs)).split()
        _forget(words)
        path = any_of("store/meta", "store/data", "store/videos", "store")
    elif target == "suite":
        path, words = Path("world/suite/suite.json"), ACT.split()
    elif target == "table":
        path = any_of("verdicts.parquet", "trials.csv", "labels.csv", "weights.json")
        words = (CHECK if path.name == "labels.csv" else RANK).split()
    else:
        path = any_of("lerobot/meta", "lerobot/data", "lerobot/videos", "lerobot2")
        words = ["prepare", "--source", path.parts[0], *PREPARE.split()]
    if target == "checkpoint":
        _forget(words)
    return path, words


def _forget(words: Words) -> None:
    """What a judge said before: else it is not asked, and the checkpoint not read."""
    if words[0] == "judge":
        Path("store/verdicts.parquet").unlink()
        shutil.rmtree("store/verdicts")


def carried_out(case: Path, target: str, words: Words, *, real: bool) -> None:
    if real and not any("\0" in word for word in words):
        code = subprocess.run(
            [sys.executable, "-m", "worldeval", *map(os.fsencode, words)]
        ).returncode
    else:
        from worldeval import cli

        code = cli.main(words)
    _note(case, exit=code)
    if code in (0, 1) and target != "option":
        sys.stdout.flush()
        try:
            _note(case, result=RESULTS[target](words))
        except Exception as error:
            _note(case, result=f"unreadable: {type(error).__name__}: {error}")


def _note(case: Path, **facts: Any) -> None:
    path = case / "note.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | facts))


def store_result(words: Words) -> Any:
    """All that a store holds, by key; verdicts where it was judged."""
    from worldeval.data.store.episodes import EpisodeStore

    root = "out" if "out" in words else "store"
    result: dict[str, Any] = {}
    for e in EpisodeStore.open(root):
        arrays = (e.frames, e.poses, e.actions, e.joints, e.success_at)
        digest = hashlib.sha256()
        for array in arrays:
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        plain = bool(np.isfinite(e.poses).all() and np.isfinite(e.actions).all())
        result[e.key] = [e.task, e.instruction, e.success, digest.hexdigest()[:16], plain]
    if words[0] == "judge":
        import pandas as pd

        table = pd.read_parquet("store/verdicts.parquet")
        result["verdicts"] = table[["key", "outcome", "probability"]].to_csv(index=False)
    return result


def table_result(words: Words) -> Any:
    name = "calibration.json" if words[0] == "calibrate" else "leaderboard.json"
    content = json.loads(Path("out", name).read_text())
    return {k: v for k, v in content.items() if k not in ("provenance", "created", "seconds")}


RESULTS: dict[str, Callable[[Words], Any]] = {
    "checkpoint": store_result,
    "store": store_result,
    "suite": store_result,
    "lerobot": store_result,
    "table": table_result,
}


# ------------------------------------------------------------------------- in the parent
def _in_child(work: Callable[[], None], said: Path, seconds: float) -> dict[str, Any]:
    """``work`` in a forked child with its output in ``said``, within the limits."""
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setsid()
            where = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(where, 1)
            os.dup2(where, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            sys.stderr.reconfigure(errors="backslashreplace")
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    ended: dict[str, Any] = {"memory": 0, "why": "ended", "status": 0}
    process = psutil.Process(child)
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            ended["status"] = status
            break
        with contextlib.suppress(psutil.Error):
            family = [process, *process.children(recursive=True)]
            memory = max(p.memory_info().rss for p in family)
            ended["memory"] = max(ended["memory"], memory)
        late = time.perf_counter() - began > seconds
        if late or ended["memory"] > MEMORY:
            ended["why"] = "hang" if late else "memory"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.01 if time.perf_counter() - began < 0.5 else 0.05)
    ended["seconds"] = time.perf_counter() - began
    return ended


def classed(ended: dict[str, Any], found: dict[str, Any], said: str, expected: Any) -> str:
    """The class of an outcome, as the page above lists them."""
    code = found.get("exit")
    if ended["why"] != "ended":
        return str(ended["why"])
    if "Traceback (most recent call last)" in said:
        return "traceback"
    if ended["status"] != 0 or code is None:
        return "crash"
    if "\x1b" in said or "\x9b" in said:
        return "codes"
    if code == 70:
        return "net"
    if "memory ran out" in said:
        return "memory"
    words = found["words"]
    if code == 2 and said.strip():
        return "sentence"
    if code == 1 and words[0] in ("store", "prepare", "doctor") and said.strip():
        return "sentence"
    if code != 0:
        return "exit"
    if "result" not in found or found["result"] == expected:
        return "right"
    return "other" if may_differ(found) else "silent"


def may_differ(found: dict[str, Any]) -> bool:
    """Whether a changed result is what the changed input says, and not damage unseen."""
    result, what = found["result"], found["what"]
    if isinstance(result, str):  # it cannot be read, and nobody said so
        return False
    finite = all(v[4] for v in result.values() if isinstance(v, list) and len(v) == 5)
    if what.startswith("store") or not finite:
        return False  # our own stores carry checksums; numbers that are none are never right
    if what.startswith("lerobot"):
        return True  # the format has no checksums: a flipped bit is another value
    text = what.endswith((".json", ".csv"))
    return text or found["kind"] in ("number", "type", "swap")


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by target and kind, and the slowest and largest."""
    classes = list(dict.fromkeys([*GOOD, *sorted({row["class"] for row in rows})]))
    groups: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        kind = "value" if row["target"] == "option" else row["kind"]
        for key in ((row["target"], kind), ("all", "")):
            groups.setdefault(key, Counter())[row["class"]] += 1
    head = f"{'target':<12}{'kind':<10}" + "".join(f"{name:>10}" for name in classes)
    lines = [head]
    for (target, kind), counts in sorted(groups.items(), key=lambda item: item[0]):
        lines.append(f"{target:<12}{kind:<10}" + "".join(f"{counts[name]:>10}" for name in classes))
    slow = max((row["seconds"] for row in rows), default=0)
    large = max((row["mib"] for row in rows), default=0)
    return "\n".join([*lines, f"slowest {slow:.1f} s, largest {large} MiB"])


if __name__ == "__main__":
    sys.exit(main())
