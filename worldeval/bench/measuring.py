"""Measures the variants of one interaction (bench.py) and reports them side by side.

In: what to measure. Out: a report as JSON and as two tables: measured here (seconds, memory,
rollouts per hour, errors against the published schedule in float32) and counted at full size on the
meta device (FLOPs, operations, bytes; counting.py). Variants alternate, so a slow moment of the
machine meets all of them. What is measured is kept in ``out`` and not measured again, so a run may
be cut anywhere.
"""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldeval.bench.counting import Cost, count
from worldeval.bench.step import (
    POLICY_VIEWS,
    Bench,
    BenchConfig,
    Variant,
    variants,
)
from worldeval.data.provenance import jsonable, write_atomically
from worldeval.errors import ConfigError
from worldeval.world_model.ctrl_world.config import NO_GUIDANCE, GuidanceConfig

INTERACTIONS_A_ROLLOUT = 10
REPORT, REFERENCE = "bench.json", "reference.safetensors"
Report = dict[str, Any]


def measure(
    config: BenchConfig, out: Path, minutes: float | None, say: Callable[[str], Any]
) -> Report:
    """The report so far; ``finished`` tells whether time was enough. Continues that in ``out``."""
    until = time.monotonic() + 60 * minutes if minutes else float("inf")
    report = _begin(config, out)
    todo = [
        (batch, repeat, name)
        for batch in sorted(config.batches)
        for repeat in range(config.repeats)
        for name in report["variants"]
    ]
    chosen = variants(config)
    on_cuda = config.device.startswith("cuda")
    bench: Bench | None = None
    reference: dict[str, Tensor] = {}
    now, inputs = 0, None
    warm: set[str] = set()
    for batch, repeat, name in todo:
        entry = report["variants"][name]["batches"].setdefault(str(batch), _empty())
        if len(entry["wall_s"]) > repeat or entry["failed"]:
            continue
        if time.monotonic() > until:
            return report
        if bench is None:
            bench = Bench(config, config.device, torch.float32)
            reference = _reference(bench, chosen["published"], out)
            bench.convert(config.dtype)
        if batch != now:
            now, inputs = batch, None  # recordings of another batch only take up memory
            bench.models.clear()
            warm.clear()
            gc.collect()
            if on_cuda:
                torch.cuda.empty_cache()
            inputs = bench.inputs(batch)
        assert inputs is not None
        try:
            with peak_memory(config.device) as peak:
                if name not in warm:
                    _warm_up(bench, chosen[name], inputs)
                    warm.add(name)
                wall_s, cpu_s, latents, frames = _once(bench, chosen[name], inputs)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not out_of_memory(error):
                raise
            entry["failed"] = _sentence(report["variants"][name]["batches"], batch, bench)
            say(f"batch {batch}  {name}: {entry['failed']}")
            gc.collect()
        else:
            entry["wall_s"].append(wall_s)
            entry["cpu_s"].append(cpu_s)
            entry["peak_bytes"] = max(entry["peak_bytes"] or 0, peak[0]) if peak else None
            errors = report["variants"][name]["errors"]
            if errors is None:
                report["variants"][name]["errors"] = {
                    "latents": relative_error(latents[:1], reference["latents"]),
                    "frames": _frames_error(chosen[name], frames[:1], reference["frames"]),
                }
            say(f"batch {batch}  {name}: {wall_s:.2f} s")
        _save(report, out)
    report["finished"] = True
    _save(report, out)
    return report


def costs(config: BenchConfig) -> dict[str, Cost]:
    """Cost of one interaction at full size on a GPU, by counting one step of each kind."""
    chosen = variants(replace(config, size="full", device="cuda", compile=False))
    bench = Bench(replace(config, size="full"), "meta", torch.bfloat16)
    inputs = bench.inputs(1)
    known: dict[Any, tuple[Cost, Cost]] = {}

    def parts(variant: Variant, guided: bool) -> tuple[Cost, Cost]:
        """Of what is done once, and of a step."""
        key = (variant.execution, variant.latent_type, guided)
        if key not in known:
            guidance = GuidanceConfig() if guided else NO_GUIDANCE
            short = [
                replace(variant, guidance=guidance, sampler=replace(variant.sampler, steps=steps))
                for steps in (1, 2)
            ]
            one, two = (count(partial(bench.sampled, v, inputs)) for v in short)
            known[key] = (one - (two - one), two - one)
        return known[key]

    result = {}
    latents = inputs[2]
    for name, variant in chosen.items():
        guided, all_steps = variant.guided_steps, variant.sampler.evaluations
        total = count(partial(bench.decoded, variant, latents, inputs[2]))
        for kind, times in ((True, guided), (False, all_steps - guided)):
            if times:
                once, step = parts(variant, kind)
                total = total + once + step * times
        result[name] = total
    return result


