from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from optkit.core.progress import SilentReporter
from optkit.core.types import Context, ModelSpec, Preprocess
from optkit.data.base import Dataset
from optkit.data.calibration import CalibrationSet
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_prepare import prepare
from optkit.graph.torch_module import GraphModule
from optkit.graph.torch_operators import Unsupported
from optkit.stages.quantize import training
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.eight_bit import Source, quantize
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.grids import file_scales
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.recovery import qat
from optkit.stages.quantize.training import learning_images, train_student
from optkit.stages.quantize.workbench import Judged, Workbench
from optkit.train.phase import Diverged
from tests.small_networks import Builder, gated_network, residual_network, textured_images
from tests.stages.quantize.support import calibrated, sqnr_db

PREPROCESS = Preprocess(size=16)


@pytest.fixture(scope="module")
def stripes() -> Dataset:
    return load_data(DataConfig(path="synthetic"), SilentReporter())


def workbench(model: onnx.ModelProto, data: Dataset, context: Context, **options: object) -> Workbench:
    """Every eighth of 128 training images is kept back to judge by."""
    chosen = np.arange(128)
    kept_back = data.train.subset(chosen[::8])

    def read(images) -> list[np.ndarray]:
        return [batch.pixels for batch in batches(images, PREPROCESS, 16, context.reporter)]

    fit, held = read(data.train.subset(np.setdiff1d(chosen, chosen[::8]))), read(kept_back)
    train = partial(
        train_student,
        dataset=learning_images(data, kept_back.ids),
        preprocess=PREPROCESS,
        config=Config(data="synthetic", **options),
        context=context,
    )
    io = classifier_io(model)
    judged = Judged(held, run_model(model, io, held))
    return Workbench(io, fit, lambda: fit, judged, judged, 0, context.reporter, train)


def trained(
    model: onnx.ModelProto, data: Dataset, folder: Path, placement=for_onnxruntime, **options: object
) -> tuple[Candidate, Candidate, Workbench]:
    """A calibrated candidate, what the rung makes of it, and the workbench."""
    bench = workbench(model, data, Context(folder, SilentReporter()), **options)
    start = calibrated(model, bench, placement)
    found = qat.improve(start, bench)
    assert found is not None
    return start, found[0], bench


def awkward_network() -> onnx.ModelProto:
    """Dead channels, whose scales come from their biases, and a factor for every channel that is no weight."""
    b = Builder()
    x = b.op("Relu", b.conv("input", 3, 8))
    b.weights["w0"][2:6] = 0
    b.weights["w1"][2:6] = 1
    x = b.op("Mul", x, b.constant(np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(1, 8, 1, 1)))
    x = b.op("GlobalAveragePool", b.op("Relu", b.conv(x, 8, 16)))
    weight = b.rng.standard_normal((4, 16)).astype(np.float32)
    x = b.op("Gemm", b.op("Flatten", x), b.constant(weight), b.constant(np.zeros(4, np.float32)), transB=1)
    return b.model(x, 4, None, 20)


@pytest.mark.parametrize("network", [residual_network, gated_network, awkward_network])
@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_nothing_but_weights_and_biases_changes(network, placement, stripes: Dataset, tmp_path: Path) -> None:
    start, found, _ = trained(prepare(network()), stripes, tmp_path, placement, qat_lr=1e-2)
    before, after = start.build(), found.build()
    learnt = {name for node in start.model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")
              for name in node.input[1:]}  # fmt: skip
    constants = [{t.name: t.SerializeToString() for t in file.graph.initializer} for file in (before, after)]
    assert [*constants[0]] == [*constants[1]]
    changed = {name for name in constants[0] if constants[0][name] != constants[1][name]}
    assert any(name.endswith(".weight.quantized") for name in changed)
    assert all(name in learnt or name.endswith((".weight.quantized", ".bias.quantized")) for name in changed)
    for file in (before, after):
        del file.graph.initializer[:]
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def test_dead_channels_would_be_rescaled_by_larger_biases(stripes: Dataset, tmp_path: Path) -> None:
    """The case that the biases are limited for."""
    start, found, _ = trained(prepare(awkward_network()), stripes, tmp_path)
    grown = replace(found, fitted={name: value * 2 for name, value in found.fitted.items()})
    scales = [file_scales(one, one.build()) for one in (start, found, grown)]
    first = start.model.graph.node[0].name
    assert (scales[0][first] == scales[1][first]).all()
    assert (scales[2][first][2:6] > scales[0][first][2:6]).all()


