"""Networks of other families, lightly trained, for every target: they answer as in FP32, lint clean and build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optkit.core.progress import SilentReporter
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.lint.base import lint
from optkit.graph.onnx_file import classifier_io, read_onnx
from optkit.measure.parity import compare_logits
from optkit.stages.quantize.workbench import run_model
from tests.stages.support import run_steps

pytestmark = pytest.mark.slow
SIZE = 32
TARGETS = ("onnxruntime", "openvino", "tensorrt")
SHORT = {"epochs": 1, "lr": 0.002, "batch_size": 16}
TRAINED = {"weights": "scratch", "size": SIZE, "train": SHORT}
NETWORKS = {
    "lite0 pruned": [
        {"stage": "finetune", "arch": "lite0", **TRAINED, "weights": "package"},
        {"stage": "prune", "ratio": 0.3, "train": SHORT},
    ],
    "resnet18": [{"stage": "finetune", "arch": "resnet18", **TRAINED}],
    "vgg16": [{"stage": "finetune", "arch": "vgg16_bn", **TRAINED, "head": {"pooling": "avg"}}],
    "mobilenetv3": [
        {"stage": "finetune", "arch": "mobilenetv3_small_100", **TRAINED, "train": {**SHORT, "epochs": 10}}
    ],
}

# SQNR in dB and agreement with FP32 that calibration alone must keep. MobileNetV3, trained for a minute, is hard.
KEPT = {"lite0 pruned": (10, 0.9), "resnet18": (10, 0.9), "vgg16": (10, 0.9), "mobilenetv3": (8, 0.7)}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    steps: dict = {}
    for index, step in enumerate(NETWORKS[request.param]):
        steps[f"step{index}"] = step if index == 0 else {**step, "model": f"step{index - 1}"}
    steps["onnx"] = {"stage": "export", "model": list(steps)[-1]}
    for target in TARGETS:
        options = {"target": target, "calibration_images": 64}
        steps[target] = {"stage": "quantize", "model": "onnx", **options}
    return {
        **run_steps(tmp_path_factory.mktemp(request.param.replace(" ", "-")), steps),
        "name": request.param,
    }


@pytest.mark.parametrize("target", TARGETS)
def test_answers_as_in_fp32(made: dict[str, Any], target: str) -> None:
    fp32, int8 = (read_onnx(made[name].file) for name in ("onnx", target))
    images = load_data(DataConfig(path="synthetic"), SilentReporter()).val
    preprocess = made["onnx"].spec.preprocess
    pixels = [batch.pixels for batch in batches(images, preprocess, 40, SilentReporter())]
    reference = run_model(fp32, classifier_io(fp32), pixels)
    assert len(set(reference.argmax(1))) > 1  # it has learnt to tell something apart
    parity = compare_logits(reference, run_model(int8, classifier_io(int8), pixels))
    sqnr_db, agreement = KEPT[made["name"]]
    assert parity.sqnr_db > sqnr_db, parity
    assert parity.agreement >= agreement, parity


@pytest.mark.parametrize("target", TARGETS)
def test_lints_clean_for_its_target(made: dict[str, Any], target: str) -> None:
    findings = lint(read_onnx(made[target].file), target)
    assert [finding for finding in findings if finding.severity != "note"] == []


def test_becomes_an_engine(made: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from optkit.runtimes.tensorrt import build_engine

    build_engine(made["tensorrt"].file, tmp_path / "engine.plan", "SM89", 4, SIZE)
    assert (tmp_path / "engine.plan").stat().st_size > 100_000
