from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import Unsupported
from optkit.stages.quantize import fitting
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.choose import find_ranges
from optkit.stages.quantize.fitting import fit_layers
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.workbench import Workbench, run_model
from tests.small_networks import gated_network, residual_network, textured_images


def workbench(model: onnx.ModelProto, count: int = 96) -> Workbench:
    images = textured_images(count + 32)
    fit = [images[start : start + 8] for start in range(0, count, 8)]
    held = [images[count:]]
    io = classifier_io(model)
    return Workbench(io, fit, held, run_model(model, io, held), SilentReporter())


def calibrated(model: onnx.ModelProto, bench: Workbench, placement, calibrator: str = "minmax") -> Candidate:
    view = GraphView(model)
    plan = placement.plan(view)
    with bench.reporter.track("") as task:
        observed = observe(model, bench.io, plan.observed(), bench.fit, True, task)
    return Candidate(model, plan, observed, calibrator, find_ranges(calibrator, view, plan, observed))


def coarsened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every output channel gets one weight so large that the others are rounded coarsely."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    view = GraphView(changed)
    for node in view.nodes:
        if (axis := view.weight_axis(node)) is not None:
            weight = view.constant(node.input[1]).copy()
            rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
            rows[:, 0] *= 8
            tensor = next(one for one in changed.graph.initializer if one.name == node.input[1])
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    return changed


@pytest.mark.parametrize("network", [residual_network, gated_network])
@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_fitted_weights_keep_the_logits_of_unseen_images_better(network, placement) -> None:
    model = prepare(coarsened(prepare(network())))
    bench = workbench(model)
    before = calibrated(model, bench, placement)
    after, note = fit_layers(before, bench, "fit", biases_only=False)
    assert bench.score_of(after) > bench.score_of(before) + 0.5
    assert note.endswith("layers")
    assert after.weight_scales.keys() == {
        node.name
        for node in model.graph.node
        if node.name in before.plan.nodes and GraphView(model).weight_axis(node) is not None
    }


def test_the_placement_stays() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    before = calibrated(model, bench, for_onnxruntime)
    after, _ = fit_layers(before, bench, "fit", biases_only=False)
    nodes = [one.build().graph.node for one in (before, after)]
    assert [node.SerializeToString() for node in nodes[0]] == [node.SerializeToString() for node in nodes[1]]


def test_biases_alone_keep_the_means() -> None:
    """Ranges that are cut too short shift every mean; the weights stay as they are."""
    model = prepare(residual_network())
    bench = workbench(model)
    found = calibrated(model, bench, for_onnxruntime)
    before = replace(found, ranges={name: (low / 3, high / 3) for name, (low, high) in found.ranges.items()})
    after, _ = fit_layers(before, bench, "fit", biases_only=True)

    def shift(candidate: Candidate) -> float:
        drift = run_model(candidate.build(), bench.io, bench.fit) - run_model(model, bench.io, bench.fit)
        return float(np.abs(drift.mean(0)).max())

    assert shift(after) < 0.2 * shift(before)
    assert not after.weight_scales
    view, fitted = GraphView(before.build()), GraphView(after.build())
    weights = [name for name in view.constants if name.endswith("weight.quantized")]
    assert weights
    assert all((view.constant(name) == fitted.constant(name)).all() for name in weights)


def test_layers_with_too_many_inputs_are_left_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_INPUTS", 16)
    model = prepare(residual_network())
    bench = workbench(model)
    after, note = fit_layers(calibrated(model, bench, for_onnxruntime), bench, "fit", biases_only=False)
    assert "1 with more than 16 inputs" in note
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    assert first.name not in after.weight_scales


def test_only_as_many_images_as_fit_into_memory_are_used() -> None:
    large = [np.zeros((8, 3, 1024, 1024), np.float32)] * 10
    small = [np.zeros((8, 3, 224, 224), np.float32)] * 40
    assert len(fitting._first(large)) == 16
    assert len(fitting._first(small)) == fitting.IMAGES


def test_an_operator_without_a_torch_form_is_unsupported() -> None:
    model = prepare(residual_network())
    bench = workbench(model, 8)
    candidate = calibrated(model, bench, for_onnxruntime)
    next(node for node in model.graph.node if node.op_type == "MaxPool").op_type = "LpPool"
    with pytest.raises(Unsupported, match="LpPool"):
        fit_layers(candidate, bench, "fit", biases_only=False)
