"""A tiny network and images in memory: bright ones are class 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from optkit.core.progress import Reporter, SilentReporter
from optkit.core.types import Context
from optkit.models.build import build
from optkit.train.config import PhaseConfig, TrainConfig
from optkit.train.engine import make_fabric
from optkit.train.objectives import classification
from optkit.train.trainer import Images, Trainer

SIZE, STEPS, BATCH = 32, 4, 8


def batch(n: int = BATCH, seed: int = 0, contrast: float = 3.0) -> SimpleNamespace:
    """Looks like a batch of training images and like one of validation images."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randn(n, 3, SIZE, SIZE, generator=generator) + contrast * labels[:, None, None, None]
    return SimpleNamespace(
        views=[pixels],
        labels=labels,
        pixels=pixels.numpy(),
        indices=torch.arange(n).numpy(),
    )


class MemoryImages:
    """The batches of every epoch differ; `read` records which were asked for."""

    steps = STEPS

    def __init__(self, on_batch: Callable[[int], None] = lambda number: None) -> None:
        self.read: list[tuple[int, int]] = []
        self._on_batch = on_batch

    def epoch(self, number: int, start: int = 0) -> Iterator[SimpleNamespace]:
        for step in range(start, STEPS):
            self._on_batch(len(self.read))
            self.read.append((number, step))
            yield batch(seed=1000 * (number % 1000) + step)

    def view(self, number: int, reporter: Reporter) -> Iterator[SimpleNamespace]:
        found = batch(32, seed=99)
        found.labels = found.labels.numpy()
        found.pixels = found.pixels + number
        yield found


def natural(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(len(labels))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("test_efficientnet", 2)


def trainer(
    folder: Path,
    options: dict[str, Any] | None = None,
    module: nn.Module | None = None,
    training: MemoryImages | None = None,
    reporter: Reporter | None = None,
) -> Trainer:
    """A trainer of `module` with everything in `folder`."""
    config = TrainConfig(**{"precision": "fp32", "warmup": 0.0, **(options or {})})
    val = batch(16, seed=7, contrast=1.0)
    val.labels = val.labels.numpy()
    images = Images(training or MemoryImages(), 32, lambda: [val], 16, torch.tensor([16, 16]), natural)
    context = Context(folder, reporter or SilentReporter(), folder / "scratch")
    folder.mkdir(parents=True, exist_ok=True)

    def save(module: nn.Module, path: Path) -> None:
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)

    fabric = make_fabric(config, SIZE, seed=0, run_name="run")
    return Trainer(module or network(), config, fabric, images, context, 0, save)


def phase(unfreeze: str | int = "all", epochs: int = 2, lr: float = 1e-3) -> PhaseConfig:
    return PhaseConfig(unfreeze=unfreeze, epochs=epochs, lr=lr)


def fit(one: Trainer, *phases: PhaseConfig) -> dict[str, torch.Tensor]:
    """Train and return the weights."""
    one.fit(phases or (phase(),), classification(one.label_loss()), "blocks")
    return {name: value.detach().clone() for name, value in one.module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
