"""Networks of other families, lightly trained, for every target: they answer as in FP32, lint clean and build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.lint.base import lint
from optkit.graph.onnx_file import read_onnx
from optkit.measure.parity import compare_logits
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import SessionOptions, open_artifact
from optkit.stages.quantize.execute import Pixels
from tests.stages.support import run_steps

pytestmark = pytest.mark.slow
TARGETS = ("onnxruntime", "openvino", "tensorrt")
# Every GPU builds the network with the most kinds of layers, and every network is built for some GPU.
COMPUTE_CAPABILITIES = {
    "lite0 pruned": ("SM80", "SM86", "SM89", "SM120"),
    "resnet18": ("SM86",),
    "vgg16": ("SM89",),
    "mobilenetv3": ("SM80", "SM120"),
}
SHORT = {"epochs": 1, "lr": 0.002, "batch_size": 16}
TRAINED = {"weights": "scratch", "size": 32, "train": SHORT}
NETWORKS = {
    "lite0 pruned": [
        {"stage": "finetune", "arch": "lite0", **TRAINED, "weights": "package"},
        {"stage": "prune", "ratio": 0.3, "train": SHORT},
    ],
    "resnet18": [{"stage": "finetune", "arch": "resnet18", **TRAINED}],
    # Averaged: the two layers of 4,096 that it has otherwise are 120 of its 134 million weights.
    "vgg16": [
        {"stage": "finetune", "arch": "vgg16", **TRAINED, "head": {"pooling": "avg"}, "train": {**SHORT, "lr": 7e-4}}
    ],
    # Trained less, or at 32 pixels, it tells few images apart, and rounding changes what it answers to the others.
    "mobilenetv3": [
        {
            "stage": "finetune",
            "arch": "mobilenetv3_small_100",
            "weights": "scratch",
            "size": 64,
            "train": {"epochs": 8, "lr": 0.006, "batch_size": 32},
        }
    ],
}  # fmt: skip

# SQNR in dB and agreement with FP32 that calibration alone must keep: about 2 dB below what it does.
KEPT = {
    ("lite0 pruned", "onnxruntime"): (12.5, 0.88),
    ("lite0 pruned", "openvino"): (13.5, 0.9),
    ("lite0 pruned", "tensorrt"): (10.5, 0.88),
    ("resnet18", "onnxruntime"): (32, 0.97),
    ("resnet18", "openvino"): (34, 0.97),
    ("resnet18", "tensorrt"): (29, 0.97),
    ("vgg16", "onnxruntime"): (27, 0.97),
    ("vgg16", "openvino"): (27, 0.97),
    ("vgg16", "tensorrt"): (26, 0.97),
    ("mobilenetv3", "onnxruntime"): (17, 0.95),
    ("mobilenetv3", "openvino"): (19, 0.95),
    ("mobilenetv3", "tensorrt"): (15.5, 0.93),
}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    steps: dict = {}
    for index, step in enumerate(NETWORKS[request.param]):
        steps[f"step{index}"] = step if index == 0 else {**step, "model": f"step{index - 1}"}
    steps["onnx"] = {"stage": "export", "model": list(steps)[-1]}
    for target in TARGETS:
        options = {"target": target, "calibration_images": 64, "calibrator": "minmax"}
        steps[target] = {"stage": "quantize", "model": "onnx", **options}
    made = run_steps(tmp_path_factory.mktemp(request.param.replace(" ", "-")), steps)
    return {**made, "name": request.param}


@pytest.fixture(scope="module")
def pixels(made: dict[str, Any]) -> Pixels:
    """The validation images as the network wants them."""
    images = load_data(DataConfig(path="synthetic"), SilentReporter()).val
    preprocess = made["onnx"].spec.preprocess
    return np.concatenate([batch.pixels for batch in batches(images, preprocess, 40, SilentReporter())])


def answers(model: Artifact, runtime: str, pixels: Pixels) -> Pixels:
    session = open_artifact(model, runtime, SessionOptions(load_module, threads=1))
    try:
        return session.run(pixels)
    finally:
        session.close()


@pytest.mark.parametrize("target", TARGETS)
def test_answers_as_in_fp32(made: dict[str, Any], target: str, pixels: Pixels) -> None:
    """In the runtime it is made for; an engine's answers need its GPU, so ONNX Runtime stands in."""
    runtime = "openvino" if target == "openvino" else "onnxruntime"
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    reference, found = (answers(made[name], runtime, pixels) for name in ("onnx", target))
    assert len(set(reference.argmax(1))) > 1  # it has learnt to tell something apart
    parity = compare_logits(reference, found)
    sqnr_db, agreement = KEPT[made["name"], target]
    assert parity.sqnr_db > sqnr_db, parity
    assert parity.agreement >= agreement, parity


@pytest.mark.parametrize("target", TARGETS)
def test_lints_clean_for_its_target(made: dict[str, Any], target: str) -> None:
    findings = lint(read_onnx(made[target].file), target)
    assert [finding for finding in findings if finding.severity != "note"] == []


def test_becomes_an_engine(made: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from optkit.runtimes.tensorrt import build_engine

    size = made["tensorrt"].spec.preprocess.size
    for capability in COMPUTE_CAPABILITIES[made["name"]]:
        engine = tmp_path / f"{capability}.plan"
        facts = build_engine(made["tensorrt"].file, engine, capability, 4, size)
        assert facts["compute_capability"] == [capability]
        assert engine.stat().st_size > 100_000
