"""One small network with sensible logits, exported once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Output, Preprocess
from optkit.models.build import build
from optkit.models.checkpoint import save_checkpoint
from optkit.stages.export.config import Config
from optkit.stages.export.parity import structured_images
from optkit.stages.export.stage import run

SIZE = 32


def scaled_network(arch: str, num_classes: int) -> torch.nn.Module:
    """BatchNorm statistics of real activations and a head whose logits spread over several units."""
    torch.manual_seed(0)
    module = build(arch, num_classes)
    images = torch.from_numpy(structured_images(64, SIZE, seed=1))
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # a plain average
        module.train()(images)
        module.eval()
        logits = module(images)
        head = module.get_classifier()
        head.weight *= 3 / logits.std(dim=0).mean()
    return module


def handle(folder: Path, format: Format, spec: ModelSpec, **facts: object) -> Artifact:
    """An artifact whose files a test has put into `folder` itself."""
    manifest = Manifest(stage="test", key="k", format=format, spec=spec, **facts)
    return Artifact(key="k", path=folder, manifest=manifest)


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    names = ("ant", "bee", "cat", "dog", "elk")
    return ModelSpec(
        arch="test_efficientnet",
        num_classes=5,
        class_names=names,
        preprocess=Preprocess(size=SIZE, mean=(0.5, 0.4, 0.3), crop_mode="squash"),
    )


@pytest.fixture(scope="session")
def checkpoint(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(scaled_network(spec.arch, spec.num_classes), spec, folder / Format.TORCH.filename)
    return handle(folder, Format.TORCH, spec)


@pytest.fixture(scope="session")
def exported(checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Output]:
    """The artifact of `optkit export`, and what the stage handed back."""
    folder = tmp_path_factory.mktemp("exported")
    reporter = SilentReporter()
    output = run(Config(max_batch=5), {"model": {"ft": checkpoint}}, Context(folder, reporter))
    assert reporter.warnings == []
    assert output.spec is not None
    return handle(folder, output.format, output.spec, metrics=output.metrics), output