@pytest.mark.parametrize("network", [residual_network, gated_network])
@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_the_file_answers_as_the_simulated_network(
    network, placement, stripes: Dataset, tmp_path: Path
) -> None:
    model = prepare(network())
    _, found, bench = trained(model, stripes, tmp_path, placement, qat_lr=1e-3)
    pixels = textured_images(2000, seed=3)
    scales = found.plan.scales(found.ranges)
    module = GraphModule(found.fitted_model(), found.plan, scales, found.weight_scales)
    with torch.inference_mode():
        simulated = module(torch.from_numpy(pixels)).numpy()
    file, exact = (run_model(one, bench.io, [pixels]) for one in (found.build(), model))
    labels = exact.argmax(1)
    tops = [100 * (logits.argmax(1) == labels).mean() for logits in (simulated, file)]
    assert abs(tops[0] - tops[1]) <= 0.1
    assert np.abs(simulated - file).mean() < 0.05 * np.abs(simulated - exact).mean()


@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_a_coarsely_rounded_network_learns_to_answer_better(
    placement, stripes: Dataset, tmp_path: Path
) -> None:
    """Weights on a grid of five bits; the grid itself stays."""
    model = prepare(gated_network())
    bench = workbench(model, stripes, Context(tmp_path, SilentReporter()), qat_lr=3e-4, qat_epochs=3)
    start = calibrated(model, bench, placement)
    grids = {name: scales * 8 for name, scales in file_scales(start, start.build()).items()}
    coarse = replace(start, weight_scales=grids)
    found, _ = qat.improve(coarse, bench)
    assert sqnr_db(found, bench) > sqnr_db(coarse, bench) + 4
    assert all((found.weight_scales[name] == grids[name]).all() for name in grids)


def test_images_to_choose_and_judge_by_are_not_learnt(stripes: Dataset, tmp_path: Path) -> None:
    """What one more epoch reads is what is learnt: all training images but the 32 of 112 that are set aside."""
    model = prepare(residual_network())
    read: Counter[int] = Counter()

    def open_image(index: int):
        read[index] += 1
        return stripes.train.open_image(index)

    data = replace(stripes, train=replace(stripes.train, open_image=open_image))
    calibration = CalibrationSet(data.train.subset(np.arange(112)), (), "synthetic", 0)
    spec = ModelSpec(arch="small", num_classes=4, class_names=data.class_names, preprocess=PREPROCESS)
    source = Source(model, classifier_io(model), spec, data, calibration)
    counts = []
    for epochs in (1, 2):
        read.clear()
        config = Config(
            data="synthetic",
            calibrator="minmax",
            rungs=("qat",),
            qat_epochs=epochs,
            check_images=16,
            allow_slower=True,
        )
        _, details = quantize(source, config, Context(tmp_path, SilentReporter()))
        assert details["ladder"][1]["note"].split(";")[0] == f"{18 * epochs} steps on 288 images"
        counts.append(Counter(read))
    aside = set(range(len(data.train))) - (counts[1] - counts[0]).keys()
    assert len(aside) == 32
    assert aside < set(range(112))
    assert set((counts[1] - counts[0]).values()) == {1}
    assert all(counts[0][index] for index in aside), "they are looked at, to choose and to judge"


def test_without_other_images_it_says_so(stripes: Dataset, tmp_path: Path) -> None:
    few = replace(stripes, train=stripes.train.subset(np.arange(0, 128, 8)))
    model = prepare(residual_network())
    start = calibrated(model, workbench(model, stripes, Context(tmp_path, SilentReporter())), for_onnxruntime)
    bench = workbench(model, stripes, Context(tmp_path, SilentReporter()))
    train = partial(
        bench.train.func, **bench.train.keywords | {"dataset": learning_images(few, few.train.ids)}
    )
    found, note = qat.improve(start, replace(bench, train=train))
    assert "no training images" in note
    assert found.build() == start.build()


def test_options_of_the_training_are_obeyed(stripes: Dataset, tmp_path: Path) -> None:
    model = prepare(residual_network())
    bench = workbench(model, stripes, Context(tmp_path, SilentReporter()))
    start = calibrated(model, bench, for_onnxruntime)

    def outcome(**options: object) -> tuple[float, str]:
        config = Config(data="synthetic", **options)
        train = partial(bench.train.func, **bench.train.keywords | {"config": config})
        found, note = qat.improve(start, replace(bench, train=train))
        exact = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        return max(float(np.abs(value - exact[name]).max()) for name, value in found.fitted.items()), note

    slow, fast, longer = outcome(qat_lr=1e-5), outcome(qat_lr=1e-3), outcome(qat_epochs=2)
    assert 10 * slow[0] < fast[0]
    assert (slow[1], longer[1]) == ("19 steps on 304 images", "38 steps on 304 images")


