from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optkit.core.errors import FailedError, InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.store import Store
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Output, Precision, Preprocess
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.data.sources.synthetic import CLASSES
from optkit.graph.onnx_file import classifier_io, precision_of, read_onnx, spec_from_metadata
from optkit.graph.qdq import insert_qdq, summary
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import ConvShape, GraphView
from optkit.graph.tensorrt_fusion import conv_reason
from optkit.stages.quantize import budget, eight_bit, float_prefix, speed
from optkit.stages.quantize import climb as climb_module
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.stage import run
from tests.data.pictures import jpeg, photo
from tests.small_networks import Builder, gated_network, residual_network, textured_images

SPEC = ModelSpec(arch="small", num_classes=4, class_names=CLASSES, preprocess=Preprocess(size=16))


def artifact(folder: Path, model: onnx.ModelProto, metrics: dict[str, int] | None = None) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    manifest = Manifest(stage="export", key="k", format=Format.ONNX, spec=SPEC, metrics=metrics or {})
    return Artifact("k", folder, manifest)


def quantize(
    tmp_path: Path, model: onnx.ModelProto, reporter: SilentReporter | None = None, **options
) -> Output:
    (tmp_path / "out").mkdir(parents=True, exist_ok=True)
    given = artifact(tmp_path / "in", model, options.pop("metrics", None))
    config = Config(**{"data": "synthetic", "calibration_images": 21, "allow_slower": True, **options})
    config.check()
    return run(config, {"model": {"m": given}}, Context(tmp_path / "out", reporter or SilentReporter()))


