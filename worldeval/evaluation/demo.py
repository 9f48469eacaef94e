"""The whole circle in one command: imagine, judge, rank, and compare with what truly happened.

Enters: the shipped world, candidates, judge, suite and true results (``shipped.py``), and policies
that the user brings. Leaves, in ``out``: a store of imagined rollouts a policy, their verdicts and
whether to trust them, ``leaderboard.json`` with rates corrected for the judge's errors, videos of
imagined beside true rollouts, and ``report.html``. Every part that is there already, made by the
same weights from the same start states, is kept: so an interrupted demo goes on, ``full`` extends a
short one, and a changed policy is rolled out anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.evaluation.corrections import measure_trust, shipped_judge_errors
from worldeval.evaluation.evaluation import GIVEN_TRUTH
from worldeval.evaluation.folder import judge_folder, read_truth, write_ranking
from worldeval.evaluation.opening import (
    ImaginationOptions,
    adapter_of,
    fingerprint,
    imagination_content,
    open_imagination,
    set_threads,
)
from worldeval.evaluation.policy_options import PolicyOptions, close_policies
from worldeval.judging.tables import write_table
from worldeval.reports.videos import make_clips

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.imagination.env import Imagination
    from worldeval.motion.adapters import Adapter
    from worldeval.rollout.suite import Suite
    from worldeval.types import Policy

log = logging.getLogger(__name__)

PER_TASK = 2
"""Start states of each task in a short demo, where the suite ships no selection of its own."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What to rank and where to write it; explained in ``commands/demo.py``."""

    out: Path = Path("runs/demo")
    full: bool = False
    policies: tuple[str, ...] = ()
    imagination: ImaginationOptions = field(default_factory=ImaginationOptions)
    guard: PolicyOptions = field(default_factory=PolicyOptions)
    batch: int = 8
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        self.guard.check()


@dataclass(frozen=True)
class Candidate:
    """A policy with the folder of its rollouts, whose name changes when the policy does."""

    policy: Policy
    rollouts: Path


class Clock:
    """Prints how long each phase took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began
        print(f"[{name}: {self.seconds[name]:.1f} s]", flush=True)

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


def run_demo(config: DemoConfig) -> Path:
    """Run what is missing and return the path of ``report.html``."""
    from worldeval.judging.classifier import SuccessClassifier
    from worldeval.ranking.leaderboard import build_leaderboard

    clock = Clock()
    with clock.phase("load"):
        set_threads(config.threads)
        suite = demo_suite(config.full)
        truth = read_truth(shipped.path(shipped.TRUTH))
        judge = SuccessClassifier.load(shipped.path(shipped.JUDGE))
        world = open_imagination(config.imagination)
        candidates = load_candidates(config, world)
        settings = begin(config, suite)
    count = len(candidates) * len(suite.starts)
    print(
        f"{len(candidates)} policies x {len(suite.starts)} start states of {len(suite.tasks)} "
        f"tasks = {count} rollouts, none of them in a simulator",
        flush=True,
    )
    with clock.phase("imagine"):
        adapter = adapter_of(world.robot, config.imagination)
        imagine(candidates, world, suite, config.batch, adapter)
    with clock.phase("judge"):
        imagined = judged(candidates, judge, suite)
    with clock.phase("trust"):
        trust, doubtful = measure_trust(
            [candidate.rollouts for candidate in candidates], config.imagination
        )
    with clock.phase("rank"):
        true = truth[truth["start_id"].isin([start.start_id for start in suite.starts])]
        stores = {c.policy.spec.name: c.rollouts for c in candidates}
        write_table(true, config.out / GIVEN_TRUTH)  # so that an ``Evaluation`` of it knows it too
        clips = make_clips(stores, imagined, true, config.out / "videos")
        facts = {**settings, "seconds": dict(clock.seconds), "judge": judge.name}
        errors, uncorrected = shipped_judge_errors(imagined, config.out)
        board = build_leaderboard(imagined, true, judge_errors=errors, trust=trust)
        board = replace(board, notes=(*board.notes, *doubtful, *uncorrected))
        text = write_ranking(board, config.out, clips=clips, provenance=facts)
    print(text)
    report = config.out / "report.html"
    print(f"\n{config.out / 'leaderboard.json'}\n{config.out / 'videos'}\n{report}")
    print(f"{clock.total_s:.0f} s in all")
    return report


def demo_suite(full: bool) -> Suite:
    """The start states to begin from; a short demo's rollouts are among those of the full one."""
    from worldeval.rollout.suite import Suite

    chosen = shipped.folder() / shipped.DEMO_SUITE
    if not full and chosen.is_file():
        return Suite.load(chosen)
    suite = Suite.load(shipped.path(shipped.SUITE))
    return suite if full else suite.subset(per_task=PER_TASK)


