"""Candidates of small networks, and what the rungs work with."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx

from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_view import GraphView
from optkit.graph.rescale import channel_groups, rescale
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.choose import find_ranges
from optkit.stages.quantize.execute import Pixels, run_model
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.workbench import Judged, Workbench
from tests.small_networks import textured_images

JUDGED = 40  # images to choose by, and as many to judge by


def workbench(
    model: onnx.ModelProto,
    count: int = 96,
    train: Callable[[GraphModule, GraphModule, str], str] | None = None,
) -> Workbench:
    """`count` images to fit to, and others to choose by and to judge by; the last batch may be a part of one."""
    io = classifier_io(model)
    size = io.batch or 8

    def batched(images: Pixels) -> list[Pixels]:
        return [images[start : start + size] for start in range(0, len(images), size)]

    fit, choosing, held = np.split(textured_images(count + 2 * JUDGED), [count, count + JUDGED])
    judged = [Judged(batched(one), run_model(model, io, batched(one))) for one in (choosing, held)]
    batches = batched(fit)
    return Workbench(io, batches, lambda: batches, *judged, 0, SilentReporter(), train)


def calibrated(
    model: onnx.ModelProto, bench: Workbench, placement: ModuleType, calibrator: str = "minmax"
) -> Candidate:
    """What the ladder starts from."""
    view = GraphView(model)
    plan = placement.plan(view)
    with bench.reporter.track("") as task:
        observed = observe(model, bench.io, plan.observed(), bench.fit, True, task)
    return Candidate(model, plan, observed, calibrator, find_ranges(calibrator, view, plan, observed))


def sqnr_db(candidate: Candidate, bench: Workbench) -> float:
    """On the images to judge by."""
    return bench.held.parity(candidate.build(), bench.io)[0].sqnr_db


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


def spread(model: onnx.ModelProto) -> onnx.ModelProto:
    """`bottleneck_network`, the same function, with the channels between its bottlenecks 1 : 1000."""
    (group,) = channel_groups(GraphView(model))
    return rescale(model, {group: np.geomspace(1, 1000, group.channels)})
