from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_prepare import prepare
from optkit.stages.quantize import observe as module
from optkit.stages.quantize.calibrators.base import BINS, Histogram, Observed
from tests.small_networks import Builder, residual_network, textured_images


def observe(model: onnx.ModelProto, sizes: list[int], histograms: bool = True) -> dict[str, Observed]:
    pixels = textured_images(sum(sizes))
    batches = np.split(pixels, np.cumsum(sizes)[:-1])
    names = ["input", *(name for node in model.graph.node for name in node.output if name != "logits")]
    with SilentReporter().track("") as task:
        return module.observe(model, classifier_io(model), names, batches, histograms, task)


def test_extremes_are_exact_and_nothing_depends_on_the_batches() -> None:
    model = prepare(residual_network())
    one, ragged = observe(model, [7]), observe(model, [3, 3, 1])
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(n, 1, None) for n in one if n != "input")
    names = [value.name for value in probe.graph.output]
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    truth = dict(zip(names, session.run(None, {"input": textured_images(7)}), strict=True))
    for name, entry in one.items():
        assert entry.low == pytest.approx(ragged[name].low, abs=1e-5)
        assert entry.high == pytest.approx(ragged[name].high, abs=1e-5)
        if name in truth:
            assert entry.low == pytest.approx(min(0, truth[name].min()), abs=1e-5)
            assert entry.high == pytest.approx(max(0, truth[name].max()), abs=1e-5)
        moved = np.abs(entry.histogram.counts - ragged[name].histogram.counts).sum()
        assert moved <= 0.01 * entry.histogram.counts.sum()
        assert entry.histogram.counts.sum() > 0


def test_static_batch_is_filled_up_and_the_filling_is_not_counted() -> None:
    static, dynamic = prepare(residual_network(batch=4)), prepare(residual_network())
    filled, plain = observe(static, [4, 2]), observe(dynamic, [4, 2])
    assert filled["input"].histogram.counts.tolist() == plain["input"].histogram.counts.tolist()


@pytest.mark.parametrize("batch", [None, 4])
def test_an_image_may_have_several_rows(batch: int | None) -> None:
    """As where it is cut into windows; the extremes of all of them count."""
    b = Builder()
    shape = b.constant(np.array([-1, 12, 16], np.int64))  # four windows of each image
    rows = b.op("Tanh", b.op("Reshape", "input", shape))
    back = b.op("Reshape", rows, b.constant(np.array([batch or -1, 3, 16, 16], np.int64)))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(back, 3, 4)))
    model = prepare(b.model(x, 4, batch, 20))
    found = observe(model, [4, 2])
    pixels = textured_images(6)
    assert found[rows].low == pytest.approx(np.tanh(pixels.min()))
    assert found[rows].high == pytest.approx(np.tanh(pixels.max()))


def test_what_is_next_to_nothing_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.add(np.full(10, 1e-38, np.float32))
    histogram.add(np.array([0.5], np.float32))
    assert histogram.counts.sum() == 11
    assert np.average(histogram.centers, weights=histogram.counts) == pytest.approx(0.5 / 11, abs=1e-3)


def test_sampling_takes_every_row_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(residual_network())
    full = observe(model, [8])
    monkeypatch.setattr(module, "SAMPLES", 100)
    sampled = observe(model, [8])
    counts = sampled["input"].histogram.counts.sum()
    assert 8 * 60 <= counts <= 8 * 100
    histograms = [observed["input"].histogram for observed in (full, sampled)]
    spreads = [np.sqrt(np.average(h.centers**2, weights=h.counts)) for h in histograms]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)


@pytest.mark.parametrize("histograms", [True, False])
def test_not_a_number_names_the_tensor(histograms: bool) -> None:
    model = prepare(residual_network())
    pixels = textured_images(2)
    pixels[1, 0, 3, 3] = np.nan
    with SilentReporter().track("") as task, pytest.raises(InputError, match="'input'"):
        module.observe(model, classifier_io(model), ["input"], [pixels], histograms, task)


def test_no_image_is_an_error() -> None:
    model = prepare(residual_network())
    with SilentReporter().track("") as task, pytest.raises(InputError, match="no image"):
        module.observe(model, classifier_io(model), ["input"], [], True, task)


def test_histogram_is_the_same_in_any_order_and_keeps_its_size() -> None:
    values = (np.random.default_rng(0).standard_normal(10_000) ** 5).astype(np.float32)
    forward, backward = Histogram(), Histogram()
    for part in np.split(values, 10):
        forward.add(part)
    for part in np.split(values[::-1], 4):
        backward.add(part)
    assert forward.limit == backward.limit
    assert forward.counts.tolist() == backward.counts.tolist()
    assert forward.counts.sum() == len(values)
    assert len(forward.counts) == BINS
    assert forward.magnitudes().sum() == len(values)
    below = values[(values < 1) & (values >= 0)].size
    edges = np.linspace(-forward.limit, forward.limit, BINS + 1)
    assert abs(forward.counts[(edges[:-1] >= 0) & (edges[1:] <= 1)].sum() - below) < 100


def test_zeros_alone_make_a_histogram() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(5, np.float32))
    histogram.add(np.array([3.0], np.float32))
    assert histogram.limit == 4.0
    assert histogram.counts[BINS // 2] == 5
