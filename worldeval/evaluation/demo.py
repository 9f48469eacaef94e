"""The whole circle in one command: imagine, judge, rank, and compare with what truly happened.

Enters: the shipped world, candidates, judge, suite and true results (``shipped.py``), and policies
that the user brings. Leaves, in ``out``: a store of imagined rollouts per policy, their verdicts
and whether to trust them, ``leaderboard.json`` with rates corrected for the judge's errors, videos
of imagined beside true rollouts, and ``report.html``. Every part that is there already, made by the
same weights from the same start states, is kept: so an interrupted demo goes on, ``full`` extends a
short one, and a changed policy is rolled out anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from worldeval import shipped
from worldeval.errors import ConfigError
from worldeval.evaluation.evaluation import Evaluation
from worldeval.evaluation.opening import (
    ImaginationOptions,
    adapter_of,
    fingerprint,
    imagination_content,
    open_imagination,
    set_threads,
)
from worldeval.evaluation.policy_options import PolicyOptions, close_policies
from worldeval.evaluation.rolling import roll_out
from worldeval.evaluation.stage import Stage
from worldeval.evaluation.strangers import strangers_notes
from worldeval.judging.beside import judging_beside
from worldeval.judging.loading import load_judge

if TYPE_CHECKING:
    from worldeval.imagination.env import Imagination
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
    clock = Clock()
    with clock.phase("load"):
        judge = load_judge(shipped.path(shipped.JUDGE))
        truth = shipped.path(shipped.TRUTH)
        stage = open_demo(config)
    starts = stage.suite.starts
    print(
        f"{len(stage.policies)} policies x {len(starts)} start states of {len(stage.suite.tasks)} "
        f"tasks = {len(stage.policies) * len(starts)} rollouts, none of them in a simulator",
        flush=True,
    )
    names = [policy.spec.name for policy in stage.policies]
    model = fingerprint(str(config.imagination.folder))
    for note in strangers_notes(names, [judge.name], model):
        print(note, flush=True)
    with clock.phase("imagine"), stage, judging_beside(judge, stage.folder):
        roll_out(stage, config.batch, then="judging, trust, ranking")
    run = Evaluation.open(config.out).only(start.start_id for start in starts)
    with clock.phase("judge"):
        run.judge(judge)
    with clock.phase("trust"):
        run.measure_trust(config.imagination)
    with clock.phase("rank"):
        run.rank(truth)
    print(run.text())
    report = config.out / "report.html"
    print(f"\n{config.out / 'leaderboard.json'}\n{config.out / 'videos'}\n{report}")
    print(f"{clock.total_s:.0f} s in all")
    return report


def open_demo(config: DemoConfig) -> Stage:
    """The shipped world with the shipped policies and the user's, in a folder that fits them."""
    set_threads(config.threads)
    suite = demo_suite(config.full)
    world = open_imagination(config.imagination)
    uris, policies = load_candidates(config, world)
    begin(config, suite)
    names = [policy.spec.name for policy in policies]
    return Stage(
        world=world,
        adapter=adapter_of(world.robot, config.imagination),
        policies=tuple(policies),
        suite=suite,
        folder=config.out,
        places={
            name: rollouts_of(config.out, uri, name) for uri, name in zip(uris, names, strict=True)
        },
    )


def demo_suite(full: bool) -> Suite:
    """The start states to begin from; a short demo's rollouts are among those of the full one."""
    from worldeval.rollout.suite import Suite

    chosen = shipped.folder() / shipped.DEMO_SUITE
    if not full and chosen.is_file():
        return Suite.load(chosen)
    suite = Suite.load(shipped.path(shipped.SUITE))
    return suite if full else suite.subset(per_task=PER_TASK)


def begin(config: DemoConfig, suite: Suite) -> None:
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


def load_candidates(config: DemoConfig, world: Imagination) -> tuple[list[str], list[Policy]]:
    """URIs and policies: the shipped ones, then the user's; all are checked before any begins."""
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
    return uris, policies


def rollouts_of(out: Path, uri: str, name: str) -> Path:
    """Folder of a policy's rollouts, whose name changes with all that decides how it acts.

    Those of an earlier version of it are moved out of the way. Those of a version of worldeval that
    knew a policy by less are taken over where that little is the same, which is reported.
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
