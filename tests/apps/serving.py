"""Serves the inspector for the tests of the browser: ``python serving.py ROOT CACHE``; prints its
port. In a process of its own, as people start it: warnings of Gradio are no errors there."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from worldeval.cli import main

if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(port, flush=True)
    roots, cache = sys.argv[1:-1], Path(sys.argv[-1])
    sys.exit(main(["app", *roots, "--port", str(port), "--cache", str(cache)]))
