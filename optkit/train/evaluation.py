"""Top-1 and loss of a torch module while it is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from optkit.core.errors import InputError
from optkit.core.progress import Reporter


def evaluate_module(
    module: nn.Module,
    batches: Iterable[Any],
    count: int,
    fabric: Fabric,
    reporter: Reporter,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """`val_top1` (0…1), `val_loss` and the number `n` of images that were really measured, in all processes."""
    module.eval()
    sums = torch.zeros(3, dtype=torch.float64)  # loss, right answers, images
    with torch.inference_mode(), reporter.track("validating", count) as task, autocast():
        for batch in batches:
            pixels = torch.from_numpy(batch.pixels).to(fabric.device, memory_format=torch.channels_last)
            labels = torch.from_numpy(batch.labels).to(fabric.device)
            logits = module(pixels).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            right = (logits.argmax(1) == labels).sum()
            sums += torch.stack([loss, right, right.new_tensor(len(labels))]).cpu()
            task.advance(len(labels))
    if fabric.world_size > 1:
        sums = fabric.all_reduce(sums, reduce_op="sum")
    loss_sum, right_count, seen = sums.tolist()
    if not seen:
        raise InputError("No validation image can be decoded.", hint="Mend the images, or give others.")
    return {"val_top1": right_count / seen, "val_loss": loss_sum / seen, "n": int(seen)}