def relative_error(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm of b."""
    b = b.to(a.device).double()
    return float((a.double() - b).norm() / b.norm())


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextlib.contextmanager
def peak_memory(device: str) -> Any:
    """Yields a list that holds afterwards the peak in bytes: of the GPU, or of this process.

    Linux forgets the peak of a process on request; where it does not, the list stays empty.
    """
    result: list[int] = []
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            forget.write_text("5")
    yield result
    if device.startswith("cuda"):
        result.append(torch.cuda.max_memory_allocated())
    elif status.exists():
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        result.extend(1024 * int(line.split()[1]) for line in found)


def _empty() -> dict[str, Any]:
    return {"wall_s": [], "cpu_s": [], "peak_bytes": None, "failed": None}


def _begin(config: BenchConfig, out: Path) -> Report:
    """A new report, or that in ``out`` if it is of the same bench."""
    on_cuda = config.device.startswith("cuda")
    bench = jsonable(replace(config, batches=(1,), repeats=1)) | {
        "device_name": torch.cuda.get_device_name() if on_cuda else "CPU",
        "threads": torch.get_num_threads(),
        "dtype": str(config.dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
    }
    path = out / REPORT
    if path.exists():
        report: Report = json.loads(path.read_text())
        changed = {k: (report["bench"].get(k), v) for k, v in bench.items()}
        changed = {k: v for k, v in changed.items() if v[0] != v[1]}
        if changed:
            what = ", ".join(f"{k} {old!r} is now {new!r}" for k, (old, new) in changed.items())
            raise ConfigError(f"{path} was measured otherwise ({what}); choose another folder")
        report["finished"] = False
        return report
    return {
        "bench": bench,
        "finished": False,
        "interactions_a_rollout": INTERACTIONS_A_ROLLOUT,
        "variants": {
            name: {
                "label": v.label,
                "steps": v.sampler.steps,
                "guided_steps": v.guided_steps,
                "evaluations": v.evaluations,
                "settings": jsonable(v),
                "errors": None,
                "batches": {},
            }
            for name, v in variants(config).items()
        },
    }


def _save(report: Report, out: Path) -> None:
    write_atomically(out / REPORT, json.dumps(jsonable(report), indent=1))


def _reference(bench: Bench, published: Variant, out: Path) -> dict[str, Tensor]:
    """Row 0 as published, in float32 without TF32; kept in ``out``."""
    path = out / REFERENCE
    if not path.exists():
        inputs = bench.inputs(1)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            latents = bench.sampled(published, inputs)
            variant = replace(published, decode_truth=False)
            frames = bench.decoded(variant, latents, inputs[2])
        out.mkdir(parents=True, exist_ok=True)
        tensors = {"latents": latents.cpu().contiguous(), "frames": frames.cpu().contiguous()}
        save_file(tensors, path)
    return load_file(path)


def _frames_error(variant: Variant, frames: Tensor, reference: Tensor) -> float:
    if variant.for_policy:
        reference = reference[:, -1:, list(POLICY_VIEWS)]
    return relative_error(frames, reference)


def _warm_up(bench: Bench, variant: Variant, inputs: Any) -> None:
    """Compile, record and choose kernels: a few steps of each kind that the variant has."""
    guided, steps = variant.guided_steps, variant.sampler.evaluations
    kinds = [GuidanceConfig()] * bool(guided) + [NO_GUIDANCE] * (guided < steps)
    for guidance in kinds:
        few = replace(variant, guidance=guidance, sampler=replace(variant.sampler, steps=2))
        latents = bench.sampled(few, inputs)
    bench.decoded(replace(variant, decode_truth=False), latents, inputs[2])


def _once(bench: Bench, variant: Variant, inputs: Any) -> tuple[float, float, Tensor, Tensor]:
    """Wall and processor seconds, latents, frames."""
    synchronize = torch.cuda.synchronize if bench.device.startswith("cuda") else lambda: None
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    latents = bench.sampled(variant, inputs)
    frames = bench.decoded(variant, latents, inputs[2])
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, latents, frames


def would_fit(peaks: dict[int, int], batch: int, weights: int, total: int | None) -> int:
    """The batch that should fit where ``batch`` did not; peaks: bytes at the batches that did.

    Memory is that of the weights plus a part per row; 5 % are left for fragmentation.
    """
    if not peaks:
        return batch // 2
    largest = max(peaks)
    row = (peaks[largest] - weights) / largest
    if total is None or row <= 0:
        return largest
    return max(largest, min(batch - 1, int((0.95 * total - weights) / row)))


def _sentence(entries: dict[str, Any], batch: int, bench: Bench) -> str:
    peaks = {int(b): entry["peak_bytes"] for b, entry in entries.items() if entry["peak_bytes"]}
    total = None
    if bench.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(bench.device).total_memory
    fits = would_fit(peaks, batch, bench.weights_bytes, total)
    if fits < 1:
        return "out of memory even for one rollout; use --size mini or a larger GPU"
    return f"out of memory; a batch of {fits} should fit"
