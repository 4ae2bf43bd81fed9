"""Training a head on features that are computed once: seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn import functional as F

from optkit.core.errors import InputError
from optkit.core.progress import Reporter

HEAD_BATCH = 64

Order = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]


@dataclass(frozen=True)
class Features:
    """What the head sees: `views[v]` (n, …) of every image, and `labels` (n,).

    `order(labels, rng)` gives the images of an epoch, as indices.
    """

    views: list[torch.Tensor]
    labels: torch.Tensor
    order: Order

    def batch_size(self) -> int:
        return min(HEAD_BATCH, len(self.labels))

    def steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.labels) // self.batch_size()

    def batches(self, seed: list[int], start: int) -> Iterator[FeatureBatch]:
        """An epoch in the order that `seed` gives, from step `start` on; every image in one of its views."""
        rng = np.random.default_rng(seed)
        order = self.order(self.labels.numpy(), rng)
        views = rng.integers(len(self.views), size=len(self.labels))
        size = self.batch_size()
        for step in range(start, self.steps()):
            chosen = order[step * size : (step + 1) * size]
            rows = [self.views[views[index]][index] for index in chosen]
            yield FeatureBatch([torch.stack(rows)], self.labels[chosen])

    def evaluate(self, head: nn.Module, device: torch.device) -> dict[str, float]:
        """`val_top1` and `val_loss` of `head` on the first view."""
        head.eval()
        right, loss = 0, 0.0
        with torch.inference_mode():
            for part, labels in zip(self.views[0].split(512), self.labels.split(512), strict=True):
                logits, truth = head(part.to(device)).float(), labels.to(device)
                right += int((logits.argmax(1) == truth).sum())
                loss += float(F.cross_entropy(logits, truth, reduction="sum"))
        return {"val_top1": right / len(self.labels), "val_loss": loss / len(self.labels)}


@dataclass(frozen=True)
class FeatureBatch:
    """Looks like a batch of images to the loop."""

    views: list[torch.Tensor]
    labels: torch.Tensor


def compute_features(
    module: nn.Module, batches: Iterable[Any], count: int, fabric: Fabric, reporter: Reporter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, …) and labels (n,) of this and all other processes' batches, in the order of their indices.

    Batches have `.pixels`, `.labels` and `.indices` as numpy arrays.
    """
    module.eval().to(fabric.device, memory_format=torch.channels_last)
    features, labels, indices = [], [], []
    with torch.inference_mode(), reporter.track("features", count) as task:
        for batch in batches:
            pixels = torch.from_numpy(batch.pixels).to(fabric.device, memory_format=torch.channels_last)
            with fabric.autocast():
                found = module.forward_head(module.forward_features(pixels), pre_logits=True)
            features.append(found.float().cpu().contiguous())
            labels.append(torch.from_numpy(batch.labels))
            indices.append(torch.from_numpy(batch.indices))
            task.advance(len(batch.labels))
    # Inference tensors cannot take part in training; clones can.
    own = [torch.cat(parts).clone() if parts else None for parts in (features, labels, indices)]
    gathered = [own]
    if fabric.world_size > 1:
        gathered = [[None, None, None]] * fabric.world_size
        distributed.all_gather_object(gathered, own)
    whole = [parts for parts in gathered if parts[0] is not None]
    if not whole:
        raise InputError("No image can be decoded.", hint="Mend the images, or give others.")
    values, truth, positions = (torch.cat([parts[i] for parts in whole]) for i in range(3))
    order = positions.argsort(stable=True)
    return values[order], truth[order]
