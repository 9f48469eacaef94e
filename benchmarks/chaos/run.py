"""200 rollouts while everything dies at random: does each end once, and as it would in peace?

    python benchmarks/chaos/run.py runs/chaos              writes benchmarks/chaos/chaos.json
    python benchmarks/chaos/run.py runs/chaos --rollouts 20 --phases ray --json chaos.json

Two policies behind one server roll out in the toy world, in two phases: with two workers of this
machine, and with two of a Ray cluster, whose machines are killed and replaced. Meanwhile, at random
but seeded (``disturbances.py``), workers, policy server, head and the inspector's database die, the
network to the policy and to the mirror (S3, by moto) is held up, and the disk fills once. Then the
run, and its mirror, is compared with one that nobody disturbed, in process and without any server.
Needs ray, moto, psycopg and a Postgres; a disk that can be filled is mounted where root runs this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import fsspec
import pandas as pd
from moto.server import ThreadedMotoServer

from benchmarks.chaos.disturbances import POLICY, Chaos
from benchmarks.chaos.inspector import Inspector
from tests.evaluation.cluster import Cluster
from tests.evaluation.network import Proxy
from worldeval.data.mirror import Mirror
from worldeval.data.remote import RemoteFolder
from worldeval.data.store.episodes import EpisodeStore
from worldeval.rollout.suite import Suite
from worldeval.rollout.table import rollout_table
from worldeval.worlds.toy import toy_starts

DISK_MB = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rollouts", type=int, default=200, help="in each phase")
    parser.add_argument("--phases", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--most-s", type=float, default=3600, help="for one phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("chaos.json"))
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = sys.path[0]  # for the server of the policies, and Ray's workers
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    suite = folder / "suite.json"
    starts = toy_starts(count=given.rollouts // 4)
    Suite(name="chaos", robot="toy", chunks=4, starts=starts, seed=1).save(suite)
    common = ["--world=toy", f"--suite={suite}", "--batch=4", "--threads=1"]
    peace = [f"--policy=python:{POLICY}:Local?name={name}" for name in "ab"]
    words = ["rollout", *peace, *common, f"--out={folder / 'peace'}"]
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "worldeval", *words], check=True)
    found: dict[str, Any] = {"seconds in peace, one process": round(time.monotonic() - began)}
    for phase in given.phases:
        found[phase] = disturbed(phase, folder, common, given)
        print(json.dumps(found[phase], indent=1), flush=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    bad = [f"{p}: {name}" for p in given.phases for name, n in found[p]["wrong"].items() if n]
    if bad:
        sys.exit(f"not as it shall be: {', '.join(bad)}")


def disturbed(
    phase: str, folder: Path, common: list[str], given: argparse.Namespace
) -> dict[str, Any]:
    """Roll out in chaos and compare; ``wrong`` counts what there must be none of."""
    ours = contents(folder / "peace")
    outcomes = {(row["policy"], row["start_id"]): row["outcome"] for row in ours.values()}
    log = folder / f"{phase}.log"
    began = time.monotonic()
    with ExitStack() as opened:
        disk = opened.enter_context(small_disk(folder / f"{phase}-disk"))
        out = (disk or folder) / f"{phase}-run"
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        opened.callback(s3.stop)
        mirror, server_port = Proxy(s3.get_host_and_port()[1]), free_port()
        policy = Proxy(server_port)
        opened.callback(policy.close)
        opened.callback(mirror.close)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{mirror.port}",
        }
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(phase)
        served = [f"--policy=python:{POLICY}:Served?port={policy.port}&name={n}" for n in "ab"]
        words = ["rollout", *served, *common, "--workers=2", f"--out={out}"]
        words += [f"--mirror=s3://{phase}/run"]
        cluster = None
        if phase == "ray":
            words.append("--executor=ray")
            place = tempfile.mkdtemp(prefix="ray-")  # short: of its sockets
            opened.callback(shutil.rmtree, place, ignore_errors=True)
            cluster = Cluster(Path(place), free_port())
            opened.callback(cluster.close)
            for _ in range(2):
                cluster.join(1)
        out.mkdir()
        inspector = Inspector(out, outcomes, folder / f"{phase}-inspector.log")
        opened.callback(inspector.close)
        chaos = Chaos(
            out=out,
            words=words,
            environment={} if cluster is None else cluster.environment,
            log=log,
            server_port=server_port,
            policy_proxy=policy,
            mirror_proxy=mirror,
            inspector=inspector,
            cluster=cluster,
            disk=disk,
            seed=given.seed,
        )
        opened.callback(chaos.close)
        ended = chaos.run(given.rollouts, given.most_s)
        seconds = time.monotonic() - began
        chaos.close()
        indexed = inspector.ends_right()
        copy = folder / f"{phase}-mirror"
        Mirror(copy, RemoteFolder(f"s3://{phase}/run")).fetch(films=True)
        theirs, there = contents(out), contents(copy)
        table = rollout_table(EpisodeStore.open(out))
        again = sum(map(int, re.findall(r"(\d+) rollouts of \w+ are begun again", log.read_text())))
        return {
            "rollouts": given.rollouts,
            "what happened": dict(sorted(chaos.done.items())),
            "rollouts begun again, as their worker died": again,
            "kept": len(table),
            "inspector's answers meanwhile": inspector.answers,
            "wrong": {
                "not ended by itself": int(not ended),
                "missing": len(ours.keys() - theirs.keys()),
                "kept twice": len(table) - table["key"].nunique(),
                "errors": int((table["outcome"] == "error").sum()),
                "counted as a failure, but none": sum(
                    one["outcome"] == "failure" != ours[key]["outcome"]
                    for key, one in theirs.items()
                ),
                "other outcome, actions or film": sum(theirs.get(k) != ours[k] for k in ours),
                "other order": int(list(theirs) != list(ours)),
                "other table of outcomes": int(truth(out) != truth(folder / "peace")),
                "missing or other at the mirror": sum(there.get(k) != ours[k] for k in ours),
                "missing, twice or other in the index": int(not indexed),
                "wrong answers of the inspector": inspector.answers["wrong"],
            },
            "seconds": round(seconds),
        }


def contents(folder: Path) -> dict[str, dict[str, str]]:
    """Key -> policy, start state and outcome of each rollout, and digests of actions and films."""
    store = EpisodeStore.open(folder)
    found = {}
    for i in range(len(store)):
        facts, episode = store.facts(i), store.without_frames(i)
        found[facts["key"]] = {
            **{name: str(facts[name]) for name in ("policy", "start_id", "outcome")},
            "actions": hashlib.sha256(episode.actions.tobytes()).hexdigest(),
            "poses": hashlib.sha256(episode.poses.tobytes()).hexdigest(),
            "films": str([hashlib.sha256(p.read_bytes()).hexdigest() for p in store.own_films(i)]),
        }
    return found


def truth(folder: Path) -> str:
    return pd.read_parquet(folder / "truth.parquet").to_csv(index=False)


@contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """A file system that can be filled; None where this process may not mount one."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "chaos", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
