from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize import observe as module
from optkit.stages.quantize.calibrators.base import BINS, Histogram, Observed
from optkit.stages.quantize.channel_ranges import observe_channels
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
    view = GraphView(model)
    for name, entry in one.items():
        assert entry.low == pytest.approx(ragged[name].low, abs=1e-5)
        assert entry.high == pytest.approx(ragged[name].high, abs=1e-5)
        if name in truth:
            assert entry.low == pytest.approx(min(0, truth[name].min()), abs=1e-5)
            assert entry.high == pytest.approx(max(0, truth[name].max()), abs=1e-5)
        moved = np.abs(entry.histogram.counts - ragged[name].histogram.counts).sum()
        assert moved <= 0.01 * entry.histogram.counts.sum()
        assert (entry.histogram.counts.sum() == 0) == view.is_bounded(name)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_clipped_convolution_is_reduced_where_it_lies(low: float) -> None:
    """Its highs are pooled; below 0 there is nothing to look for, unless the Clip leaves something there."""
    b = Builder()
    ends = [b.constant(np.array(end, np.float32)) for end in (low, 6.0)]
    clipped = b.op("Clip", b.conv("input", 3, 4), *ends)
    again = b.op("Clip", b.op("Add", clipped, clipped), *ends)  # no convolution before it
    x = b.op("Flatten", b.op("GlobalAveragePool", again))
    model = prepare(b.model(x, 4, None, 20))
    observing = module._with_observers(model, [clipped, again], {})
    outputs = {output.name for output in observing.graph.output}
    assert (f"{clipped}.observe.low" in outputs) == (low < 0)
    assert {
        f"{clipped}.observe.high",
        f"{clipped}.observe.sum",
        f"{again}.observe.low",
        f"{again}.observe.high",
        f"{again}.observe.sum",
    } <= outputs
    found = observe(model, [3, 2])
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.helper.make_tensor_value_info(clipped, 1, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    truth = session.run([clipped], {"input": textured_images(5)})[0]
    assert found[clipped].high == pytest.approx(truth.max())
    assert found[clipped].low == pytest.approx(min(0, truth.min()))


def test_activations_are_reduced_as_soon_as_they_are_there(tmp_path: Path) -> None:
    """Else every one would be kept until the network's end, and memory grow with its depth."""
    b = Builder()
    x, channels = "input", 3
    for _ in range(4):
        x, channels = b.clip(b.conv(x, channels, 32)), 32
    model = prepare(b.model(b.op("Flatten", b.op("GlobalAveragePool", x)), 32, None, 20))
    clipped = [node.output[0] for node in model.graph.node if node.op_type == "Clip"]
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    observing = module._with_observers(model, clipped[::-1], {})
    session = onnxruntime.InferenceSession(
        observing.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"input": textured_images(1)})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [one["args"]["op_name"] for one in events if one["name"].endswith("_kernel_time")]
    seen = [name for name in kernels if name in ("Conv", "FusedConv", "GlobalMaxPool")]
    assert [name == "GlobalMaxPool" for name in seen] == 4 * [False, True]


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


def clipping_network(*ends: float, scale: float = 1.0) -> tuple[onnx.ModelProto, list[str]]:
    """Two convolutions, each before a Clip of these ends, and the tensors that the Clips make.

    The first one has one channel, and positive weights, which `scale` multiplies: of one pixel it makes one value.
    """
    b = Builder()
    given = [b.constant(np.array(end, np.float32)) for end in ends]
    first = b.conv("input", 3, 1, kernel=1)
    for name in b.nodes[-1].input[1:]:
        b.weights[name] = np.abs(b.weights[name]) * np.float32(scale)
    clipped = [b.op("Clip", first, *given)]
    clipped.append(b.op("Clip", b.conv(clipped[0], 1, 4), *given))
    x = b.op("Flatten", b.op("GlobalAveragePool", clipped[1]))
    return prepare(b.model(x, 4, None, 20)), clipped


def refused_for(model: onnx.ModelProto, names: list[str], pixels: np.ndarray, histograms: bool) -> str:
    """The tensor that is said not to be finite."""
    with SilentReporter().track("") as task, pytest.raises(InputError) as refused:
        module.observe(model, classifier_io(model), names, [pixels[:1], pixels[1:]], histograms, task)
    return str(refused.value).split("'")[1]


@pytest.mark.parametrize("histograms", [True, False])
def test_not_a_number_names_the_tensor(histograms: bool) -> None:
    """The first that holds one: of an image, and of a convolution that a Clip follows."""
    model, clipped = clipping_network(0.0, 6.0)
    pixels = textured_images(2)
    pixels[1, 0, 3, 3] = np.nan
    assert refused_for(model, ["input", *clipped], pixels, histograms) == "input"
    assert refused_for(model, clipped, pixels, histograms) == clipped[0]
    model, clipped = clipping_network(0.0, 6.0, scale=np.nan)
    assert refused_for(model, ["input", *clipped], textured_images(2), histograms) == clipped[0]
    assert refused_for(model, ["input"], textured_images(2), histograms) == "logits"


@pytest.mark.parametrize("ends", [(0.0,), (-1.0,), (0.0, float(np.finfo(np.float32).max))])
@pytest.mark.parametrize("histograms", [True, False])
def test_a_clip_without_an_upper_end_bounds_nothing(ends: tuple[float, ...], histograms: bool) -> None:
    """Of an infinity it makes the largest number, which is no range; what is finite has a histogram."""
    model, clipped = clipping_network(*ends)
    found = observe(model, [2], histograms)
    assert bool(found[clipped[0]].histogram.counts.any()) == histograms
    pixels = textured_images(2)
    pixels[1, 0, 3, 3] = np.inf
    assert refused_for(model, clipped, pixels, histograms) == clipped[0]
    bounded, clipped = clipping_network(0.0, 6.0)
    with SilentReporter().track("") as task:
        found = module.observe(bounded, classifier_io(bounded), clipped, [pixels], histograms, task)
    assert found[clipped[0]].high == 6


@pytest.mark.parametrize("ending", ["size", "maps", "ReduceMin", "flat"])
def test_tensors_of_a_model_may_be_called_anything(ending: str) -> None:
    b = Builder()
    x = b.op("Relu", b.conv("input", 3, 4))
    b.nodes[-1].output[0] = f"input.{ending}"
    x = b.op("Flatten", b.op("GlobalAveragePool", f"input.{ending}"))
    model = prepare(b.model(x, 4, None, 20))
    found = observe(model, [3])
    io = classifier_io(model)
    with SilentReporter().track("") as task:
        by_channel = observe_channels(model, io, {"input": 3}, [textured_images(3)], task)
    assert by_channel["input"].high.max() == pytest.approx(found["input"].high)


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