def optimized_ops(path: Path) -> collections.Counter[str]:
    """What ONNX Runtime makes of the file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return collections.Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_stage_writes_a_file_that_answers_nearly_the_same(tmp_path: Path, target: str) -> None:
    output = quantize(tmp_path, residual_network(), target=target, metrics={"macs": 5, "top1": 0.9})
    model = read_onnx(tmp_path / "out" / "model.onnx")
    assert classifier_io(model).batch is None
    assert spec_from_metadata(model) == SPEC == output.spec
    assert (output.format, output.precision) == (Format.ONNX, Precision.INT8)
    assert output.metrics.keys() == {"macs", "params"}
    facts = output.details["quantization"]
    assert facts["calibration_images"] == 21
    assert facts["calibrator"] in facts["sqnr_db_of_calibrators"]
    assert facts["classes_present"] == facts["classes"] == 4
    assert facts["quantized"]["Conv"] + sum(entry["op"] == "Conv" for entry in facts["float"]) == 3
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    reference = onnxruntime.InferenceSession(
        tmp_path / "in" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = textured_images(40, seed=5)
    got, expected = (s.run(None, {"input": pixels})[0] for s in (session, reference))
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.9
    assert 0 < np.abs(got - expected).max() < 0.3 * np.ptp(expected)


def test_static_batch_is_calibrated_as_a_free_one(tmp_path: Path) -> None:
    """21 images fill five batches of 4 and a part of one."""
    files = []
    for batch in (4, None):
        folder = tmp_path / str(batch)
        quantize(folder, residual_network(batch=batch), calibrator="minmax")
        files.append(read_onnx(folder / "out" / "model.onnx"))
    assert [classifier_io(model).batch for model in files] == [4, None]
    fixed, free = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in files
    )
    scales = [name for name in free if name.endswith(".scale")]
    assert scales
    for name in scales:
        np.testing.assert_allclose(fixed[name], free[name], rtol=1e-5)


def test_the_wanted_calibrator_makes_the_file(tmp_path: Path) -> None:
    files = {}
    for name in ("minmax", "mse"):
        output = quantize(tmp_path / name, residual_network(), calibrator=name)
        assert quantization(output)["calibrator"] == name
        assert quantization(output)["sqnr_db_of_calibrators"] == {}
        files[name] = read_onnx(tmp_path / name / "out" / "model.onnx").SerializeToString(deterministic=True)
    assert files["minmax"] != files["mse"]


def test_so_many_images_are_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: set[int] = set()

    def observing(model, io, tensors, batches, *others):
        def counted():
            for pixels in batches:
                sizes.add(len(pixels))
                yield pixels

        return observe(model, io, tensors, counted(), *others)

    monkeypatch.setattr(eight_bit, "observe", observing)
    quantize(tmp_path, residual_network(), calibrator="minmax", calibration_batch=7)
    assert sizes == {7}


def test_digest_tells_calibration_sets_apart(tmp_path: Path) -> None:
    digests = [
        quantize(tmp_path, residual_network(), seed=seed).details["quantization"]["calibration_digest"]
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_choice_of_images_lies_beside_the_model(tmp_path: Path) -> None:
    """More classes than images are nothing to be warned of."""
    reporter = SilentReporter()
    output = quantize(tmp_path, residual_network(), reporter, calibration_images=2)
    kept = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert len(kept["images"]) == output.details["quantization"]["calibration_images"] == 2
    assert not any("classes" in warning for warning in reporter.warnings)


def test_quantised_file_is_refused(tmp_path: Path) -> None:
    quantize(tmp_path, residual_network())
    with pytest.raises(InputError, match="quantised already"):
        quantize(tmp_path, onnx.load(tmp_path / "out" / "model.onnx"))


def test_a_single_logit_is_refused(tmp_path: Path) -> None:
    """Its largest logit is always the same: every budget would seem to hold."""
    b = Builder()
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv("input", 3, 1)))
    with pytest.raises(InputError, match="one output only"):
        quantize(tmp_path, b.model(x, 1, None, 20), min_agreement=0.9)


@pytest.mark.parametrize("option", ["target", "calibrator"])
def test_misspelt_plug_in_is_a_usage_error(option: str) -> None:
    right = {"target": "tensorrt", "calibrator": "minmax"}[option]
    with pytest.raises(UsageError) as error:
        Config(**{"data": "synthetic", option: right[:-1] + "q"}).check()
    assert right in error.value.hint


def test_onnxruntime_fuses_everything(tmp_path: Path) -> None:
    quantize(tmp_path, residual_network(), target="onnxruntime")
    ops = optimized_ops(tmp_path / "out" / "model.onnx")
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (3, 1, 1)
    assert not ops.keys() & {"Conv", "FusedConv", "Clip", "Relu", "Add", "DequantizeLinear"}
    assert ops["QuantizeLinear"] == 1


def test_onnxruntime_fuses_gates_and_silu(tmp_path: Path) -> None:
    quantize(tmp_path, gated_network(), target="onnxruntime")
    ops = optimized_ops(tmp_path / "out" / "model.onnx")
    # SiLU twice, the gate, and HardSwish, which ONNX Runtime takes apart.
    assert (ops["QLinearConv"], ops["QLinearSigmoid"], ops["QLinearMul"]) == (4, 3, 4)
    assert not ops.keys() & {"Conv", "FusedConv", "Sigmoid", "Mul"}


def test_tensorrt_file_holds_what_its_parser_takes(tmp_path: Path) -> None:
    for network in (residual_network, gated_network):
        quantize(tmp_path, network(), target="tensorrt")
        model = onnx.load(tmp_path / "out" / "model.onnx")
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = constants[node.input[2]]
                assert zero.dtype == np.int8
                assert not zero.any()
            if node.op_type == "Conv":
                assert any(attribute.name == "kernel_shape" for attribute in node.attribute)
            if node.op_type in ("Relu", "Clip", "Sigmoid", "MaxPool", "HardSwish"):
                assert not any(name.endswith(".dequantized") for name in node.input)
            if node.op_type == "Add":
                assert sum(name.endswith(".dequantized") for name in node.input) == 1


def test_tensorrt_leaves_gates_in_float_and_says_why() -> None:
    model = prepare(gated_network())
    planned = for_tensorrt.plan(GraphView(model))
    kept = summary(model, planned)["float"]
    assert [entry["op"] for entry in kept].count("Conv") == 2
    assert all("SE gate" in entry["reason"] for entry in kept if entry["op"] == "Conv")


@pytest.mark.parametrize(
    ("shape", "is_first", "legal"),
    [
        ((3, 32, 1, (3, 3)), True, True),
        ((16, 16, 16, (3, 3)), False, True),
        ((12, 12, 12, (3, 3)), False, False),
        ((32, 32, 32, (1, 1)), False, False),
        ((8, 8, 1, (1, 1)), False, False),
        ((8, 32, 1, (1, 1)), False, True),
        ((64, 64, 1, (1, 1)), False, True),
    ],
)
def test_legality_table(shape: tuple, is_first: bool, legal: bool) -> None:
    assert (conv_reason(ConvShape(*shape), is_first) == "") == legal


@pytest.fixture(scope="module")
def lite0() -> onnx.ModelProto:
    """EfficientNet-Lite0 with random weights, exported by TorchScript: fusion depends on structure alone."""
    import io

    import timm
    import torch

    torch.manual_seed(0)
    module = timm.create_model("efficientnet_lite0", num_classes=10).eval()
    buffer = io.BytesIO()
    axes = {"input": {0: "n"}, "logits": {0: "n"}}
    torch.onnx.export(
        module, (torch.randn(2, 3, 64, 64),), buffer, dynamo=False, opset_version=18,
        input_names=["input"], output_names=["logits"], dynamic_axes=axes,
    )  # fmt: skip
    return prepare(onnx.load_from_string(buffer.getvalue()))


def quantize_lite0(lite0: onnx.ModelProto, placement, path: Path) -> None:
    plan = placement.plan(GraphView(lite0))
    pixels = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)
    with SilentReporter().track("") as task:
        seen = observe(lite0, classifier_io(lite0), plan.observed(), [pixels], False, task)
    onnx.save(insert_qdq(lite0, plan, {name: (e.low, e.high) for name, e in seen.items()}), path)


def test_every_convolution_of_lite0_becomes_integer(lite0: onnx.ModelProto, tmp_path: Path) -> None:
    quantize_lite0(lite0, for_onnxruntime, tmp_path / "lite0.onnx")
    ops = optimized_ops(tmp_path / "lite0.onnx")
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (49, 9, 1)
    assert not ops.keys() & {"Conv", "FusedConv", "Clip", "Add"}


def test_tensorrt_builds_lite0(lite0: onnx.ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from optkit.runtimes.tensorrt import build_engine

    quantize_lite0(lite0, for_tensorrt, tmp_path / "lite0.onnx")
    build_engine(tmp_path / "lite0.onnx", tmp_path / "engine.plan", "SM89", 4, 64)
    assert (tmp_path / "engine.plan").stat().st_size > 1_000_000


def quantization(output: Output) -> dict:
    return output.details["quantization"]


@pytest.mark.parametrize(
    ("limits", "keeps"),
    [
        ({"max_drop": 0.0}, None),
        ({"max_drop": 100.0}, True),
        ({"min_agreement": 1.0}, None),
        ({"min_agreement": 0.01}, True),
        ({"min_sqnr": 500.0}, False),
        ({"min_sqnr": -500.0}, True),
    ],
)
def test_a_budget_starts_the_ladder_which_ends_when_it_holds(
    tmp_path: Path, limits: dict[str, float], keeps: bool | None
) -> None:
    reporter = SilentReporter()
    output = quantize(tmp_path, residual_network(), reporter, rungs=("ranges", "rounding"), **limits)
    found = quantization(output)
    ((name, limit),) = limits.items()
    figure = {"max_drop": "drop", "min_agreement": "agreement", "min_sqnr": "sqnr_db"}[name]
    reached = [entry["validation"][figure] for entry in found["ladder"] if entry["kept"]]
    holds = [value <= limit if name == "max_drop" else value >= limit for value in reached]
    assert found["validation"][figure] == reached[-1]
    assert keeps in (None, holds[-1])
    assert found["budget"] == {
        "max_drop": None, "min_agreement": None, "min_sqnr": None, **limits, "held": holds[-1]
    }  # fmt: skip
    assert not any(holds[:-1]), "it goes on only while the budget does not hold"
    if not holds[-1]:
        assert [entry["rung"] for entry in found["ladder"]] == ["calibration", "ranges", "rounding"]
    if keeps:
        assert [entry["rung"] for entry in found["ladder"]] == ["calibration"]
    assert holds[-1] is not any("BUDGET DOES NOT HOLD" in text for text in reporter.warnings)
    assert {entry["node"] for entry in found["sensitivity"]} >= {"conv0", "conv3"}


def timed(monkeypatch: pytest.MonkeyPatch, before: float, later: float) -> None:
    """INT8's latency, that of FP32 being 1: before the ladder is climbed, and of files that it makes."""
    for module, factor in ((float_prefix, before), (speed, later)):

        def time_rounds(sessions, spec, rounds, reporter, factor=factor):
            return np.array([[1.0] * (len(sessions) - 1) + [factor]] * 3)

        monkeypatch.setattr(module, "time_rounds", time_rounds)


