"""A Postgres of one's own, begun and killed at will."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

PROGRAMS = [*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), ""]
INITDB = next((found for p in PROGRAMS if (found := shutil.which("initdb", path=p or None))), None)


class Server:
    """A cluster of its own in a folder, listening on this machine."""

    def __init__(self, folder: Path) -> None:
        assert INITDB is not None
        self.bin, self.data = Path(INITDB).parent, folder / "data"
        folder.chmod(0o777)
        # Postgres refuses to run as root.
        self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if os.geteuid() != 0:
            self._as = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"postgresql://someone:secret@127.0.0.1:{self.port}/postgres"
        words = [INITDB, "-D", self.data, "-U", "someone", "-A", "trust", "-E", "UTF8"]
        self._run(*words, "--locale=C.UTF-8", "--no-sync")
        self.start()

    def _run(self, *words: object) -> None:
        subprocess.run([*self._as, *map(str, words)], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        log, options = self.data / "log", f"-p {self.port} -k {self.data} -h 127.0.0.1 -F"
        self._run(self.bin / "pg_ctl", "-D", self.data, "-l", log, "-w", "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        self._run(self.bin / "pg_ctl", "-D", self.data, "-m", how, "-w", "stop")

    def kill(self) -> None:
        """Its first process dies without a word, and the others after it."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
