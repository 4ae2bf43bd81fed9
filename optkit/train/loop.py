"""The training loop, the only one: fine-tuning, distillation and recovery all run through it."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.progress import Task
from optkit.train.freezing import set_train_mode
from optkit.train.optimisation import Schedule, make_optimizer
from optkit.train.phase import BEST, STATE, Diverged, Phase, Run
from optkit.train.regularisation import averaged, l1_norm, make_average
from optkit.train.stand_ins import plain_state, put_stand_ins, remove_stand_ins

LOG_STEPS = 10  # between two lines of a log


class PhaseRun:
    """One phase while it is running."""

    def __init__(self, module: nn.Module, phase: Phase, run: Run) -> None:
        options, fabric = run.options, run.fabric
        self.phase, self.run, self.options, self.module = phase, run, options, module
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        module.to(fabric.device, memory_format=self.layout)
        self.optimizer = make_optimizer(module, options, phase.lr)
        self.schedule = Schedule(self.optimizer, options, phase.lr, phase.epochs, phase.steps)
        self.average = make_average(module, options)
        self._resume()
        if phase.is_shared:
            is_bf16 = fabric.strategy.precision.precision == "bf16-mixed"
            put_stand_ins(module, fabric.world_size, is_bf16)
            compiled = torch.compile(module) if options.compile else module
            self.wrapped, self.fabric_optimizer = fabric.setup(compiled, self.optimizer)
        else:
            self.wrapped, self.fabric_optimizer = module, self.optimizer
        self.saved_at = time.monotonic()
        self.best: dict[str, torch.Tensor] | None = None  # to be written with the next checkpoint

    def fit(self) -> None:
        """Train to the end of the phase. UsageError when the loss is no longer a number."""
        phase, progress = self.phase, self.run.progress
        done = progress.epoch * phase.steps + progress.step
        try:
            with self.run.reporter.track(f"training ({phase.name})", phase.epochs * phase.steps) as task:
                task.advance(done)
                for epoch in range(progress.epoch, phase.epochs):
                    if self.options.patience is not None and progress.stale >= self.options.patience:
                        self.run.reporter.info(
                            f"No better validation for {progress.stale} epochs: phase {phase.name} ends."
                        )
                        break
                    self._epoch(epoch, task)
                    self._end_epoch(epoch)
        finally:
            remove_stand_ins(self.module)
        if self.average is not None:
            self.module.load_state_dict(self.average.module.state_dict())
        self.module.zero_grad(set_to_none=True)
        progress.begin(phase.index + 1)
        self._save_best()
        self.run.save({})
        self.run.fabric.barrier()

    def _epoch(self, epoch: int, task: Task) -> None:
        phase, progress = self.phase, self.run.progress
        set_train_mode(self.module)
        started, seen = time.monotonic(), 0.0
        score = progress.history[-1].get("val_top1") if progress.history else None
        validated = "" if score is None else f" val {score:.3f}"
        for batch in phase.batches(epoch, progress.step):
            number = epoch * phase.steps + progress.step
            self.schedule.update(number)
            sums = self.step(batch, [self.run.seed, phase.index, epoch, progress.step])
            progress.sums = [a + b for a, b in zip(progress.sums, sums, strict=True)]
            progress.step += 1
            seen += sums[2]
            loss, top1 = (part / progress.sums[2] for part in progress.sums[:2])
            speed = seen / max(time.monotonic() - started, 1e-9)
            task.advance(
                1,
                f"epoch {epoch + 1}/{phase.epochs} loss {loss:.3f} top-1 {top1:.3f}{validated} {speed:.0f} img/s",
            )
            if number % LOG_STEPS == 0:
                self._log({"loss": sums[0] / sums[2], "lr": self.schedule.lr}, number)
            if self._is_due():
                self._save(epoch)

    def step(self, batch: Any, seed: list[int]) -> list[float]:
        """One update of the weights; returns loss · images, right answers and images, of all processes."""
        progress, shared = self.run.progress, self.phase.is_shared
        while True:
            # All that is random in a step depends on its number alone, so that a resume repeats it.
            rank = self.run.fabric.global_rank if shared else 0
            torch.manual_seed(int(np.random.SeedSequence([*seed, rank]).generate_state(1)[0]))
            try:
                sums = self._gradients(batch, progress.parts)
                break
            except RuntimeError as error:
                self._halve(error, len(batch.labels))
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.module, step=seed[2] * self.phase.steps + seed[3] + 1)
        if shared and self.run.fabric.world_size > 1:
            sums = self.run.fabric.all_reduce(sums, reduce_op="sum")
        values: list[float] = sums.tolist()
        if not math.isfinite(values[0]):
            self._diverged(seed[2] + 1, values[0])
        return values

    def _gradients(self, batch: Any, parts: int) -> torch.Tensor:
        """Accumulate the gradient of a batch in `parts`; returns loss · images, right answers, images."""
        fabric, sums = self.run.fabric, torch.zeros(3, dtype=torch.float64)
        views = [self._placed(view) for view in batch.views]
        labels = batch.labels.to(fabric.device)
        targets = labels
        if self.phase.mixer is not None:
            views, targets = self.phase.mixer(views, labels)
        pieces = list(zip(*(view.chunk(parts) for view in views), strict=True))
        shares = zip(pieces, targets.chunk(parts), labels.chunk(parts), strict=True)
        for i, (piece, target, truth) in enumerate(shares):
            with self._without_exchange(i + 1 < len(pieces)):
                loss, logits = self.phase.objective(self.wrapped, list(piece), target)
                regularised = loss + self.options.l1 * l1_norm(self.module) if self.options.l1 else loss
                self._backward(regularised * (len(truth) / len(labels)))
            right = (logits.detach().argmax(1) == truth).sum()
            sums += torch.stack([loss.detach() * len(truth), right, right.new_tensor(len(truth))]).cpu()
        return sums

    def _without_exchange(self, enabled: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once per batch, not for every part of it."""
        if not self.phase.is_shared:
            return nullcontext()
        return self.run.fabric.no_backward_sync(self.wrapped, enabled=enabled)

    def _backward(self, loss: torch.Tensor) -> None:
        if self.phase.is_shared:
            self.run.fabric.backward(loss)
        else:
            loss.backward()

    def _placed(self, view: torch.Tensor) -> torch.Tensor:
        layout = self.layout if view.ndim == 4 else torch.preserve_format
        return view.to(self.run.fabric.device, memory_format=layout, non_blocking=True)

    def _halve(self, error: RuntimeError, count: int) -> None:
        """Compute batches in twice as many parts when memory ran out; raise any other error again."""
        progress, fabric = self.run.progress, self.run.fabric
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise error
        if fabric.world_size > 1 or 2 * progress.parts > count:
            raise UsageError(
                f"The memory does not suffice for {max(1, count // progress.parts)} images at once.",
                hint="Give a smaller --batch-size or --size, or freeze more (--unfreeze).",
            ) from None
        progress.parts *= 2
        self.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.run.reporter.warn(
            f"Memory ran out: batches are computed in {progress.parts} parts of "
            f"{count // progress.parts} images; the batch of an update stays the same."
        )

    def _end_epoch(self, epoch: int) -> None:
        phase, progress, run = self.phase, self.run.progress, self.run
        loss, top1 = (part / max(progress.sums[2], 1.0) for part in progress.sums[:2])
        row: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1, "loss": loss, "train_top1": top1}
        row["lr"] = self.schedule.lr
        with averaged(self.module, self.average):
            is_over = phase.is_final and epoch + 1 == phase.epochs and self.options.keep == "last"
            row |= {} if is_over else phase.evaluate()
            if not math.isfinite(row.get("val_loss", 0.0)):
                self._diverged(epoch + 1, row["val_loss"])
            score = row.get("val_top1")
            is_better = score is not None and score > progress.best_top1
            if is_better:
                state = plain_state(run.network)
                self.best = {name: value.detach().clone() for name, value in state.items()}
        progress.history.append(row)
        if is_better:
            progress.best_top1, progress.best_row = float(score or 0), len(progress.history) - 1
        improves = score is not None and score > progress.phase_top1
        progress.phase_top1 = float(score) if improves and score is not None else progress.phase_top1
        progress.stale = 0 if improves else progress.stale + 1
        self.schedule.end_epoch(score)
        progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0, 0.0, 0.0]
        self._log({k: v for k, v in row.items() if isinstance(v, float)}, (epoch + 1) * phase.steps)
        # Epochs over cached features take less time than writing them down.
        if phase.is_shared or self._is_due():
            self._save(epoch)

    def _is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.options.checkpoint_seconds

    def _save_best(self) -> None:
        if self.best is not None and self.run.fabric.is_global_zero:
            self.run.checkpoints.save(BEST, {"network": self.best})
        self.best = None

    def _log(self, values: dict[str, float], step: int) -> None:
        if self.run.fabric.loggers:
            named = {
                f"{self.phase.index + 1}-{self.phase.name}/{name}": value for name, value in values.items()
            }
            self.run.fabric.log_dict(named, step)

    def _save(self, epoch: int) -> None:
        """A checkpoint, unless the weights are spoilt already."""
        weights = [p for p in self.module.parameters() if p.requires_grad]
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            self._diverged(epoch + 1, math.nan)
        self._save_best()
        self.run.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "precision": self.run.fabric.strategy.precision.state_dict(),
                "average": self.average.module.state_dict() if self.average else {},
            }
        )
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Go on from the checkpoint, when it was taken in this phase; the network has its weights already."""
        state = self.run.checkpoints.load(STATE)
        if state is None or state["progress"]["phase"] != self.phase.index or "optimizer" not in state:
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.run.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])

    def _diverged(self, epoch: int, loss: float) -> None:
        raise Diverged(self.phase.lr, epoch, loss, self.phase.index + 1 if self.options.phases else None)
