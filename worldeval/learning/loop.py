"""One resumable training loop for everything in this package that learns by gradient.

In: a module, a function that computes the loss of step ``i``, and how long. Out: trained and
exponentially averaged (EMA) weights, ``metrics.jsonl``, and a state from which the same command
goes on exactly, on one process or on many: the loss draws all randomness for the global batch and
computes the rows of ``Loop.share``, gradients and metrics are averaged, the main process alone
validates and writes. The loop keeps no hidden state: a step's data and noise are drawn from
(seed, step), the learning rate is a function of the step, and the state file holds weights, EMA,
AdamW moments and the sums of the row to be reported next, as safetensors. So a run that was killed
and one that was not give the same weights and the same metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldeval.errors import ConfigError
from worldeval.learning.averaging import average, averaged_weights, first_average
from worldeval.learning.config import LoopConfig
from worldeval.learning.out_of_memory import OTHER_REMEDIES, too_large
from worldeval.learning.processes import (
    accelerator_of,
    averaged_over,
    check_alone,
    check_same_step,
    checkpoint_activations,
    has_bfloat16_units,
    naming_who_is_gone,
)
from worldeval.learning.resuming import (
    append_row,
    forget_rows_after,
    load_state,
    refuse_changes,
    save_state,
    take_over,
    tensors_of,
    uninterrupted,
)
from worldeval.tracking import Trackers, require

__all__ = ["METRICS_FILE", "STATE_FILE", "Loop", "has_bfloat16_units", "step_generator"]

Loss = Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(module, step, generator) -> (mean loss over the rows of ``Loop.share``, metrics)."""

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step, the same however the run got there."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    )


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
        shared: bool = False,
    ) -> None:
        """settings: what must be as it was for a state in ``folder`` to be gone on from.

        parameters: groups as torch's optimizers take them; by default all decay alike.
        shared: whether the loss computes the rows of ``share`` alone; elsewhere ConfigError in one
            of several processes.
        """
        if not shared:
            check_alone(f"the training in {folder}")
        self.config = config
        self.settings = None if settings is None else json.loads(json.dumps(settings))
        self.folder = Path(folder)
        self.metrics = self.folder / METRICS_FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(config.threads)
        require(config.trackers)
        self.accelerator = accelerator_of(config)
        if config.gradient_checkpointing:
            checkpoint_activations(module)
        optimizer = torch.optim.AdamW(
            parameters or module.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, config.beta2),
            fused=True,
        )
        self.raw = module
        self._part, self._parts = 0, config.accumulate
        try:
            self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
            self.averaged = first_average(module, config.ema_device)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"the weights and their average alone do not fit this GPU; {OTHER_REMEDIES}"
            ) from None
        self.step = 0
        self.seconds = 0.0  # of all runs together, up to the last save
        self.validated = 0  # step of the last validation
        self.sums: dict[str, float] = {}  # since the last report; "steps" counts them
        self._restore()
        self._trackers: Trackers | None = None
        if config.trackers and self.is_main:
            self._trackers = Trackers(config.trackers, self.folder, self.settings or asdict(config))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that validates and writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def share(self) -> slice:
        """The rows of a global batch that this process computes now."""
        processes = self.accelerator.num_processes
        first = self.accelerator.process_index + processes * self._part
        return slice(first, None, self.shares)

    @property
    def shares(self) -> int:
        """Into how many shares a global batch is cut."""
        return int(self.accelerator.num_processes) * self._parts

    def run(
        self,
        loss: Loss,
        validate: Callable[[int], dict[str, Any]] | None = None,
        title: str = "training",
        progress: bool = True,
        validate_first: bool = False,
    ) -> None:
        """Train from wherever the state stands. Ctrl-C saves the state before it leaves.

        validate: called with the averaged weights in place, on the main process alone; what it
        returns is reported. validate_first: also before the first step.
        """
        config = self.config
        self._saved_at = self._reported_at = time.monotonic()
        self._reported_step = self.step
        bar = tqdm(
            total=config.steps,
            initial=self.step,
            desc=title,
            disable=not (progress and self.is_main),
            unit="step",
            mininterval=1.0,
        )
        try:
            with bar, naming_who_is_gone():
                self._validate(validate, validate_first and self._fresh)
                while self.step < config.steps:
                    numbers = self._gradient(loss)
                    with uninterrupted():
                        row = self._take_step(numbers, title)
                    bar.update()
                    if row:
                        bar.set_postfix(loss=f"{row['loss']:.4f}")
                    self._validate(validate)
                    if time.monotonic() - self._saved_at > config.save_every_s:
                        self.save()
        except KeyboardInterrupt:
            with uninterrupted():  # a launcher asks again, and in another way
                self.save()
            raise
        self.save()
        if self._trackers is not None:
            self._trackers.finish()
        self.accelerator.wait_for_everyone()

    def _gradient(self, loss: Loss) -> dict[str, float]:
        """The gradient of one step, micro-batch by micro-batch; its loss and metrics."""
        self._parts = self.config.accumulate
        try:
            return averaged_over(self.accelerator, self._accumulate(loss, self._parts))
        except torch.OutOfMemoryError:
            pass  # what the step holds is freed with the exception
        raise too_large(
            self.config, self.accelerator.num_processes, lambda parts: self._try(loss, parts)
        )

    def _accumulate(self, loss: Loss, parts: int, together: bool = True) -> dict[str, float]:
        """Add up the gradients of ``parts`` micro-batches. together: sum over the processes."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        totals: dict[str, float] = {}
        for self._part in range(parts):
            last = together and self._part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    value, metrics = loss(
                        self.module, self.step, step_generator(self.config.seed, self.step)
                    )
                self.accelerator.backward(value / parts if parts > 1 else value)
            losses.append(value.detach())
            for name, number in metrics.items():
                totals[name] = totals.get(name, 0.0) + number / parts
        return {"loss": sum(float(value) for value in losses) / parts, **totals}

    def _try(self, loss: Loss, parts: int) -> None:
        """A step without its end, with room for the optimizer's moments, to see if it fits."""
        moments = [] if self.optimizer.state else [*self.raw.parameters()] * 2
        reserved = [torch.empty_like(p) for p in moments if p.requires_grad]
        self._parts = parts
        try:
            self._accumulate(loss, parts, together=False)
        finally:
            del reserved
            self._part, self._parts = 0, self.config.accumulate
            self.optimizer.zero_grad(set_to_none=True)

    def _take_step(self, numbers: dict[str, float], title: str) -> dict[str, float] | None:
        """One step of the optimizer, and the row that it completes, if it is time for one."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.step)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), config.clip)
        if not torch.isfinite(norm):
            raise ConfigError(
                f"{title}: the gradient is not finite at step {self.step}; lower the "
                f"learning rate ({config.learning_rate}) or look for NaN in the data"
            )
        try:
            self.optimizer.step()
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"memory ran out for the moments of AdamW, twice the weights; {OTHER_REMEDIES}"
            ) from None
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        average(self.averaged, self.raw, decay)
        for name, number in {"steps": 1.0, **numbers}.items():
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

    def _validate(
        self, validate: Callable[[int], dict[str, Any]] | None, at_once: bool = False
    ) -> None:
        """Validate where it is due and was not done (an interrupted one is made up for)."""
        due = self.step % self.config.validate_every == 0 or self.step == self.config.steps
        done = self.validated == self.step or not due
        if validate is None or done and not at_once:
            return
        row: dict[str, Any] = {}
        if self.is_main:
            with self.averaged_weights():
                row = validate(self.step)
        with uninterrupted():
            self.report(row)
            self.validated = self.step
        self.accelerator.wait_for_everyone()

    def report(self, row: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``, and show it where it is tracked."""
        if self.is_main and row:
            append_row(self.metrics, {"step": self.step, **row})
            if self._trackers is not None:
                self._trackers.log(self.step, row)

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """The module with its EMA weights, in evaluation mode, for as long as the block lasts."""
        with averaged_weights(self.raw, self.averaged) as module:
            yield module

    def save(self) -> None:
        """Write the state atomically (main process)."""
        now = time.monotonic()
        self.seconds, self._saved_at = self.seconds + now - self._saved_at, now
        if not self.is_main:
            return
        counts = {"step": self.step, "validated": self.validated, "seconds": self.seconds}
        counts |= {f"sums/{name}": total for name, total in self.sums.items()}
        tensors = {n: torch.tensor([v], dtype=torch.float64) for n, v in counts.items()}
        tensors |= tensors_of(self.raw, self.averaged, self.optimizer)
        save_state(self.folder / STATE_FILE, tensors, self.settings)

    def _restore(self) -> None:
        path = self.folder / STATE_FILE
        if path.is_file():
            tensors, settings = load_state(path)
            if settings is not None and self.settings is not None:
                refuse_changes(settings, self.settings, self.folder)
            take_over(tensors, self.raw, self.averaged, self.optimizer, path)
            self.step = int(tensors["step"])
            self.validated = int(tensors.get("validated", tensors["step"]))
            self.seconds = float(tensors.get("seconds", 0.0))
            self.sums = {n[5:]: float(tensors[n]) for n in tensors if n.startswith("sums/")}
        if self.is_main:
            forget_rows_after(self.metrics, self.step)
        check_same_step(self.accelerator, self.step, self.folder)
        self._fresh = not self.metrics.is_file() or not self.metrics.stat().st_size
        self.accelerator.wait_for_everyone()  # what was read above is about to be written
