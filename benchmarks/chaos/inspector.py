"""The inspector with its index in a Postgres that is killed, asked all the while.

Enters: the folder of a run that others make. Leaves: how often it answered, and whether its answers
were right: while the run goes on no rollout that there is not, and at the end each exactly once.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.apps.postgres import Server

PATIENCE_S = 120.0
"""To answer what lies on the disk, once the database is back."""


class Inspector:
    """outcomes: of every rollout that there will be, by (policy, start state)."""

    def __init__(self, folder: Path, outcomes: dict[tuple[str, str], str], log: Path) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="worldeval-chaos-"))
        self._outcomes = outcomes
        self.database, self.kills, self._back_at = Server(self._place), 0, 0.0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        words = ["app", folder, f"--port={self._port}", f"--cache={self._place / 'cache'}"]
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worldeval", *words, f"--index={self.database.url}"],
            stdout=self._log,
            stderr=self._log,
        )
        self.answers = {"right": 0, "a sentence": 0, "broken off": 0, "wrong": 0}
        self._stop = threading.Event()
        self._asking = threading.Thread(target=self._ask_on, daemon=True)
        self._asking.start()

    def kill_database(self, seconds: float) -> bool:
        """Whether it was up."""
        if self._back_at:
            return False
        self.database.kill()
        self._back_at, self.kills = time.monotonic() + seconds, self.kills + 1
        return True

    def mend(self, *, now: bool = False) -> None:
        """Begin the database again, once its time has come."""
        if self._back_at and (now or time.monotonic() > self._back_at):
            try:
                self.database.start()
            except subprocess.CalledProcessError:  # the rest of the killed one is still there
                self._back_at = time.monotonic() + 1
            else:
                self._back_at = 0.0

    def ends_right(self) -> bool:
        """Whether it comes to show every rollout exactly once, and as it is."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self.mend(now=True)
            shown = self._shown()
            if isinstance(shown, list) and len(shown) == len(self._outcomes) == len(set(shown)):
                return {(policy, start): said for policy, start, said in shown} == self._outcomes
            time.sleep(1)
        return False

    def close(self) -> None:
        self._stop.set()
        self._process.kill()
        self._process.wait()
        self._asking.join()
        self.mend(now=True)
        if not self._back_at:
            self.database.stop()
        shutil.rmtree(self._place, ignore_errors=True)
        self._log.close()

    def _ask_on(self) -> None:
        while not self._stop.wait(2):
            shown = self._shown()
            if isinstance(shown, str):
                self.answers[shown] += 1
                continue
            wrong = any(self._outcomes.get((p, s)) not in (said, None) for p, s, said in shown)
            unknown = any((p, s) not in self._outcomes for p, s, _ in shown)
            self.answers["wrong" if wrong or unknown else "right"] += 1

    def _shown(self) -> list[tuple[str, str, str]] | str:
        """(policy, start state, outcome) of every rollout that it shows; else how it failed."""
        url = f"http://127.0.0.1:{self._port}/inspector/table.csv"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                rows = csv.DictReader(io.StringIO(answer.read().decode()))
                return [(row["policy"], row["start_id"], row["outcome"]) for row in rows]
        except urllib.error.HTTPError as error:
            try:
                return "a sentence" if json.loads(error.read())["error"] else "wrong"
            except (ValueError, KeyError):
                return "wrong"
        except (OSError, EOFError, ValueError, KeyError):
            return "broken off"
        except Exception as error:  # http.client's, of an answer that ends too early
            return "broken off" if "Incomplete" in type(error).__name__ else "wrong"
