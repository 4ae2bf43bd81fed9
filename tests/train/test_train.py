"""The loop, freezing, objectives and the distillation losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from optkit.core import discover
from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.models.build import build
from optkit.train.config import TrainConfig
from optkit.train.evaluation import evaluate_module
from optkit.train.freezing import set_train_mode, unfreeze
from optkit.train.loop import Phase, fit, make_fabric, warmup_cosine
from optkit.train.objectives import classification, distillation
from optkit.train.trainer import Trainer


def batch(n: int = 8, seed: int = 0) -> SimpleNamespace:
    """Bright images are class 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randn(n, 3, 32, 32, generator=generator) + 3.0 * labels[:, None, None, None]
    return SimpleNamespace(views=[pixels], labels=labels)


def phase(options: TrainConfig) -> Phase:
    def batches(epoch: int) -> Iterator[SimpleNamespace]:
        yield from (batch(seed=10 * epoch + step) for step in range(4))

    return Phase("blocks", options, 4, batches, classification(0.0))


def train(module: nn.Module, epochs: int = 3, lr: float = 1e-3, precision: str = "fp32", warmup: float = 0.1):
    options = TrainConfig(epochs=epochs, lr=lr, precision=precision, warmup=warmup)
    fabric = make_fabric(options, 32, seed=0)
    return fit(module, phase(options), fabric, lambda: {"val_top1": 0.5}, SilentReporter())


def test_training_learns_and_records_every_epoch() -> None:
    module = build("resnet10t", 2)
    history = train(module, epochs=4)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["train_top1"] > 0.9
    assert history[0]["val_top1"] == 0.5
    assert "val_top1" not in history[-1], "the last epoch is measured by the caller"


def test_the_same_seed_gives_the_same_weights() -> None:
    modules = []
    for _ in range(2):
        torch.manual_seed(1)
        modules.append(build("resnet10t", 2))
        train(modules[-1], epochs=1)
    pairs = zip(modules[0].parameters(), modules[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_bf16_trains_too() -> None:
    history = train(build("resnet10t", 2), precision="bf16")
    assert history[-1]["loss"] < history[0]["loss"]


def test_divergence_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="diverged") as caught:
        train(build("resnet10t", 2), warmup=0, epochs=20, lr=1e30)
    assert "--lr 1e+29" in caught.value.hint


def test_weight_decay_spares_norms_and_biases() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        module[1].weight.fill_(5.0)
    before = module[0].weight.detach().clone()

    def still(layer: nn.Module, data: SimpleNamespace) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.0 * layer(data.views[0]).sum(), torch.tensor(0.0)

    options = TrainConfig(precision="fp32", weight_decay=0.5, warmup=0, epochs=1, lr=0.1)
    one = Phase("x", options, 4, phase(options).batches, still)
    fit(module, one, make_fabric(options, 32, 0), dict, SilentReporter())
    assert module[0].weight.abs().sum() < 0.95 * before.abs().sum()
    assert torch.equal(module[1].weight.detach(), torch.full((4,), 5.0))


def test_schedule_rises_then_falls_to_nothing() -> None:
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == 1.0
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert factors[-1] < 0.001
    assert warmup_cosine(0, 10, 0) == 1.0


@pytest.mark.parametrize(
    ("what", "learns", "frozen"),
    [
        ("head", ["classifier"], ["conv_stem", "blocks.6", "conv_head"]),
        (1, ["classifier", "conv_head", "bn2", "blocks.6"], ["conv_stem", "blocks.0", "blocks.5"]),
        (2, ["classifier", "conv_head", "blocks.6", "blocks.5"], ["conv_stem", "blocks.4"]),
        ("all", ["classifier", "conv_stem", "blocks.0"], []),
    ],
)
def test_unfreeze(what: str | int, learns: list[str], frozen: list[str]) -> None:
    module = build("lite0", 2)
    unfreeze(module, what)
    state = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for prefix in learns:
        assert all(value for name, value in state.items() if name.startswith(prefix)), prefix
    for prefix in frozen:
        assert not any(value for name, value in state.items() if name.startswith(prefix)), prefix


def test_unfreezing_more_blocks_than_there_are() -> None:
    with pytest.raises(UsageError, match="99 is more than"):
        unfreeze(build("lite0", 2), 99)


def test_frozen_statistics_stay() -> None:
    module = build("lite0", 2)
    unfreeze(module, "head")
    set_train_mode(module)
    before = module.bn1.running_mean.clone()
    module(torch.randn(4, 3, 32, 32) + 5)
    assert torch.equal(module.bn1.running_mean, before)
    unfreeze(module, "all")
    set_train_mode(module)
    module(torch.randn(4, 3, 32, 32) + 5)
    assert not torch.equal(module.bn1.running_mean, before)


def test_unfreeze_option_is_checked() -> None:
    assert TrainConfig(unfreeze="3").unfreeze == 3
    with pytest.raises(ValueError, match="number of blocks"):
        TrainConfig(unfreeze="most")


def test_defaults_follow_the_start() -> None:
    fits, far = TrainConfig().completed(True, 2), TrainConfig().completed(False, 2)
    assert (fits.epochs, fits.lr, fits.unfreeze) == (3, 5e-4, 2)
    assert (far.epochs, far.lr, far.unfreeze) == (8, 2e-3, "all")
    given = TrainConfig(epochs=0, lr=0.1, unfreeze="head").completed(True, 2)
    assert (given.epochs, given.lr, given.unfreeze) == (0, 0.1, "head")


def test_auto_precision_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for features, size, expected in (
        (["avx512_bf16"], 224, "bf16-mixed"),
        (["avx512_bf16"], 48, "32-true"),
        ([], 224, "32-true"),
    ):
        monkeypatch.setattr("optkit.core.machine.facts", lambda features=features: {"cpu_features": features})
        assert make_fabric(TrainConfig(), size, 0)._precision.precision == expected


def test_evaluation_counts_and_averages() -> None:
    data = [SimpleNamespace(pixels=batch(n).views[0].numpy(), labels=batch(n).labels.numpy()) for n in (6, 2)]

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3)) * self.scale
            return torch.stack([torch.zeros_like(mean), mean - 1.5], 1)

    found = evaluate_module(Bright(), data, 8, SilentReporter())
    assert (found["val_top1"], found["n"]) == (1.0, 8)
    assert 0 < found["val_loss"] < 0.5


