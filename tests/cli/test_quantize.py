"""`optkit sample` and `optkit quantize`: what may be given, what is said next, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from optkit.core.store import read_artifact
from optkit.stages.quantize import float_prefix, speed
from tests.cli.support import optkit
from tests.cli.test_errors import assert_refused
from tests.conftest import small_classifier

TINY = (
    "--arch", "test_efficientnet", "--weights", "scratch", "--size", "32", "--data", "synthetic", "--epochs", "0",
)  # fmt: skip
LOAD = ("--size", "32", "--class-names", "a,b,c,d,e")
SYNTHETIC = ("--data", "synthetic", "--calibration-images", "16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/finetune` and `runs/export`, artifacts of a tiny network."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (["finetune", *TINY], ["export", "runs/finetune"]):
            done = optkit(*command)
            assert done.code == 0, done.err
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(here: Path, trained: Path) -> None:
    """Here what `trained` holds, and its two model files as `bare.safetensors` and `bare.onnx`."""
    shutil.copytree(trained, here, dirs_exist_ok=True)
    shutil.copyfile("runs/finetune/model.safetensors", "bare.safetensors")
    shutil.copyfile("runs/export/model.onnx", "bare.onnx")


@pytest.fixture
def photos(here: Path) -> None:
    """Here a network `m.onnx` and images in `photos`."""
    small_classifier(here / "m.onnx")
    write_photos(here / "photos")


def write_photos(folder: Path, grey: bool = False) -> None:
    for number, name in enumerate("abcde"):
        for index in range(4):
            path = folder / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(10 * number + index).integers(0, 255, (40, 40, 3), np.uint8)
            image = Image.new("RGB", (40, 40), "grey") if grey else Image.fromarray(noise)
            image.save(path)


@pytest.mark.parametrize(
    "model",
    ["runs/finetune", "runs/finetune/model.safetensors", "bare.safetensors", "runs/export", "bare.onnx"],
)
def test_a_checkpoint_is_exported_first(runs: None, model: str) -> None:
    done = optkit("quantize", model, *SYNTHETIC)
    assert done.code == 0, done.err
    assert f"next: optkit bench {model} runs/quantize --data synthetic\n" in done.err
    assert read_artifact(Path("runs/quantize")).manifest.precision == "int8"
    assert ("exported: " in done.err) is ("onnx" not in model and "export" not in model)
    engine = optkit("quantize", model, *SYNTHETIC, "--target", "tensorrt", "--out", "int8")
    assert engine.code == 0, engine.err
    assert "next: optkit export int8 --format tensorrt" in engine.err


@pytest.mark.parametrize("model", ["runs/finetune", "bare.onnx"])
def test_a_file_for_openvino_is_measured_in_openvino(runs: None, model: str) -> None:
    """Beside the original, if that runs there."""
    done = optkit("quantize", model, *SYNTHETIC, "--calibrator", "minmax", "--target", "openvino")
    assert done.code == 0, done.err
    models = "runs/quantize" if model == "runs/finetune" else f"{model} runs/quantize"
    assert f"next: optkit bench {models} --data synthetic --runtimes openvino\n" in done.err


def test_what_is_printed_next_can_be_typed(runs: None) -> None:
    assert optkit("quantize", "runs/finetune", *SYNTHETIC).code == 0
    done = optkit("bench", "runs/finetune", "runs/quantize", "--data", "synthetic", "--seconds", "0.1")
    assert done.code == 0, done.err


def test_a_choice_of_images_is_used_again(photos: None) -> None:
    sampled = optkit("sample", "--data", "photos", "--images", "10", "--out", "calib", "--json")
    assert sampled.code == 0, sampled.err
    assert sampled.json["calibration_images"] == 10
    assert sampled.json["per_class"] == dict.fromkeys("abcde", 2)
    assert "next: optkit quantize MODEL --calibration calib --data photos" in sampled.err
    for given in ("calib", "calib/calibration.json"):
        done = optkit(
            "quantize", "m.onnx", "--calibration", given, "--data", "photos", *LOAD, "--out", "int8"
        )
        assert done.code == 0, done.err
        assert "next: optkit bench m.onnx int8 --data photos\n" in done.err
        assert Path("int8/calibration.json").read_bytes() == Path("calib/calibration.json").read_bytes()
    shown = optkit("sample", "--data", "photos", "--images", "10")
    assert sampled.json["calibration_digest"] in shown.out
    assert "5 of 5" in shown.out


def test_images_that_were_changed_or_are_gone_are_named(photos: None) -> None:
    assert optkit("sample", "--data", "photos", "--images", "10", "--out", "calib").code == 0
    quantize = ["quantize", "m.onnx", "--calibration", "calib", *LOAD]
    names = [
        row.split('"')[3]
        for row in Path("calib/calibration.json").read_text().splitlines()
        if '"name"' in row
    ]
    Path("photos", names[0]).unlink()
    loaded = optkit("quantize", "m.onnx", "--data", "photos", *LOAD, "--out", "x")
    assert loaded.code == 0, loaded.err
    assert_refused(
        [*quantize, "--data", "photos"], 4, "not among the training images", names[0], "optkit sample"
    )
    Image.new("RGB", (40, 40)).save(Path("photos", names[0]))
    assert_refused([*quantize, "--data", "photos"], 4, "changed since they were chosen", names[0])
    assert_refused([*quantize, "--data", "synthetic"], 4, "not among", "--data photos")


def test_another_artifact_is_no_calibration_set(here: Path) -> None:
    small_classifier(here / "m.onnx")
    assert optkit("cost", "m.onnx", *LOAD, "--out", "cost").code == 0
    command = ["quantize", "m.onnx", "--calibration", "cost", "--data", "synthetic", *LOAD]
    assert_refused(command, 2, "'cost' cannot be the 'calibration'", "must be images", "optkit sample")
    write_photos(here / "photos")
    command[3] = "photos"
    assert_refused(command, 4, "'photos' is neither an artifact", "optkit sample --data photos")


def no_classifier() -> onnx.ModelProto:
    model = small_classifier(head="none")
    model.graph.node.pop()  # without the mean it answers a map
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 5, 32, 32]))
    return model


def too_old() -> onnx.ModelProto:
    """Opset 6, whose Gemm the converter cannot raise when the batch is open."""
    values = {"w": np.ones((3072, 5), np.float32), "b": np.zeros(5, np.float32)}
    inputs = {"input": ["n", 3, 32, 32], "w": [3072, 5], "b": [5]}
    nodes = [
        helper.make_node("Flatten", ["input"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], broadcast=1),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)


def half() -> onnx.ModelProto:
    model = small_classifier()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def quantised() -> onnx.ModelProto:
    model = small_classifier()
    pair = [
        helper.make_node("QuantizeLinear", ["input", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "s"))
    model.graph.node[0].input[0] = "d"
    nodes = [*pair, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def not_finite() -> onnx.ModelProto:
    model = small_classifier()
    (kernel,) = [tensor for tensor in model.graph.initializer if tensor.name == "kernel"]
    values = numpy_helper.to_array(kernel).copy()
    values[0, 0, 0, 0] = np.nan
    kernel.CopyFrom(numpy_helper.from_array(values, "kernel"))
    return model


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (no_classifier, ("m.onnx", "not an image classifier", "rank 4")),
        (too_old, ("opset 6 and cannot be raised to 13", "Export it again with opset 13")),
        (half, ("16-bit floating point", "Quantise the FP32 file")),
        (quantised, ("quantised already", "QuantizeLinear", "Quantise the FP32 file")),
        (not_finite, ("The activation 'r' is not finite on a calibration image", "optkit evaluate")),
    ],
)
def test_files_that_cannot_be_quantised(here: Path, make: object, texts: tuple[str, ...]) -> None:
    write_photos(here / "photos")
    onnx.save(make(), here / "m.onnx")
    optkit("cost", "m.onnx", *LOAD)  # what reads the file itself is made before: nothing else may be
    assert_refused(["quantize", "m.onnx", "--data", "photos", *LOAD], 4, *texts)


@pytest.mark.parametrize(
    ("target", "convolutions", "named"),
    [("onnxruntime", 1, "r"), ("tensorrt", 2, "r"), ("tensorrt", 1, "logits")],
)
def test_a_clipped_convolution_that_is_not_finite_is_named(
    here: Path, target: str, convolutions: int, named: str
) -> None:
    """The logits where no range is wanted of anything behind it."""
    write_photos(here / "photos")
    model = not_finite()
    if convolutions == 2:
        weight = np.full((16, 16, 1, 1), 0.1, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "again"))
        model.graph.node[2].input[0] = "s"
        model.graph.node.insert(2, helper.make_node("Conv", ["r", "again"], ["s"], "second"))
    (activation,) = (node for node in model.graph.node if node.op_type == "Relu")
    activation.op_type = "Clip"
    for name, end in (("low", 0), ("high", 6)):
        activation.input.append(name)
        model.graph.initializer.append(numpy_helper.from_array(np.float32(end), name))
    onnx.save(model, here / "m.onnx")
    optkit("cost", "m.onnx", *LOAD)
    command = ["quantize", "m.onnx", "--data", "photos", *LOAD, "--target", target]
    assert_refused(
        command, 4, f"The activation '{named}' is not finite on a calibration image", "optkit evaluate"
    )


def test_external_data_that_is_missing(here: Path) -> None:
    model = small_classifier()
    onnx.save_model(
        model, here / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (here / "weights.bin").unlink()
    command = ["quantize", "m.onnx", "--data", "synthetic", *LOAD]
    assert_refused(command, 4, "external data of 'm.onnx' cannot be read", "weights.bin", "beside it")


@pytest.mark.parametrize(("folders", "text"), [((), "no class folders"), (("a", "b"), "'photos/a' is empty")])
def test_a_calibration_folder_without_images(here: Path, folders: tuple[str, ...], text: str) -> None:
    small_classifier(here / "m.onnx")
    (here / "photos").mkdir()
    for name in folders:
        (here / "photos" / name).mkdir()
    optkit("cost", "m.onnx", *LOAD)
    for command in (["quantize", "m.onnx", "--data", "photos", *LOAD], ["sample", "--data", "photos"]):
        assert_refused(command, 4, text)


def test_constant_images_work_and_are_warned_of(here: Path) -> None:
    small_classifier(here / "m.onnx")
    write_photos(here / "grey", grey=True)
    done = optkit("quantize", "m.onnx", "--data", "grey", *LOAD, "--json")
    assert done.code == 0, done.err
    assert any("CONSTANT IMAGES: 15 of 15" in text for text in done.json["warnings"])
    measured = optkit("evaluate", "runs/quantize", "--data", "grey", "--json")
    assert measured.code == 0, measured.err


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
def test_what_floating_point_says_fits_the_report(here: Path, precision: str) -> None:
    small_classifier(here / "m.onnx")
    command = ["quantize", "m.onnx", "--data", "synthetic", *LOAD, "--calibration-images", "16"]
    command += ["--target", "tensorrt", "--precision", precision]
    done = optkit(*command, "--json")
    assert done.code == 0, done.err
    assert done.json["precision"] == precision
    assert sum(done.json["quantized"].values()) > 0
    assert [done.json[name] for name in ("ladder", "budget", "speed")] == [None] * 3
    is_typed = precision != "fp8"
    for name in ("largest_activation", "largest_sum", "limit", "validation", "validated_by"):
        assert (done.json[name] is not None) is is_typed
    plain = optkit(*command)
    assert plain.code == 0, plain.err
    assert f"operators in {precision.upper()}" in plain.out
    assert ("largest activation" in plain.out) is is_typed
    assert ("Simulated by emulation" in plain.out) is is_typed
    report = optkit("report", "runs", "--json")
    assert report.code == 0, report.err
    (found,) = report.json["quantized"]
    assert found["converted"] == done.json["quantized"]
    assert [one["node"] for one in found["left"]] == [one["node"] for one in done.json["float"]]
    assert f"operators in {precision.upper()}" in Path("runs/report.md").read_text()


@pytest.mark.parametrize("flags", [[], ["--allow-slower"]])
def test_a_file_slower_than_fp32_is_refused_unless_it_is_allowed(
    photos: None, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    def time_rounds(sessions, spec, rounds, reporter):
        return np.array([[2.0] * (len(sessions) - 1) + [3.0]] * 3)

    for module in (float_prefix, speed):
        monkeypatch.setattr(module, "time_rounds", time_rounds)
    command = ["quantize", "m.onnx", "--data", "photos", *LOAD, "--rungs", "ranges", "--out", "int8"]
    done = optkit(*command, *flags)
    assert done.code == (0 if flags else 1)
    assert Path("int8").exists() is bool(flags)
    assert "SLOWER THAN FP32 HERE: 1.50 times the latency of FP32" in done.err
    assert "INT8 takes 3 ms in onnxruntime, FP32 2 ms, at batch 1 with" in done.err
    assert ("--allow-slower" in done.err) is (not flags)
    if not flags:
        said = optkit(*command, "--json")
        assert said.json["error"]["exit_code"] == said.code == 1


def test_a_ladder_is_told_to_people_and_programs(photos: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.005)
    monkeypatch.setattr(float_prefix, "CUTS", 0)
    command = ["quantize", "m.onnx", "--data", "photos", *LOAD, "--min-sqnr", "5", "--rungs", "ranges"]
    command.append("--allow-slower")
    done = optkit(*command, "--json")
    assert done.code == 0, done.err
    assert done.json["ladder"][0]["rung"] == "calibration"
    assert done.json["budget"]["min_sqnr"] == 5
    assert done.json["validation"]["sqnr_db"] > 5
    assert done.json["sensitivity"][0].keys() == {"node", "op", "sqnr_db"}
    assert done.json["speed"]["runtime"] == "onnxruntime"
    plain = optkit(*command)
    assert plain.code == 0, plain.err
    assert "the budget holds." in plain.out
    assert "\nspeed: " in plain.out
    assert "INT8 in onnxruntime is" in plain.out
    report = optkit("report", "runs", "--json")
    assert report.code == 0, report.err
    assert report.json["quantized"][0]["speed"] == done.json["speed"]
