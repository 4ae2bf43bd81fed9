from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq import insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.rescale import channel_groups, column_magnitudes
from optkit.measure.parity import compare_logits
from optkit.stages.quantize.channel_ranges import ChannelRange, observe_channels
from optkit.stages.quantize.choose import find_ranges
from optkit.stages.quantize.equalise import MAX_FACTOR, channels_to_observe, equalise
from optkit.stages.quantize.execute import open_session
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.placement import onnxruntime as placement
from tests.small_networks import Builder, bottleneck_network, textured_images
from tests.stages.quantize.support import spread


def ranges_of(model: onnx.ModelProto, sizes: tuple[int, ...] = (4, 3)) -> dict[str, ChannelRange]:
    wanted = channels_to_observe(GraphView(model), placement.plan(GraphView(model)))
    batches = np.split(textured_images(sum(sizes)), np.cumsum(sizes)[:-1])
    with SilentReporter().track("") as task:
        return observe_channels(model, classifier_io(model), wanted, batches, task)


def answer(model: onnx.ModelProto) -> np.ndarray:
    return open_session(model).run(None, {"input": textured_images(7)})[0]


def sqnr_db(model: onnx.ModelProto) -> float:
    """Of the quantised file against the network itself."""
    view = GraphView(model)
    plan = placement.plan(view)
    with SilentReporter().track("") as task:
        seen = observe(model, classifier_io(model), plan.observed(), [textured_images(7)], False, task)
    quantized = insert_qdq(model, plan, find_ranges("minmax", view, plan, seen))
    return compare_logits(answer(model), answer(quantized)).sqnr_db


def test_ranges_are_those_of_every_channel() -> None:
    model = prepare(bottleneck_network())
    (group,) = channel_groups(GraphView(model))
    ranges = ranges_of(model)
    assert set(ranges) == set(group.tensors)
    for name, entry in ranges.items():
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        probe.graph.output.append(helper.make_tensor_value_info(name, 1, None))
        truth = open_session(probe).run(None, {"input": textured_images(7)})[-1]
        np.testing.assert_allclose(entry.low, np.minimum(truth.min(axis=(0, 2, 3)), 0), atol=1e-5)
        np.testing.assert_allclose(entry.high, np.maximum(truth.max(axis=(0, 2, 3)), 0), atol=1e-5)


def test_ranges_of_a_static_batch_are_the_same() -> None:
    static, dynamic = (
        ranges_of(prepare(bottleneck_network(batch=4))),
        ranges_of(prepare(bottleneck_network())),
    )
    for name, entry in dynamic.items():
        np.testing.assert_allclose(static[name].high, entry.high, rtol=1e-5)


def test_channels_of_flattened_maps_are_told_apart() -> None:
    b = Builder()
    x = b.op("Flatten", b.op("Relu", b.conv("input", 3, 2)))
    weight = b.rng.standard_normal((4, 512)).astype(np.float32)
    model = prepare(b.model(b.op("Gemm", x, b.constant(weight), transB=1), 4, None, 20))
    (group,) = channel_groups(GraphView(model))
    with SilentReporter().track("") as task:
        wanted = dict.fromkeys(group.tensors, 2)
        ranges = observe_channels(model, classifier_io(model), wanted, [textured_images(3)], task)
    highs = [ranges[name].high for name in group.tensors[1:]]  # Relu and Flatten
    np.testing.assert_allclose(highs[0], highs[1])


def test_no_image_is_an_error() -> None:
    model = prepare(bottleneck_network())
    with SilentReporter().track("") as task, pytest.raises(InputError, match="no image"):
        observe_channels(model, classifier_io(model), {}, [], task)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_spread_channels_are_brought_back(alpha: float) -> None:
    hard = spread(prepare(bottleneck_network()))
    mended = equalise(hard, ranges_of(hard), alpha)
    np.testing.assert_allclose(answer(mended), answer(hard), rtol=1e-3, atol=1e-4)
    assert sqnr_db(hard) < 10
    assert sqnr_db(mended) > 30


def test_whole_equalisation_widens_no_channel_beyond_its_tensor() -> None:
    """Of the relative kind: before and after, the narrowest end of any channel against the tensor's."""
    hard = spread(prepare(bottleneck_network()))
    before = ranges_of(hard)
    after = ranges_of(equalise(hard, before, 1.0))
    assert list(after) == list(before)
    for name, entry in after.items():
        shares = [
            np.median(np.maximum(r.high / r.high.max(), r.low / r.low.min())) for r in (before[name], entry)
        ]
        assert shares[1] > max(0.3, 3 * shares[0])


def test_alpha_weighs_activations_against_weights() -> None:
    model = prepare(bottleneck_network())
    (group,) = channel_groups(GraphView(model))
    high = np.geomspace(1, 1000, group.channels).astype(np.float32)
    ranges = dict.fromkeys(group.tensors, ChannelRange(low=-high, high=high))

    def column_spread(alpha: float) -> float:
        columns = column_magnitudes(GraphView(equalise(model, ranges, alpha)), group)
        return float(columns.max() / columns.min())

    spreads = [column_spread(alpha) for alpha in (0.0, 0.5, 1.0)]
    assert spreads[0] < 5 < spreads[1] < spreads[2]


def test_dead_channels_keep_the_mean_factor_and_factors_are_bounded() -> None:
    model = prepare(bottleneck_network())
    (group,) = channel_groups(GraphView(model))
    high = np.ones(group.channels, np.float32)
    high[2], high[5] = 0.0, 1e-30
    entry = ChannelRange(low=np.zeros_like(high), high=high)
    changed = equalise(model, dict.fromkeys(group.tensors, entry), 1.0)
    (before, after) = (
        numpy_helper.to_array(GraphView(m).constants[GraphView(m).producer[group.tensors[0]].input[1]])
        for m in (model, changed)
    )
    factors = (after / before)[:, 0, 0, 0]
    assert factors[2] == pytest.approx(1.0)
    assert factors[5] == pytest.approx(MAX_FACTOR)
    assert factors.min() == pytest.approx(1 / MAX_FACTOR)
    assert np.isfinite(after).all()


def test_without_ranges_or_with_dead_tensors_nothing_changes() -> None:
    model = prepare(bottleneck_network())
    (group,) = channel_groups(GraphView(model))
    zero = ChannelRange(np.zeros(group.channels, np.float32), np.zeros(group.channels, np.float32))
    for ranges in ({}, dict.fromkeys(group.tensors, zero)):
        assert equalise(model, ranges, 1.0).SerializeToString() == model.SerializeToString()
