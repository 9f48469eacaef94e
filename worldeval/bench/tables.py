"""The report of ``worldeval bench step`` as text for people.

In: the report of measuring.py and the costs of counting.py. Out: markdown, what was measured apart
from what was counted, with the assumptions beside them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from worldeval.bench.counting import H200_BYTES_HZ, H200_FLOPS, Cost


def summarise(report: dict[str, Any]) -> None:
    """Add to every batch its median seconds, rollouts per hour and times as fast as published."""
    variants = report["variants"]
    for variant in variants.values():
        for batch, entry in variant["batches"].items():
            if not entry["wall_s"]:
                continue
            seconds = statistics.median(entry["wall_s"])
            rollout_s = seconds * report["interactions_a_rollout"]
            entry["median_s"] = seconds
            entry["rollouts_per_hour"] = 3600 * int(batch) / rollout_s
            base = variants["published"]["batches"].get(batch, {})
            for clock, name in (("wall_s", "times_as_fast"), ("cpu_s", "times_as_fast_cpu")):
                pairs = zip(base.get(clock, ()), entry[clock], strict=False)
                ratios = [theirs / ours for theirs, ours in pairs]
                entry[name] = statistics.median(ratios) if ratios else None


def measured_table(report: dict[str, Any]) -> str:
    """Markdown; call ``summarise`` first."""
    bench = report["bench"]
    rows = [
        ["variant", "steps", "rows", "batch", "s", "x published", "x (CPU time)", "rollouts/h"]
        + ["peak GB", "error latents", "error frames"]
    ]
    for name, variant in report["variants"].items():
        errors = variant["errors"] or {}
        for batch, entry in variant["batches"].items():
            row = [f"{name}: {variant['label']}", variant["steps"], variant["evaluations"], batch]
            if entry["failed"]:
                rows.append([*row, entry["failed"], *[""] * 6])
                continue
            peak = entry["peak_bytes"]
            row += [_number(entry.get("median_s"), ".2f")]
            row += [
                _number(entry.get(key), ".2f") for key in ("times_as_fast", "times_as_fast_cpu")
            ]
            row += [_number(entry.get("rollouts_per_hour"), ".1f")]
            row += [_number(peak / 1e9 if peak else None, ".2f")]
            row += [_number(errors.get(key), ".1e") for key in ("latents", "frames")]
            rows.append(row)
    unfinished = "" if report["finished"] else "Unfinished: run the same command again.\n"
    return (
        f"Measured: {bench['size']} size on {bench['device_name']}, {bench['dtype']}, torch "
        f"{bench['torch']}, {bench['threads']} threads.\n{unfinished}\n{_markdown(rows)}\n"
        "rows: evaluations of the backbone per rollout, both branches of guidance counted. Errors "
        "are against the published schedule in float32; the weights are random, so for other "
        "schedules they say little. A rollout is "
        f"{report['interactions_a_rollout']} interactions, without policy and files.\n"
    )


def counted_table(costs: Mapping[str, Cost]) -> str:
    base = costs["published"]
    rows = [
        ["variant", "TFLOP", "fewer", "operations", "fewer", "TB", "fewer"]
        + ["roofline s", "faster", "fused s", "faster"]
    ]
    for name, cost in costs.items():
        row = [name]
        for key, unit in (("flops", 1e12), ("operations", 1), ("bytes", 1e12)):
            value, reference = getattr(cost, key), getattr(base, key)
            row += [f"{value / unit:,.{0 if unit == 1 else 1}f}", f"{reference / value:.2f}x"]
        row += [f"{cost.roofline_s:.2f}", f"{base.roofline_s / cost.roofline_s:.2f}x"]
        row += [f"{cost.fused_s:.2f}", f"{base.roofline_s / cost.fused_s:.2f}x"]
        rows.append(row)
    return (
        "Counted: one interaction at full size, batch 1, bfloat16, on the meta device.\n\n"
        f"{_markdown(rows)}\n"
        "operations: kernels at least; bytes: if nothing is cached or fused. The last four columns "
        f"are calculated for an H200 ({H200_FLOPS / 1e12:.0f} TFLOP/s, {H200_BYTES_HZ / 1e12:.1f} "
        "TB/s attainable), not measured: operation by operation the larger of both times; fused: "
        "with pointwise operations free, as a compiler may have it, against published unfused.\n"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _markdown(rows: list[list[Any]]) -> str:
    head, *body = [[str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