@pytest.mark.parametrize("allow_slower", [True, False])
def test_int8_slower_than_fp32_is_refused_before_the_ladder_unless_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_slower: bool
) -> None:
    timed(monkeypatch, 2.0, 2.0)
    options = {"rungs": ("ranges",), "allow_slower": allow_slower}
    reporter = SilentReporter()
    if allow_slower:
        found = quantization(quantize(tmp_path, residual_network(), reporter, **options))
        assert found["speed"]["verdict"] == "slower"
        assert any("SLOWER THAN FP32 HERE: 2.00 times" in text for text in reporter.warnings)
    else:
        monkeypatch.setattr(climb_module.Ladder, "climb", lambda _: pytest.fail("it was climbed"))
        with pytest.raises(FailedError, match="SLOWER"):
            quantize(tmp_path, residual_network(), reporter, **options)
        assert not (tmp_path / "out" / "model.onnx").exists()


@pytest.mark.parametrize("allow_slower", [True, False])
def test_layers_freed_at_the_price_of_being_slower_than_fp32_stay_in_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_slower: bool
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    timed(monkeypatch, 0.9, 1.5)
    options = {"target": "openvino", "calibrator": "minmax", "rungs": ("mixed_precision",)}
    given = {"calibration_images": 160, "allow_slower": allow_slower}
    found = quantization(quantize(tmp_path, gated_network(), **given, **options))
    (rung,) = found["ladder"][1:]
    assert rung["kept"] is allow_slower
    assert ("SLOWER THAN FP32 HERE: 1.50 times" in rung["note"]) is not allow_slower
    assert any("mixed precision" in entry["reason"] for entry in found["float"]) is allow_slower


