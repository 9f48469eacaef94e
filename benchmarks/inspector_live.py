"""From the key to the picture: what a chunk of the live world takes the server.

    python benchmarks/inspector_live.py [--chunks 20] [--threads 1]

Opens the shipped world as the tab Live does and drives it by keys over HTTP routes, one chunk after
another, each from more memory than the one before. Prints the median and the largest time of a core
and of the clock, in seconds: the whole answer with its pictures, and the model alone. A browser
draws what it got in some ten milliseconds more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from fastapi.testclient import TestClient

from apps.inspector.context import Context
from apps.inspector.guard import Guard
from apps.inspector.server import make_server

KEYS = ("f", "rd", "u", "b", "l", "o", "c", ".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "runs"
        root.mkdir()
        app = Guard(make_server(Context([root], Path(place) / "cache")))
        with TestClient(app, base_url="http://localhost") as client:
            begin = {"start": "reach/evaluation/0001", "seed": 0}
            client.post("/inspector/live/begin", json=begin).raise_for_status()
            told = [answer(client, KEYS[i % len(KEYS)]) for i in range(given.chunks + 1)][1:]
    for name in told[0]:
        taken = [one[name] for one in told]
        median, most = round(statistics.median(taken), 3), round(max(taken), 3)
        print(json.dumps({"what": name, "median_s": median, "largest_s": most}))


def answer(client: TestClient, key: str) -> dict[str, float]:
    core, clock = time.process_time(), time.perf_counter()
    answered = client.post("/inspector/live/keys", json={"keys": key})
    core, clock = time.process_time() - core, time.perf_counter() - clock
    answered.raise_for_status()
    return {"core": core, "clock": clock, "model": answered.json()["moment"]["s"]}


if __name__ == "__main__":
    main()