def begin(config: DemoConfig, suite: Suite) -> dict[str, Any]:
    """Write run.json, or refuse to mix rollouts of two world models in one folder."""
    from worldeval.data.provenance import write_manifest

    settings = {
        "world_model": fingerprint(str(config.imagination.folder)),
        "imagination": config.imagination,
        "chunks": suite.chunks,
        "suite_seed": suite.seed,
    }
    write_manifest(
        config.out,
        command="demo",
        config=settings,
        seed=suite.seed,
        extra={"options": config},
        content=imagination_content(config.imagination),
    )
    return {
        "world model": settings["world_model"],
        "suite": suite.name,
        "chunks": suite.chunks,
        "start states": len(suite.starts),
        "command": " ".join(sys.argv),
    }


def load_candidates(config: DemoConfig, world: Imagination) -> list[Candidate]:
    """The shipped policies, then the user's; every one is checked before the first begins."""
    from worldeval.rollout.fit import check_names

    own = [str(path) for path in shipped.policies().values()]
    uris = [*own, *config.policies]
    policies: list[Policy] = []
    try:
        for uri in uris:
            guard = config.guard
            if uri in own:
                guard = replace(guard, isolate=False, policy_memory=None)
            policies.append(guard.open(uri, world.robot))
        check_names(uris, policies)
    except BaseException:
        close_policies(policies)
        raise
    return [
        Candidate(policy, rollouts_of(config.out, uri, policy.spec.name))
        for uri, policy in zip(uris, policies, strict=True)
    ]


def rollouts_of(out: Path, uri: str, name: str) -> Path:
    """Folder of a policy's rollouts, whose name changes with all that decides how it acts.

    Those of an earlier version of it are moved out of the way. Those of a version of worldeval that
    knew a policy by less are taken over where that little is the same, which is told.
    """
    from worldeval.policies.content import policy_content

    query = uri.partition("?")[2]
    word = re.sub(r"[^A-Za-z0-9.=-]", "_", name)
    content = json.dumps(policy_content(uri, but=out), sort_keys=True)
    folder = out / "rollouts" / f"{word}@{_version(content, query)}"
    before = folder.with_name(f"{word}@{_version(str(fingerprint(uri)), query)}")
    if before.is_dir() and not folder.exists():
        os.rename(before, folder)
        log.warning(
            "%s was begun by a version that kept no digest of all that policy %r is made of: "
            "whether that has changed since cannot be checked",
            folder,
            name,
        )
    for other in sorted(folder.parent.glob(f"{word}@*")):
        if other != folder:
            print(f"{name!r} has changed: its earlier rollouts are now in {out / 'earlier'}")
            (out / "earlier").mkdir(exist_ok=True)
            os.rename(other, out / "earlier" / f"{other.name}-{time.time_ns()}")
    return folder


def _version(content: str, query: str) -> str:
    return hashlib.sha256(f"{content} {query}".encode()).hexdigest()[:8]


def imagine(
    candidates: Sequence[Candidate], world: Imagination, suite: Suite, batch: int, adapter: Adapter
) -> None:
    from worldeval.rollout.engine import check_fit, run
    from worldeval.rollout.recording import open_rollouts

    for candidate in candidates:
        check_fit(world, candidate.policy, suite)
    for candidate in candidates:
        with open_rollouts(candidate.rollouts, world.robot) as store:
            report = run(world, candidate.policy, suite, store, batch=batch, adapter=adapter)
            print(report, flush=True)
        close_policies([candidate.policy])


def judged(candidates: Sequence[Candidate], judge: Any, suite: Suite) -> pd.DataFrame:
    """The verdict table of the suite's rollouts."""
    import pandas as pd

    tables = [judge_folder(judge, candidate.rollouts) for candidate in candidates]
    table = pd.concat(tables, ignore_index=True)
    wanted = table["start_id"].isin([start.start_id for start in suite.starts])
    return table[wanted].reset_index(drop=True)
