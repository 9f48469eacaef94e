"""From ``results.json`` to ``proof.md``: rates with intervals, paired tests, curves.

python benchmarks/improvement/proof.py runs/improvement
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldeval.ranking import paired_test, wilson_interval

ORDER = (
    "base", "finetuned", "as-told", "advantage", "unselected", "oracle-selected", "real-filtered",
    "real-retold", "extra-steps", "paraphrase-only", "reset-only", "merged", "second-round",
)  # fmt: skip


SHOWN = ("base", "extra-steps", "real-filtered", "finetuned", "oracle-selected")
"""Arms in the picture."""
TITLES = {
    "true": "Targeted tasks",
    "reworded": "Targeted tasks, in words that no arm has learned from",
    "others": "Tasks that were not fine-tuned",
}


def write_proof(folder: Path) -> Path:
    """Write ``folder/proof.md`` and its plots from ``folder/results.json``."""
    results = json.loads((folder / "results.json").read_text())
    groups = {name: [row for row in results["rows"] if row["group"] == name] for name in TITLES}
    rows = groups["true"]
    forecasts = [row for row in results["rows"] if row["group"] == "imagined"]
    parts = [
        "# Does learning from imagined rollouts make policies better?",
        f"`{results['command']}`",
        "All rates are true rollouts in physics, from start states that no arm learned from. "
        "Intervals: Wilson, 95 %. Differences: over the same start states, McNemar's exact test.",
    ]
    for name, title in TITLES.items():
        if groups[name]:
            parts += [f"## {title}", _table(groups[name])]
    parts += ["## Each policy, targeted tasks", f"![arms]({_bars(folder, rows)})", _by_policy(rows)]
    if forecasts:
        parts += ["## What imagination forecasts", _forecast(forecasts, rows)]
    for kind, what in (("mix", "share of recorded data"), ("dose", "share of the new episodes")):
        if any(str(row["arm"]).startswith(f"{kind}-") for row in rows):
            name = _curve(folder, rows, kind, what)
            parts += [f"## Curve over the {what}", f"![{what}]({name})"]
    if results["missing"]:
        parts += ["## What is missing", "\n".join(f"- {line}" for line in results["missing"])]
    path = folder / "proof.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def _pooled(rows: Sequence[dict[str, Any]], arm: str) -> dict[str, str]:
    """(policy, start state) -> outcome of an arm, over all policies."""
    return {
        f"{row['policy']}|{start}": outcome
        for row in rows
        if row["arm"] == arm
        for start, outcome in row["outcomes"].items()
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| arm | policies | episodes | success | against base | against real-filtered "
        "| finetuned against it |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {row["arm"] for row in rows}
    for arm in (*[a for a in ORDER if a in known], *sorted(known - set(ORDER))):
        own = [row for row in rows if row["arm"] == arm]
        won, all_ = sum(r["successes"] for r in own), sum(r["trials"] for r in own)
        low, high = wilson_interval(won, all_)
        size = sorted({row["size"] for row in own})
        sizes = f"{size[0]}" if len(size) == 1 else f"{size[0]} to {size[-1]}"
        rate = f"{100 * won / all_:.1f} % [{100 * low:.0f}, {100 * high:.0f}] ({won}/{all_})"
        compared = [_difference(rows, other, arm) for other in ("base", "real-filtered")]
        compared.append(_difference(rows, arm, "finetuned"))
        lines.append(f"| {arm} | {len(own)} | {sizes} | {rate} | {' | '.join(compared)} |")
    return "\n".join(lines)


def _difference(rows: Sequence[dict[str, Any]], other: str, arm: str) -> str:
    one, two = _pooled(rows, other), _pooled(rows, arm)
    both = sorted(one.keys() & two.keys())
    if arm == other or not both:
        return ""
    said = {"success": 1.0, "failure": 0.0}
    a, b = ([said.get(x[k], float("nan")) for k in both] for x in (one, two))
    test = paired_test(a, b)
    points = f"{100 * test.difference:+.1f} [{100 * test.low:+.0f}, {100 * test.high:+.0f}]"
    return f"{points}, p {test.p_value:.2g}"


def _by_policy(rows: Sequence[dict[str, Any]]) -> str:
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    known = {row["arm"] for row in rows}
    lines = [
        "| arm | " + " | ".join(policies) + " | mean |",
        "|---|" + "---|" * (1 + len(policies)),
    ]
    for arm in (*[a for a in ORDER if a in known], *sorted(known - set(ORDER))):
        cells, rates = [], []
        for policy in policies:
            found = [r for r in rows if r["arm"] == arm and r["policy"] == policy]
            cells.append(f"{found[0]['successes']}/{found[0]['trials']}" if found else "")
            rates += [100 * r["successes"] / r["trials"] for r in found]
        cells.append(f"{sum(rates) / len(rates):.1f} %" if len(rates) == len(policies) else "")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _forecast(forecasts: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """Of each policy: gain of finetuned over base on targeted tasks, imagined and judged, and true.
    Undecided rollouts count neither way."""

    def rate(some: Sequence[dict[str, Any]], policy: str, arm: str) -> float:
        told = [
            outcome == "success"
            for row in some
            if (row["policy"], row["arm"]) == (policy, arm)
            for outcome in row["outcomes"].values()
            if outcome in ("success", "failure")
        ]
        return 100 * sum(told) / len(told) if told else float("nan")

    lines = [
        "| policy | imagined base | imagined finetuned | forecast gain | true gain |",
        "|---|---|---|---|---|",
    ]
    for policy in dict.fromkeys(row["policy"] for row in forecasts):
        base, tuned = (rate(forecasts, policy, arm) for arm in ("base", "finetuned"))
        true = rate(rows, policy, "finetuned") - rate(rows, policy, "base")
        lines.append(
            f"| {policy} | {base:.0f} % | {tuned:.0f} % | {tuned - base:+.0f} | {true:+.0f} |"
        )
    return "\n".join(lines)


def _bars(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """A picture of the arms of ``SHOWN``, a group of bars for each policy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = {(row["policy"], row["arm"]): row for row in rows}
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    figure, axes = pyplot.subplots(figsize=(1.6 + 1.3 * len(policies), 3), layout="constrained")
    width = 0.8 / len(SHOWN)
    for place, arm in enumerate(SHOWN):
        own = [(i, known[p, arm]) for i, p in enumerate(policies) if (p, arm) in known]
        ends = [wilson_interval(row["successes"], row["trials"]) for _, row in own]
        rates = [row["successes"] / row["trials"] for _, row in own]
        low = [max(0.0, rate - end.low) for rate, end in zip(rates, ends, strict=True)]
        high = [max(0.0, end.high - rate) for rate, end in zip(rates, ends, strict=True)]
        color = "#d95f02" if arm == "finetuned" else str(0.85 - 0.15 * place)
        axes.bar(
            [i + (place - (len(SHOWN) - 1) / 2) * width for i, _ in own],
            rates, width, yerr=[low, high], color=color, ecolor="#444", label=arm,
            error_kw={"linewidth": 0.8},
        )  # fmt: skip
    axes.set_xticks(range(len(policies)), policies, fontsize=8)
    axes.set_ylabel("true success")
    axes.set_ylim(0, 1)
    figure.legend(fontsize=7, loc="outside upper center", ncols=len(SHOWN), frameon=False)
    figure.savefig(folder / "arms.png", dpi=130)
    pyplot.close(figure)
    return "arms.png"


