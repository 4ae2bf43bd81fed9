"""Every placement keeps these promises, on networks with all that placements are asked about."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from optkit.core import discover
from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq import insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.config import PLACEMENTS
from optkit.stages.quantize.observe import observe
from tests.small_networks import gated_network, residual_network, textured_images


@pytest.mark.parametrize("target", discover.names(PLACEMENTS))
@pytest.mark.parametrize("network", [residual_network, gated_network])
def test_placement_gives_a_valid_network_that_answers_nearly_the_same(target: str, network) -> None:
    model = prepare(network())
    plan = discover.load(PLACEMENTS, target, "target").plan(GraphView(model))
    names = {node.name for node in model.graph.node}
    assert plan.nodes
    assert not plan.nodes & plan.left.keys()
    assert plan.nodes | plan.left.keys() | set().union(*plan.edges.values()) <= names
    assert all(plan.left.values())
    with SilentReporter().track("") as task:
        seen = observe(model, classifier_io(model), plan.observed(), [textured_images(32)], False, task)
    quantized = insert_qdq(model, plan, {name: (entry.low, entry.high) for name, entry in seen.items()})
    onnx.checker.check_model(quantized, full_check=True)
    pixels = textured_images(16, seed=1)
    expected, got = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": pixels}
        )[0]
        for m in (network(), quantized)
    )
    noise = np.sqrt(np.mean((got - expected) ** 2) / np.mean((expected - expected.mean(0)) ** 2))
    assert 1e-4 < noise < 0.15
