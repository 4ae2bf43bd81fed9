"""One way to quantise a network: what the recovery ladder improves, rung by rung."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from optkit.graph.qdq import QdqPlan, Range, insert_qdq
from optkit.stages.quantize.calibrators.base import Observed


@dataclass(frozen=True)
class Candidate:
    """`model` is a prepared FP32 graph that computes what the original does; the rest says how it becomes INT8.

    `observed` is what calibration saw of the plan's tensors, `ranges` what `calibrator` made of it; `fitted`
    replaces initializers of `model`, by name, with weights and biases that were learnt; `weight_scales` are the
    grids that learnt weights lie on, by node.
    """

    model: onnx.ModelProto
    plan: QdqPlan
    observed: dict[str, Observed]
    calibrator: str
    ranges: dict[str, Range]
    fitted: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weight_scales: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def fitted_model(self) -> onnx.ModelProto:
        """`model` with the fitted initializers."""
        changed = onnx.ModelProto()
        changed.CopyFrom(self.model)
        for tensor in changed.graph.initializer:
            if tensor.name in self.fitted:
                tensor.CopyFrom(numpy_helper.from_array(self.fitted[tensor.name], tensor.name))
        return changed

    def build(self) -> onnx.ModelProto:
        """The INT8 file."""
        return insert_qdq(self.fitted_model(), self.plan, self.ranges, self.weight_scales)
