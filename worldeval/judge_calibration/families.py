"""Do corrected rates carry over to families of policies that nobody has seen?

In: an ``Assessment`` and the family of each policy. Out: the assessment, knowing whether rates that
are corrected by the errors on all other families come nearer to the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from worldeval.judge_calibration.assessment import Assessment
from worldeval.ranking.outcome_counts import over_tasks
from worldeval.ranking.peer_rates import LEAST_PEERS, PeerErrors

LEAST_FAMILIES = 3
SURE_TO_HELP = 0.8
"""In so many of the redrawn sets of families the rates must be nearer to the truth."""
Rates = tuple[float, float, float]
"""True, plain and improved."""


def helps_rates(
    by_policy: Mapping[str, Sequence[float]],
    families: Mapping[str, str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> bool | None:
    """Whether improved rates (``Rates`` by policy) are nearer to the true ones than plain ones.

    On average over policies, and in ``SURE_TO_HELP`` of the draws of whole families; policies of
    which one of the three is not known are left out. None below ``LEAST_FAMILIES`` families.
    A policy that ``families`` does not name is a family of its own.
    """
    known = {name: rates for name, rates in by_policy.items() if np.isfinite(rates).all()}
    owner = {name: families.get(name, name) for name in known}
    names = sorted(set(owner.values()))
    if len(names) < LEAST_FAMILIES:
        return None
    better = np.zeros(len(names))
    for name, (true, plain, improved) in known.items():
        better[names.index(owner[name])] += abs(plain - true) - abs(improved - true)
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    return bool(better.sum() > 0 and (better[drawn].sum(axis=1) > 0).mean() >= SURE_TO_HELP)


def held_out_rates(assessment: Assessment, families: Mapping[str, str]) -> dict[str, Rates]:
    """By policy, each corrected by the errors on policies of other families alone."""
    peers = assessment.confusions()
    found = {}
    for name, tasks in peers.items():
        family = families.get(name, name)
        others = {n: p for n, p in peers.items() if families.get(n, n) != family}
        judged = {task: cell.judged for task, cell in tasks.items()}
        true = over_tasks({task: cell.true for task, cell in tasks.items()}, "rollouts").rate
        plain = over_tasks(judged, "rollouts").rate
        if len(others) < LEAST_PEERS or true is None or plain is None:
            continue
        found[name] = (true, plain, PeerErrors(peers=others).correct(judged).rate)
    return found


def measured_on_families(assessment: Assessment, families: Mapping[str, str]) -> Assessment:
    """The same, knowing whether its corrections help families that are left out."""
    rates = held_out_rates(assessment, families)
    helps = helps_rates(rates, families)
    if helps is None:
        note = (
            f"Whether corrections help unseen families cannot be told: fewer than "
            f"{LEAST_FAMILIES} families have enough others."
        )
    else:
        true, plain, better = np.array(list(rates.values())).T
        words = "help"
        if not helps:
            words = "are not sure to help, and are not shown for policies that are not here"
        note = (
            f"Families left out: rates err by {100 * np.abs(plain - true).mean():.1f} points, "
            f"corrected by the others' errors by {100 * np.abs(better - true).mean():.1f}; "
            f"corrections {words}."
        )
    return replace(assessment, helps_families=helps, notes=(*assessment.notes, note))
