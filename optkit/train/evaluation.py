"""Top-1 and loss of a torch module while it is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from optkit.core.errors import InputError
from optkit.core.progress import Reporter


def evaluate_module(
    module: nn.Module,
    batches: Iterable[Any],
    count: int,
    reporter: Reporter,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """`val_top1` (0…1), `val_loss` and the number `n` of images that were really measured."""
    module.eval()
    device = next(module.parameters()).device
    right, loss, seen = 0, 0.0, 0
    with torch.inference_mode(), reporter.track("validating", count) as task, autocast():
        for batch in batches:
            pixels = torch.from_numpy(batch.pixels).to(device, memory_format=torch.channels_last)
            labels = torch.from_numpy(batch.labels).to(device)
            logits = module(pixels).float()
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            seen += len(labels)
            task.advance(len(labels))
    if not seen:
        raise InputError("No validation image can be decoded.", hint="Mend the images, or give others.")
    return {"val_top1": right / seen, "val_loss": loss / seen, "n": seen}
