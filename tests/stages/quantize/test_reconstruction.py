from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch

from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize import reconstruct
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.grids import file_scales, learning_module
from optkit.stages.quantize.importance import channel_importance
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.reconstruct import Reconstruction
from optkit.stages.quantize.recovery import reconstruction, rounding
from optkit.stages.quantize.workbench import Workbench
from tests.small_networks import bottleneck_network, gated_network, residual_network, textured_images
from tests.stages.quantize.support import calibrated, sqnr_db, workbench


def coarse(candidate: Candidate) -> Candidate:
    """With weights of five bits."""
    grids = {name: scales * 8 for name, scales in file_scales(candidate, candidate.build()).items()}
    return replace(candidate, weight_scales=grids)


def started(network, placement=for_onnxruntime) -> tuple[Candidate, Workbench]:
    model = prepare(network())
    bench = workbench(model)
    return coarse(calibrated(model, bench, placement)), bench


def reconstruction_of(candidate: Candidate, bench: Workbench) -> Reconstruction:
    fitted = learning_module(candidate, candidate.build())
    return Reconstruction(candidate, fitted, torch.from_numpy(np.concatenate(bench.fit)), 0)


@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
@pytest.mark.parametrize("network", [bottleneck_network, gated_network, residual_network])
def test_coarse_weights_are_rounded_so_that_blocks_answer_better(network, placement) -> None:
    before, bench = started(network, placement)
    after, note = reconstruction.improve(before, bench)
    assert sqnr_db(after, bench) > sqnr_db(before, bench) + 3
    assert note.endswith("96 images")
    assert all((after.weight_scales[name] == scales).all() for name, scales in before.weight_scales.items())


def test_blocks_begin_where_one_tensor_is_alive() -> None:
    before, bench = started(bottleneck_network)
    blocks = reconstruction_of(before, bench).blocks
    view = GraphView(before.model)
    assert [block.start for block in blocks[1:]] == [block.end for block in blocks[:-1]]
    assert (blocks[0].start, blocks[-1].end) == (0, len(view.nodes))
    assert len(blocks) > 1
    for one, following in pairwise(blocks):
        assert one.output == following.source == view.nodes[following.start].input[0]
        layers = [node for node in view.nodes[one.start : one.end] if view.weight_axis(node) is not None]
        assert len(layers) >= reconstruct.LAYERS


def test_every_block_learns_on_what_the_ones_before_it_make() -> None:
    before, bench = started(bottleneck_network)
    run = reconstruction_of(before, bench)
    for block in run.blocks:
        run.learn(block)
    exact = GraphModule(before.model)
    pixels = torch.from_numpy(np.concatenate(bench.fit))
    with torch.no_grad():
        assert torch.allclose(run.exact, exact(pixels), atol=1e-5)
        assert torch.allclose(run.quantized, run.fitted(pixels), atol=1e-5)
    assert not run.fitted.learning


def test_what_other_images_do_not_confirm_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "LR", 30.0)  # codes jump about
    before, bench = started(bottleneck_network)
    run = reconstruction_of(before, bench)
    kept = run.fitted.initializers()
    kept = {name: value.copy() for name, value in kept.items()}
    for block in run.blocks:
        run.learn(block)
    assert run.kept == 0
    assert all(np.array_equal(value, kept[name]) for name, value in run.fitted.initializers().items())
    assert reconstruction.improve(before, bench) is None


@pytest.mark.parametrize("shape", [(), (1,), (1, 4)])
def test_what_is_added_for_all_channels_at_once_is_no_bias(shape: tuple[int, ...]) -> None:
    network = residual_network()
    tensors = {tensor.name: tensor for tensor in network.graph.initializer}
    (gemm,) = (node for node in network.graph.node if node.op_type == "Gemm")
    tensors[gemm.input[2]].CopyFrom(
        onnx.numpy_helper.from_array(np.full(shape, 0.5, np.float32), gemm.input[2])
    )
    model = prepare(network)
    bench = workbench(model)
    before = coarse(calibrated(model, bench, for_onnxruntime))
    for rung in (rounding, reconstruction):
        after, _ = rung.improve(before, bench)
        assert sqnr_db(after, bench) > sqnr_db(before, bench)


def test_float_layers_of_a_block_do_not_learn() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    start = calibrated(model, bench, for_onnxruntime)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    run = reconstruction_of(
        replace(start, plan=start.plan.without({first.name: "why"}, GraphView(model))), bench
    )
    for block in run.blocks:
        run.learn(block)
    assert run.kept
    weight = run.fitted.parameter(first.input[1])
    assert weight.grad is None
    assert torch.equal(weight, run.reference.parameter(first.input[1]))


def test_the_same_seed_learns_the_same() -> None:
    before, bench = started(residual_network)
    files = [
        reconstruction.improve(before, bench)[0].build().SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_channels_that_the_logits_depend_on_count_more() -> None:
    """The same network with the first channel before the classifier counted ten times, and the second not at all."""
    model = prepare(residual_network())
    view = GraphView(model)
    (gemm,) = (node for node in view.nodes if node.op_type == "Gemm")
    (tensor,) = (one for one in model.graph.initializer if one.name == gemm.input[1])
    weight = view.constant(tensor.name).copy()
    weight[:, 0], weight[:, 1] = weight[:, 0] * 10, 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    batches = [torch.from_numpy(textured_images(8))]
    pooled = gemm.input[0]
    importance = channel_importance(GraphModule(model), batches, [pooled, "logits"], 0)
    assert importance[pooled].shape == (1, 16)
    assert importance[pooled][0, 0] == importance[pooled].max()
    assert importance[pooled][0, 1] == 0
    assert torch.allclose(importance["logits"], torch.ones(1, 4))
