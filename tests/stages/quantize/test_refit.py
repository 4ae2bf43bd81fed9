from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.graph.torch_operators import Unsupported
from optkit.stages.quantize import refit
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import openvino as for_openvino
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.refit import refit_layers
from tests.small_networks import bottleneck_network, gated_network, residual_network
from tests.stages.quantize.support import calibrated, coarsened, sqnr_db, workbench


@pytest.mark.parametrize("network", [residual_network, gated_network])
@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_fitted_weights_keep_the_logits_of_unseen_images_better(network, placement) -> None:
    model = prepare(coarsened(prepare(network())))
    bench = workbench(model, 192)
    before = calibrated(model, bench, placement)
    after, note = refit_layers(before, bench, "fit", biases_only=False)
    assert sqnr_db(after, bench) > sqnr_db(before, bench) + 1.5
    assert note.endswith("layers, 192 images")
    assert after.weight_scales.keys() == {
        node.name
        for node in model.graph.node
        if node.name in before.plan.nodes and GraphView(model).weight_axis(node) is not None
    }


def test_the_placement_stays() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    before = calibrated(model, bench, for_onnxruntime)
    after, _ = refit_layers(before, bench, "fit", biases_only=False)
    nodes = [one.build().graph.node for one in (before, after)]
    assert [node.SerializeToString() for node in nodes[0]] == [node.SerializeToString() for node in nodes[1]]


def test_biases_alone_keep_the_means() -> None:
    """Ranges that are cut too short shift every mean; the weights stay as they are."""
    model = prepare(residual_network())
    bench = workbench(model)
    found = calibrated(model, bench, for_onnxruntime)
    before = replace(found, ranges={name: (low / 3, high / 3) for name, (low, high) in found.ranges.items()})
    after, _ = refit_layers(before, bench, "fit", biases_only=True)

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
    monkeypatch.setattr(refit, "MAX_INPUTS", 16)
    model = prepare(residual_network())
    bench = workbench(model)
    after, note = refit_layers(calibrated(model, bench, for_onnxruntime), bench, "fit", biases_only=False)
    assert "1 with more than 16 inputs" in note
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    assert first.name not in after.weight_scales


def test_only_as_many_images_as_fit_into_memory_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    peak = GraphModule(model).peak_values(torch.zeros(1, 3, 16, 16))
    each = 2 * 4 * peak  # two networks, four bytes
    monkeypatch.setattr(refit.machine, "facts", lambda: {"memory_bytes": 40 * each / refit.MEMORY_SHARE + 1})
    _, note = refit_layers(calibrated(model, bench, for_onnxruntime), bench, "fit", biases_only=True)
    assert note.endswith("40 images")


def test_a_shared_weight_is_fitted_for_each_of_its_layers() -> None:
    model = residual_network()
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolutions[2].input[2] = convolutions[1].input[2]  # the same bias
    model = prepare(model)
    bench = workbench(model)
    after, _ = refit_layers(calibrated(model, bench, for_tensorrt), bench, "fit", biases_only=False)
    biases = [after.fitted[node.input[2]] for node in model.graph.node if node.op_type == "Conv"]
    assert not np.array_equal(biases[1], biases[2])
    view = GraphView(model)
    exact = [view.constant(node.input[2]) for node in view.nodes if node.op_type == "Conv"]
    assert np.array_equal(exact[1], exact[2])


def test_an_operator_without_a_torch_form_is_unsupported() -> None:
    model = prepare(residual_network())
    bench = workbench(model, 8)
    candidate = calibrated(model, bench, for_onnxruntime)
    next(node for node in model.graph.node if node.op_type == "MaxPool").op_type = "LpPool"
    with pytest.raises(Unsupported, match="LpPool"):
        refit_layers(candidate, bench, "fit", biases_only=False)


def test_a_last_layer_without_a_bias_keeps_the_means_by_its_weights() -> None:
    model = prepare(coarsened(prepare(bottleneck_network())))
    bench = workbench(model, 384)
    before = calibrated(model, bench, for_openvino)
    after, _ = refit_layers(before, bench, "fit", biases_only=False)
    assert sqnr_db(after, bench) > sqnr_db(before, bench) + 3
