"""Which calibrator suits a network: tried on calibration images that no range was taken from."""

from __future__ import annotations

import onnx

from optkit.core import discover
from optkit.core.progress import Reporter
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.qdq import QdqPlan, Range, insert_qdq
from optkit.graph.qdq_view import GraphView
from optkit.measure.parity import compare_logits
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.config import CALIBRATORS
from optkit.stages.quantize.execute import Pixels, run_model


def find_ranges(
    calibrator: str, view: GraphView, planned: QdqPlan, observed: dict[str, Observed]
) -> dict[str, Range]:
    """Range of every observed tensor.

    Calibrators clip outliers. A tensor that its operator bounds has none: cutting into the plateau at 6 of a
    ReLU6 costs EfficientNet-Lite0 5 dB with `entropy`, so such tensors keep the observed range.
    """
    find_range = discover.load(CALIBRATORS, calibrator, "calibrator").find_range
    return {
        name: (entry.low, entry.high) if view.is_bounded(name) else find_range(entry, planned.grid)
        for name, entry in observed.items()
    }


def choose_calibrator(
    model: onnx.ModelProto,
    io: ClassifierIO,
    planned: QdqPlan,
    observed: dict[str, Observed],
    trial: list[Pixels],
    reporter: Reporter,
) -> tuple[str, dict[str, float]]:
    """The calibrator whose logits on the `trial` batches are nearest to FP32's, and the SQNR in dB of each."""
    view = GraphView(model)
    reference = run_model(model, io, trial)
    scores: dict[str, float] = {}
    names = discover.names(CALIBRATORS)
    with reporter.track("choosing the calibrator", len(names)) as task:
        for name in names:
            quantized = insert_qdq(model, planned, find_ranges(name, view, planned, observed))
            scores[name] = round(compare_logits(reference, run_model(quantized, io, trial)).sqnr_db, 2)
            task.advance(1, f"{name} {scores[name]:.1f} dB")
    return max(scores, key=lambda name: scores[name]), scores