def _curve(folder: Path, rows: Sequence[dict[str, Any]], kind: str, what: str) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = {str(row["arm"]): row for row in rows if row["policy"] == policy}
        at = {
            name: float(name.removeprefix(f"{kind}-"))
            for name in own
            if name.startswith(f"{kind}-")
        }
        if not at:
            continue
        if "finetuned" in own:
            at["finetuned"] = own["finetuned"]["mix"] if kind == "mix" else 1.0
        points = sorted((x, own[name]["successes"], own[name]["trials"]) for name, x in at.items())
        x, won, trials = zip(*points, strict=True)
        rates = [w / t for w, t in zip(won, trials, strict=True)]
        ends = [wilson_interval(w, t) for w, t in zip(won, trials, strict=True)]
        low = [max(0.0, rate - end.low) for rate, end in zip(rates, ends, strict=True)]
        high = [max(0.0, end.high - rate) for rate, end in zip(rates, ends, strict=True)]
        axes.errorbar(x, rates, yerr=[low, high], marker="o", capsize=2, label=policy)
    axes.set_xlabel(what)
    axes.set_ylabel("true success")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=7)
    name = f"{kind}-curve.png"
    figure.savefig(folder / name, dpi=130)
    pyplot.close(figure)
    return name


if __name__ == "__main__":
    print(write_proof(Path(sys.argv[1])))
