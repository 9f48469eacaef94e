"""One resumable training loop for everything in this package that learns by gradient.

In: a module, a function that computes the loss of step ``i``, and how long. Out: trained and
exponentially averaged (EMA) weights, ``metrics.jsonl``, and a state from which the same command
goes on exactly. The loop keeps no hidden state: a step's data and noise are drawn from
(seed, step), the learning rate is a function of the step, and the state file holds weights, EMA,
AdamW moments and the sums of the row to be reported next, as safetensors. So a run that was killed
and one that was not give the same weights and the same metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from worldeval.errors import CheckpointError, ConfigError
from worldeval.learning.config import LoopConfig
from worldeval.learning.resuming import (
    append_row,
    forget_rows_after,
    load_state,
    refuse_changes,
    save_state,
    uninterrupted,
)

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step, the same however the run got there."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    )


def has_bfloat16_units(device: str) -> bool:
    """Whether bfloat16 is faster than float32 on ``device``: on a GPU, or on a CPU with AMX."""
    return device != "cpu" or torch.cpu._is_amx_tile_supported()


class Loop:
    """Runs ``loss(module, step, generator) -> (loss, metrics)`` for ``config.steps`` steps."""

    def __init__(
        self,
        module: nn.Module,
        config: LoopConfig,
        folder: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
        parameters: list[dict[str, Any]] | None = None,
    ) -> None:
        """settings: what must be as it was for a state in ``folder`` to be gone on from.

        parameters: groups as torch's optimizers take them; by default all decay alike.
        """
        self.config = config
        self.settings = None if settings is None else json.loads(json.dumps(settings))
        self.folder = Path(folder)
        self.metrics = self.folder / METRICS_FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(config.threads)
        self.accelerator = _accelerator(config)
        optimizer = torch.optim.AdamW(
            parameters or module.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, config.beta2),
            fused=True,
        )
        self.raw = module
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.averaged = {n: p.detach().clone() for n, p in module.state_dict().items()}
        self.step = 0
        self.seconds = 0.0  # of all runs together, up to the last save
        self.validated = 0  # step of the last validation
        self.sums: dict[str, float] = {}  # since the last report; "steps" counts them
        self._restore()

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def share(self) -> slice:
        """The rows of a global batch that this process computes."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def run(
        self,
        loss: Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, float]]],
        validate: Callable[[int], dict[str, Any]] | None = None,
        title: str = "training",
        progress: bool = True,
    ) -> None:
        """Train from wherever the state stands. Ctrl-C saves the state before it leaves.

        validate: called with the averaged weights in place; what it returns is reported.
        """
        config = self.config
        self._saved_at = self._reported_at = time.monotonic()
        self._reported_step = self.step
        bar = tqdm(
            total=config.steps,
            initial=self.step,
            desc=title,
            disable=not (progress and self.accelerator.is_main_process),
            unit="step",
            mininterval=1.0,
        )
        try:
            with bar:
                self._validate(validate)  # an interrupted one is made up for
                while self.step < config.steps:
                    with self.accelerator.autocast():
                        value, metrics = loss(
                            self.module, self.step, step_generator(config.seed, self.step)
                        )
                    with uninterrupted():
                        row = self._take_step(value, metrics, title)
                    bar.update()
                    if row:
                        bar.set_postfix(loss=f"{row['loss']:.4f}")
                    self._validate(validate)
                    if time.monotonic() - self._saved_at > config.save_every_s:
                        self.save()
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()

    def _take_step(
        self, value: Tensor, metrics: dict[str, float], title: str
    ) -> dict[str, float] | None:
        """One step of the optimizer, and the row that it completes, if it is time for one."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.step)
        self.accelerator.backward(value)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), config.clip)
        if not torch.isfinite(norm):
            raise ConfigError(
                f"{title}: the gradient is not finite at step {self.step}; lower the "
                f"learning rate ({config.learning_rate}) or look for NaN in the data"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        for name, number in {"steps": 1.0, "loss": float(value.detach()), **metrics}.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
        if self.step % config.report_every and self.step < config.steps:
            return None
        now = time.monotonic()
        counted = self.sums.pop("steps")
        row = {name: total / counted for name, total in self.sums.items()}
        samples = (self.step - self._reported_step) * config.batch
        row["samples_per_s"] = samples / (now - self._reported_at)
        row["learning_rate"] = config.rate(self.step - 1)
        self.report(row)
        self.sums, self._reported_step, self._reported_at = {}, self.step, now
        return row

    def _validate(self, validate: Callable[[int], dict[str, Any]] | None) -> None:
        """Validate where it is due and was not done."""
        due = self.step % self.config.validate_every == 0 or self.step == self.config.steps
        if validate is None or not due or self.validated == self.step:
            return
        with self.averaged_weights():
            row = validate(self.step)
        with uninterrupted():
            self.report(row)
            self.validated = self.step

    def report(self, row: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        if self.accelerator.is_main_process and row:
            append_row(self.metrics, {"step": self.step, **row})

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """The module with its EMA weights, in evaluation mode, for as long as the block lasts."""
        raw = self.raw
        current = {n: t.detach().clone() for n, t in raw.state_dict().items()}
        raw.load_state_dict(self.averaged)
        raw.eval()
        try:
            yield raw
        finally:
            raw.load_state_dict(current)
            raw.train()

    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.raw.state_dict().items():
                if tensor.is_floating_point():
                    self.averaged[name].lerp_(tensor, 1 - decay)
                else:
                    self.averaged[name].copy_(tensor)

    def save(self) -> None:
        """Write the state atomically (main process)."""
        now = time.monotonic()
        self.seconds, self._saved_at = self.seconds + now - self._saved_at, now
        if not self.accelerator.is_main_process:
            return
        counts = {"step": self.step, "validated": self.validated, "seconds": self.seconds}
        counts |= {f"sums/{name}": total for name, total in self.sums.items()}
        tensors = {n: torch.tensor([v], dtype=torch.float64) for n, v in counts.items()}
        tensors |= {f"weights/{n}": t for n, t in self.raw.state_dict().items()}
        tensors |= {f"averaged/{n}": t for n, t in self.averaged.items()}
        for name, parameter in self.raw.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
        save_state(self.folder / STATE_FILE, tensors, self.settings)

    @torch.no_grad()
    def _restore(self) -> None:
        path = self.folder / STATE_FILE
        if path.is_file():
            tensors, settings = load_state(path)
            if settings is not None and self.settings is not None:
                refuse_changes(settings, self.settings, self.folder)
            self._take_over(tensors, path)
        if self.accelerator.is_main_process:
            forget_rows_after(self.metrics, self.step)

    def _take_over(self, tensors: dict[str, Tensor], path: Path) -> None:
        weights = {n[8:]: t for n, t in tensors.items() if n.startswith("weights/")}
        try:
            self.raw.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} was written by a run of another architecture; choose another --out or "
                f"remove it ({str(error).splitlines()[0]})"
            ) from None
        self.averaged = {
            n[9:]: t.to(self.device) for n, t in tensors.items() if n.startswith("averaged/")
        }
        for name, parameter in self.raw.named_parameters():
            found = {
                key.split("/", 2)[1]: t
                for key, t in tensors.items()
                if key.startswith("optimizer/") and key.split("/", 2)[2] == name
            }
            if found:
                # moments in the parameter's own memory layout: fused AdamW walks both side by side
                self.optimizer.state[parameter] = {
                    key: t if key == "step" else torch.empty_like(parameter).copy_(t).detach()
                    for key, t in found.items()
                }
        self.step = int(tensors["step"])
        self.validated = int(tensors.get("validated", tensors["step"]))
        self.seconds = float(tensors.get("seconds", 0.0))
        self.sums = {n[5:]: float(t) for n, t in tensors.items() if n.startswith("sums/")}


def _accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of these settings, whatever a training before it in this process had."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but there is no GPU that torch can use; use 'cpu'")
    device = "cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu"
    if config.mixed_precision == "bf16" and not has_bfloat16_units(device):
        raise ConfigError(
            "mixed_precision is 'bf16', but this CPU has no bfloat16 matrix units (AMX), so it "
            "would be far slower; use 'no', or a GPU"
        )
    if AcceleratorState._shared_state:
        before = AcceleratorState()
        if (before.device.type, before.mixed_precision) != (device, config.mixed_precision):
            AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=config.mixed_precision, cpu=device == "cpu")