def test_named_rungs_are_climbed_without_a_budget(tmp_path: Path) -> None:
    found = quantization(quantize(tmp_path, residual_network(), rungs=("rounding",)))
    assert [entry["rung"] for entry in found["ladder"]] == ["calibration", "rounding"]
    assert found["budget"] is None
    assert found["ladder"][-1]["sqnr_db"] is not None


def test_without_ladder_nothing_of_it_is_told(tmp_path: Path) -> None:
    assert (
        not {"ladder", "sensitivity", "budget", "speed", "float_prefix"}
        & quantization(quantize(tmp_path, residual_network())).keys()
    )


def test_the_budget_is_checked_on_so_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def checker(reference, io, images, *others):
        seen.append(len(images))
        return budget.checker(reference, io, images, *others)

    monkeypatch.setattr(eight_bit, "checker", checker)
    for count in (7, 1000):
        quantize(tmp_path / str(count), residual_network(), rungs=("ranges",), check_images=count)
    assert seen[0] == 7 < seen[1]


def test_what_was_fitted_is_never_measured_on_its_own_images(tmp_path: Path) -> None:
    plain = quantize(tmp_path / "plain", residual_network())
    fitted = quantize(tmp_path / "fitted", residual_network(), rungs=("rounding",))
    assert not plain.spec.trained_on
    assert len(fitted.spec.trained_on) == 1


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
def test_other_precisions_are_written_and_told(tmp_path: Path, precision: str) -> None:
    output = quantize(tmp_path, residual_network(), target="tensorrt", precision=precision)
    model = read_onnx(tmp_path / "out" / "model.onnx")
    assert output.precision == precision == precision_of(model).value
    assert spec_from_metadata(model) == SPEC
    assert quantization(output)["quantized"]
    assert (tmp_path / "out" / "calibration.json").is_file()


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16", "max_drop": 1},
        {"precision": "fp8", "target": "onnxruntime"},
        {"precision": "fp8", "target": "tensorrt", "calibrator": "mse"},
        {"rungs": ("roundng",)},
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: dict) -> None:
    with pytest.raises(UsageError):
        quantize(tmp_path, residual_network(), **options)


