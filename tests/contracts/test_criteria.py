"""Every pruning criterion, found by its file, ranks channels and leaves a network that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from optkit.core import discover
from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import ModelSpec, Preprocess
from optkit.data.loading import Batch
from optkit.measure.cost import module_cost
from optkit.models.build import build
from optkit.models.checkpoint import module_from_state, read_state, save_checkpoint
from optkit.models.widths import read_widths
from optkit.stages.prune.channels import pruned_spec
from optkit.stages.prune.config import CRITERIA, Config
from optkit.stages.prune.stage import prune

SIZE = 32


def images(count: int = 8) -> list[Batch]:
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)
    return [Batch(pixels, np.arange(count) % 3, np.arange(count))]


def pruned(arch: str, criterion: str, **options: object) -> tuple[nn.Module, nn.Module, SilentReporter]:
    torch.manual_seed(0)
    dense = build(arch, 3).eval()
    module = build(arch, 3).eval()
    module.load_state_dict(dense.state_dict())
    reporter = SilentReporter()
    prune(module, images(), SIZE, Config(criterion=criterion, **options), reporter)
    return dense, module, reporter


@pytest.mark.parametrize("criterion", discover.names(CRITERIA))
@pytest.mark.parametrize("arch", ["lite0", "b0", "resnet10t"])
def test_every_criterion(arch: str, criterion: str, tmp_path: Path) -> None:
    dense, module, _ = pruned(arch, criterion, ratio=0.3)
    before, after = module_cost(dense, SIZE).macs, module_cost(module, SIZE).macs
    assert 0.55 * before < after <= 0.7 * before
    convolutions = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    widths = read_widths(module, dense)
    narrowed = [convolutions[name].out_channels for name in widths if name in convolutions]
    changed = [
        width
        for width, name in zip(narrowed, (name for name in widths if name in convolutions), strict=True)
        if dict(dense.named_modules())[name].out_channels != width
    ]
    assert changed
    assert all(width % 16 == 0 and width >= 16 for width in changed)
    spec = ModelSpec(
        arch=arch,
        num_classes=3,
        class_names=("a", "b", "c"),
        preprocess=Preprocess(size=SIZE),
        pruning=widths,
    )
    save_checkpoint(module, spec, tmp_path / "m.safetensors")
    again = module_from_state(spec, read_state(tmp_path / "m.safetensors"), "m")
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(module.eval()(x), again(x))


def test_scope_inner_leaves_the_residual_stream_alone() -> None:
    _, inner, _ = pruned("resnet10t", "group_l2", ratio=0.2, scope="inner")
    _, everything, _ = pruned("resnet10t", "group_l2", ratio=0.5, scope="all")
    assert inner.layer1[0].conv2.out_channels == 64
    widths = [everything.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3, 4)]
    assert widths != [64, 128, 256, 512]


def test_the_least_important_channels_go() -> None:
    torch.manual_seed(0)
    module = build("resnet10t", 3).eval()
    weak = list(range(0, 64, 2))
    with torch.no_grad():
        module.layer1[0].conv1.weight[weak] *= 1e-3
        module.layer1[0].conv2.weight[:, weak] *= 1e-3
        module.layer1[0].bn1.weight[weak] *= 1e-3
    strong = module.layer1[0].conv1.weight[1::2].clone()
    prune(module, images(), SIZE, Config(criterion="group_l2", ratio=0.05), SilentReporter())
    left = module.layer1[0].conv1.weight
    assert left.shape[0] < 64
    assert all(any(torch.equal(row, kept) for kept in left) for row in strong[: left.shape[0]][:8])


def test_what_cannot_be_reached_is_said() -> None:
    dense, module, reporter = pruned("resnet10t", "group_l2", ratio=0.95)
    assert "not the 95%" in reporter.warnings[0]
    assert module_cost(module, SIZE).macs < module_cost(dense, SIZE).macs


@pytest.mark.parametrize(("arch", "size"), [("test_vit", 160), ("test_efficientnet_gn", 32)])
def test_a_network_that_breaks_without_its_channels_is_refused(arch: str, size: int) -> None:
    """Attention no longer runs; group normalisation cannot be rebuilt from the recorded widths."""
    spec = ModelSpec(arch=arch, num_classes=3, class_names=("a", "b", "c"), preprocess=Preprocess(size=size))
    module = build(arch, 3).eval()
    config = Config(criterion="group_l2", ratio=0.2, round_to=8, min_width=8)
    prune(module, images(), size, config, SilentReporter())
    with pytest.raises(UsageError, match=f"cannot be pruned: '{arch}'"):
        pruned_spec(module, spec)


def test_the_spec_of_a_pruned_network_has_its_widths() -> None:
    dense, module, _ = pruned("resnet10t", "group_l2", ratio=0.2)
    spec = ModelSpec(
        arch="resnet10t", num_classes=3, class_names=("a", "b", "c"), preprocess=Preprocess(size=SIZE)
    )
    means = module.bn1.running_mean.clone()
    assert pruned_spec(module.train(), spec).pruning == read_widths(module, dense)
    assert torch.equal(module.bn1.running_mean, means), "the trial leaves the statistics alone"
