from __future__ import annotations

import numpy as np
import pytest

from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import openvino as for_openvino
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.recovery import bias_correction
from tests.small_networks import bottleneck_network, residual_network
from tests.stages.quantize.support import calibrated, coarsened, sqnr_db, workbench


@pytest.mark.parametrize(
    ("placement", "network", "gain_db"),
    [
        (for_onnxruntime, residual_network, 3),
        (for_openvino, residual_network, 3),
        (for_tensorrt, bottleneck_network, 4),
    ],
)
def test_what_coarse_weights_do_to_the_means_is_undone(placement, network, gain_db: float) -> None:
    model = prepare(coarsened(prepare(network())))
    bench = workbench(model)
    before = calibrated(model, bench, placement)
    after, note = bias_correction.improve(before, bench)
    assert sqnr_db(after, bench) > sqnr_db(before, bench) + gain_db
    assert note.endswith("96 images")
    assert not after.weight_scales
    view = GraphView(model)
    biases = {node.input[2] for node in view.nodes if view.bias(node) is not None}
    changed = {name for name, value in after.fitted.items() if not np.array_equal(value, view.constant(name))}
    assert changed
    assert changed <= biases