class Killed(Exception):
    """Stands for the end of the process."""


class KillingReporter(SilentReporter):
    """Ends a training after `steps` steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left < 0:
            raise Killed

    @contextmanager
    def track(self, description: str, total: int | None = None):
        yield self


def test_a_killed_training_goes_on_where_it_was(stripes: Dataset, tmp_path: Path) -> None:
    model = prepare(residual_network())

    def rung(reporter: SilentReporter, scratch: Path, factor: float = 1.0) -> dict[str, np.ndarray]:
        quiet = Context(tmp_path, SilentReporter(), scratch)
        bench = workbench(model, stripes, quiet, qat_epochs=2, qat_lr=1e-3)
        start = calibrated(model, bench, for_onnxruntime)
        ranges = {name: (low * factor, high * factor) for name, (low, high) in start.ranges.items()}
        keywords = bench.train.keywords | {"context": Context(tmp_path, reporter, scratch)}
        bench = replace(bench, train=partial(bench.train.func, **keywords))
        return qat.improve(replace(start, ranges=ranges), bench)[0].fitted

    whole = rung(SilentReporter(), tmp_path / "whole")
    with pytest.raises(Killed):
        rung(KillingReporter(25), tmp_path / "killed")
    counting = KillingReporter(1000)
    resumed = rung(counting, tmp_path / "killed")
    assert counting.left == 1000 - 38, "19 steps that were done, told at once, and 19 more"
    assert all((whole[name] == resumed[name]).all() for name in whole)
    again = rung(KillingReporter(0), tmp_path / "killed")
    assert all((whole[name] == again[name]).all() for name in whole), (
        "killed after the training: nothing to do"
    )
    other = rung(SilentReporter(), tmp_path / "killed", factor=1.1)
    assert any((other[name] != whole[name]).any() for name in whole), "another candidate starts anew"
    assert len([*(tmp_path / "killed").iterdir()]) == 2


def test_a_diverged_training_is_told_and_leaves_the_candidate(stripes: Dataset, tmp_path: Path) -> None:
    def train(*_: object) -> str:
        raise Diverged(lr=0.5, epoch=1, loss=float("nan"))

    model = prepare(residual_network())
    bench = replace(workbench(model, stripes, Context(tmp_path, SilentReporter())), train=train)
    start = calibrated(model, bench, for_onnxruntime)
    found, note = qat.improve(start, bench)
    assert found is start
    assert "diverged" in note
    assert "0.5" in note


def test_a_graph_of_one_batch_size_is_told() -> None:
    b = Builder()
    x = b.op("Reshape", b.op("GlobalAveragePool", b.conv("input", 3, 8)), b.constant(np.array([1, 8])))
    x = b.op("Gemm", x, b.constant(np.ones((8, 4), np.float32)))
    with pytest.raises(Unsupported, match="batch size"):
        training._parts(GraphModule(prepare(b.model(x, 4, 1, 20))), 16)


def test_an_operator_without_a_torch_form_is_told(stripes: Dataset, tmp_path: Path) -> None:
    model = residual_network()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Elu"
    model = prepare(model)
    calibration = CalibrationSet(stripes.train.subset(np.arange(32)), (), "synthetic", 0)
    spec = ModelSpec(arch="small", num_classes=4, class_names=stripes.class_names, preprocess=PREPROCESS)
    source = Source(model, classifier_io(model), spec, stripes, calibration)
    config = Config(data="synthetic", calibrator="minmax", rungs=("qat",), check_images=16, allow_slower=True)
    _, details = quantize(source, config, Context(tmp_path, SilentReporter()))
    assert details["ladder"][1]["note"] == "no torch form of Elu"


def test_large_activations_are_trained_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = GraphModule(prepare(residual_network()))
    parts = {}
    for memory in (None, 10**9, 5 * 10**6, 1):
        monkeypatch.setattr(training.machine, "facts", lambda memory=memory: {"memory_bytes": memory})
        parts[memory] = training._parts(module, 16)
    assert parts[None] == parts[10**9] == 1
    assert 1 < parts[5 * 10**6] < parts[1] == training.BATCH