def test_a_drop_is_that_of_the_same_images(tmp_path: Path) -> None:
    """Against the two files' own answers."""
    model = prepare(residual_network())
    images = load_data(DataConfig(path="synthetic"), SilentReporter(), CLASSES).val
    io = classifier_io(model)
    view = GraphView(model)
    plan = for_tensorrt.plan(view)
    spoilt = insert_qdq(model, plan, dict.fromkeys(plan.observed(), (-0.3, 0.3)))
    check = budget.checker(model, io, images, images.class_names, SPEC.preprocess, SilentReporter())
    found = check(spoilt)
    pixels = np.concatenate([b.pixels for b in batches(images, SPEC.preprocess, 64, SilentReporter())])
    before, after = (run_model(one, io, [pixels]).argmax(1) for one in (model, spoilt))
    assert found.agreement == (before == after).mean() < 1
    expected = 100 * ((before == images.labels).mean() - (after == images.labels).mean())
    assert found.drop == pytest.approx(expected)
    assert found.interval[0] <= found.drop <= found.interval[1]


def test_labels_are_needed_for_a_drop_alone(tmp_path: Path) -> None:
    """The built-in digits have ten classes, the network four."""
    options = {"data": "digits", "rungs": ("ranges",)}
    found = quantization(quantize(tmp_path / "a", residual_network(), min_agreement=0.01, **options))
    assert found["budget"]["held"]
    assert found["validation"]["drop"] is None is found["ladder"][0]["drop"]
    with pytest.raises(InputError, match="classes"):
        quantize(tmp_path / "b", residual_network(), max_drop=1, **options)


@pytest.mark.parametrize("calibrator", ["minmax", "entropy"])
def test_plain_calibration_imports_nothing_that_trains(tmp_path: Path, calibrator: str) -> None:
    """Such packages take longer to import than the images do."""
    store = Store(tmp_path)
    with store.workdir("in") as folder:
        onnx.save(residual_network(), folder / "model.onnx")
        store.commit(folder, Manifest(stage="export", key="in", format=Format.ONNX, spec=SPEC))
    for number in range(12):
        file = tmp_path / "photos" / CLASSES[number % len(CLASSES)] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(photo(40, 30, seed=number)))
    options = ["--data", "photos", "--target", "onnxruntime", "--calibrator", calibrator, "--out", "out"]
    code = (
        "import sys\n"
        "from optkit.cli._app import execute\n"
        f"status = execute({['quantize', 'in', *options]!r})\n"
        "heavy = {'torch', 'torchvision', 'torchmetrics', 'timm', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert precision_of(read_onnx(tmp_path / "out/model.onnx")) is Precision.INT8
