"""The training loop, the only one: fine-tuning, distillation and recovery all run through `fit`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from optkit.core import machine
from optkit.core.errors import UsageError
from optkit.core.progress import Reporter
from optkit.train.config import TrainConfig
from optkit.train.freezing import set_train_mode

# From this input size on, bf16 trains faster than FP32 on CPUs that have it; below, it is slower.
BF16_MIN_SIZE = 192


@dataclass(frozen=True)
class Phase:
    """One stretch of training. `batches(epoch)` yields what `objective` takes; `steps` is their number.

    `options` are complete: `epochs` and `lr` are numbers. `objective(module, batch)` returns the loss and the
    share of right answers, both scalars.
    """

    name: str
    options: TrainConfig
    steps: int
    batches: Callable[[int], Iterable[Any]]
    objective: Callable[[nn.Module, Any], tuple[torch.Tensor, torch.Tensor]]


def make_fabric(config: TrainConfig, size: int, seed: int) -> Fabric:
    """Device and arithmetic for training at input size `size`, with everything random seeded."""
    precision = config.precision
    if precision == "auto":
        if torch.cuda.is_available():
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            has_bf16 = {"avx512_bf16", "amx_bf16"} & set(machine.facts()["cpu_features"])
            precision = "bf16" if has_bf16 and size >= BF16_MIN_SIZE else "fp32"
    names = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # or it announces its precision
    fabric = Fabric(accelerator="auto", devices=1, precision=names[precision])
    fabric.seed_everything(seed, verbose=False)
    return fabric


def fit(
    module: nn.Module,
    phase: Phase,
    fabric: Fabric,
    evaluate: Callable[[], dict[str, float]],
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Train the parameters that are not frozen; returns one row per epoch.

    `evaluate` is called after every epoch but the last, which the caller measures on the finished model.
    Raises UsageError when the loss is no longer a number.
    """
    options = phase.options
    epochs, lr = options.epochs or 0, options.lr or 0.0
    total = epochs * phase.steps
    if total == 0:
        return []
    optimizer = _optimizer(module, options.weight_decay, lr, fused=fabric.device.type == "cuda")
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, total, options.warmup))
    wrapped, optimizer = fabric.setup(module, optimizer)
    history = []
    with reporter.track(f"training ({phase.name})", total) as task:
        for epoch in range(epochs):
            set_train_mode(module)
            sums = torch.zeros(2)
            for batch in phase.batches(epoch):
                loss, accuracy = phase.objective(wrapped, batch)
                fabric.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                sums += torch.stack([loss.detach(), accuracy]).float().cpu()
                task.advance(1, f"epoch {epoch + 1}/{epochs} loss {loss.item():.3f}")
                _check_finite(loss.item(), epoch + 1, lr)
            loss_mean, top1 = (sums / phase.steps).tolist()
            row = {"phase": phase.name, "epoch": epoch + 1, "loss": loss_mean, "train_top1": top1}
            row["lr"] = schedule.get_last_lr()[0]
            history.append(row | (evaluate() if epoch + 1 < epochs else {}))
    module.zero_grad(set_to_none=True)
    return history


def _optimizer(module: nn.Module, weight_decay: float, lr: float, fused: bool) -> torch.optim.AdamW:
    """AdamW over what learns; norms and biases do not decay."""
    return torch.optim.AdamW(param_groups_weight_decay(module, weight_decay), lr=lr, fused=fused)


def _check_finite(loss: float, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise UsageError(
            f"Training diverged in epoch {epoch}: the loss is {loss}.",
            why=f"The learning rate {lr:g} is too large for this network.",
            hint=f"Try --lr {lr / 10:g}.",
        )


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear from 0 to 1 over the share `warmup`, then a cosine to 0."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1.0, total - rising))))