def test_distillation_follows_the_teacher_not_the_labels() -> None:
    torch.manual_seed(0)
    teacher, student = build("resnet10t", 2), build("resnet10t", 2)
    kl = discover.load("optkit.train.losses", "kl", "distillation loss").loss
    data = batch()
    with torch.no_grad():
        teacher.eval()
        target = teacher(data.views[0])
    plain = distillation(teacher, kl, 1.0, 1.0, 0.0, nullcontext)
    student.eval()
    total, accuracy = plain(student, data)
    logits = student(data.views[0])
    assert total.item() == pytest.approx(kl(logits, target, data.labels, 1.0).item(), rel=1e-4)
    assert accuracy == (logits.argmax(1) == data.labels).float().mean()
    mixed, _ = distillation(teacher, kl, 0.25, 1.0, 0.2, nullcontext)(student, data)
    cross_entropy = nn.functional.cross_entropy(logits, data.labels, label_smoothing=0.2)
    assert mixed.item() == pytest.approx((0.25 * total + 0.75 * cross_entropy).item(), rel=1e-4)
    total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_head_is_learnt_from_cached_features_alone() -> None:
    config = TrainConfig(precision="fp32")
    torch.manual_seed(0)
    module = build("resnet10t", 2)
    fabric = make_fabric(config, 32, 0)
    data = [SimpleNamespace(pixels=batch(64).views[0].numpy(), labels=batch(64).labels.numpy())]
    trainer = Trainer(module, config, fabric, lambda: data, 64, SilentReporter())
    body = module.conv1[0].weight.detach().clone()
    trainer.fit_head(data, 64, 300)
    assert trainer.history[-1]["val_top1"] > 0.9
    assert torch.equal(module.conv1[0].weight, body)
    metrics = trainer.finish()
    assert metrics["n"] == 64
    assert metrics["top1"] > 0.9


def test_refreshing_statistics_moves_them_towards_the_images() -> None:
    module = build("resnet10t", 2)
    config = TrainConfig(precision="fp32")
    data = [SimpleNamespace(pixels=np.float32(batch(16).views[0].numpy() + 9), labels=np.zeros(16, int))]
    trainer = Trainer(module, config, make_fabric(config, 32, 0), lambda: data, 16, SilentReporter())
    weight = module.conv1[0].weight.detach().clone()
    before = module.bn1.running_mean.clone()
    trainer.refresh_statistics(data * 3, 48)
    assert not torch.equal(module.bn1.running_mean, before)
    assert torch.equal(module.conv1[0].weight, weight)
