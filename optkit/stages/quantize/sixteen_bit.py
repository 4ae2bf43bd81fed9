"""FP16 and BF16: which operators must stay in FP32, as real images show.

FP16 ends at 65504. An operator stays in FP32 when an activation that it reads or makes, or a sum within it, comes
near that. BF16 has FP32's range: nothing comes near its ends, and precision alone is lost.

What counts as a sum is the sum of magnitudes, Σ|w·x|, measured by running the operator on |x| and |w|: no partial
sum exceeds it, whatever the order. It matters because the runtime chooses the accumulator, and there are kernels
that accumulate in FP16 because they are faster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from optkit.core.errors import InputError
from optkit.core.progress import Task
from optkit.core.types import Precision
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.qdq_view import GraphView, attribute
from optkit.graph.sixteen_bit import (
    dtype,
    emulated,
    float_work,
    number_range,
    to_sixteen_bit,
    unconvertible,
)
from optkit.stages.quantize.budget import Checked
from optkit.stages.quantize.observe import observe

# Share of the format's largest number that calibration images may reach; other images go further. Measured as the
# largest value of a tensor over 240 photos against that over 32 (128) others: EfficientNet-B0 up to 4.3 (2.3)
# times, EfficientNet-Lite0 1.7 (1.6).
SAFE_SHARE = 1 / 8
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
# Operators that divide a sum, and those for the sum of magnitudes alone.
MEANS = {"GlobalAveragePool": "GlobalLpPool", "ReduceMean": "ReduceL1"}
# Square what they read, which leaves FP16 from 256 on. LayerNormalization does so in FP32 by its definition.
SQUARING = frozenset(
    {"InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN"}
    | {"LpPool", "GlobalLpPool", "ReduceL2", "ReduceSumSquare"}
)
# A channel's weights are lost when rounding changes its result by more than this share of it …
LOST = 0.01
# … and its result is more than this share of the layer's largest: dead channels are not worth a slow layer.
DEAD = 1e-3
# What ONNX Runtime does with a file on an x86 CPU.
INSTEAD = {
    Precision.FP16: "computes such files in FP32 on the CPU",
    Precision.BF16: "refuses such files on the CPU",
}


def convert_to_sixteen_bit(
    model: onnx.ModelProto,
    io: ClassifierIO,
    precision: Precision,
    batches: Iterable[NDArray[np.float32]],
    task: Task,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A prepared FP32 classifier in FP16 or BF16, and what the manifest tells of it.

    Its details: `float` (node, op, reason of what stays in FP32), `quantized` (converted operators by type),
    `largest_activation`, `largest_sum` (null without sums) and the `limit` that both were held against. InputError
    when no operator could be converted.
    """
    keep, facts = scan(model, io, precision, batches, task)
    if len(keep) == len(float_work(model)):
        raise _nothing_to_convert(precision, next(iter(keep.items())))
    ops = {node.name: node.op_type for node in model.graph.node}
    details = {
        "quantized": dict(
            sorted(Counter(ops[name] for name in float_work(model).keys() - keep.keys()).items())
        ),
        "float": [{"node": name, "op": ops[name], "reason": reason} for name, reason in keep.items()],
        **facts,
    }
    return to_sixteen_bit(model, precision, keep), details


def scan(
    model: onnx.ModelProto,
    io: ClassifierIO,
    precision: Precision,
    batches: Iterable[NDArray[np.float32]],
    task: Task,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Why operators must stay in FP32, by name, and the largest activation and sum that were seen."""
    work = float_work(model)
    if not work:
        raise _nothing_to_convert(precision)
    probe, sums = _with_sums(model, work)
    tensors = [name for node, names in work.items() for name in [*names, *sums.get(node, ())[:1]]]
    observed = observe(probe, io, list(dict.fromkeys(tensors)), batches, False, task)
    largest = {name: entry.magnitude for name, entry in observed.items()}
    totals = {node: largest[name] * terms for node, (name, terms) in sums.items()}
    view = GraphView(model)
    refused = unconvertible(model, precision)
    keep = {}
    for node in view.nodes:
        if node.name in work and (
            reason := refused.get(node.name)
            or _range_reason({name: largest[name] for name in work[node.name]}, precision)
            or _sum_reason(node, totals.get(node.name, 0.0), precision)
            or _weight_reason(view, node, largest, precision)
        ):
            keep[node.name] = reason
    activations = dict.fromkeys(name for names in work.values() for name in names)
    top = max(activations, key=lambda name: largest[name])
    heaviest = max(totals, key=lambda name: totals[name], default=None)
    return keep, {
        "limit": _limit(precision),
        "largest_activation": {"tensor": top, "value": largest[top]},
        "largest_sum": heaviest and {"node": heaviest, "value": totals[heaviest]},
    }


def _nothing_to_convert(precision: Precision, kept: tuple[str, str] | None = None) -> InputError:
    why = "No operator of it computes in FP32."
    if kept:
        why = f"Each of its operators must stay in FP32; of {kept[0]!r}: {kept[1]}."
    return InputError(
        f"Nothing in the ONNX file can become {precision.upper()}.",
        why=why,
        hint="Choose another --precision, or give the FP32 file of the network.",
    )


def judge(
    converted: onnx.ModelProto, precision: Precision, check: Callable[[onnx.ModelProto], Checked]
) -> dict[str, Any]:
    """What a 16-bit file loses against FP32, for the manifest, with the arithmetic that says so."""
    return {
        "validation": check(emulated(converted)).details(),
        "validated_by": f"emulation: every result rounded to {precision.upper()}, sums in FP32; "
        f"ONNX Runtime {INSTEAD[precision]}",
    }


def _limit(precision: Precision) -> float:
    return SAFE_SHARE * number_range(precision)[1]


def _range_reason(largest: dict[str, float], precision: Precision) -> str:
    smallest_normal, limit = number_range(precision)[0], _limit(precision)
    for name, value in largest.items():
        if value > limit:
            return f"its activation {name!r} reaches {value:.3g}; above {limit:.4g} it may overflow"
        if 0 < value < smallest_normal:
            return (
                f"its activation {name!r} stays below {value:.1e}, where {precision.upper()} has few digits"
            )
    return ""


def _sum_reason(node: onnx.NodeProto, total: float, precision: Precision) -> str:
    limit = _limit(precision)
    if precision == Precision.FP16 and node.op_type in SQUARING:
        return "it sums squares, which overflow first"
    return f"its sums may reach {total:.3g}; above {limit:.4g} they may overflow" if total > limit else ""


def _weight_reason(
    view: GraphView, node: onnx.NodeProto, largest: dict[str, float], precision: Precision
) -> str:
    """Whether a channel's weights are so small that the format rounds them away."""
    axis = view.weight_axis(node)
    if axis is None:
        return ""
    weight = view.constant(node.input[1])
    bias = view.bias(node)
    others = tuple(other for other in range(weight.ndim) if other != axis)
    size = largest[node.input[0]]
    signal = np.abs(weight).sum(others) * size
    lost = np.abs(weight.astype(dtype(precision)).astype(np.float32) - weight).sum(others) * size
    total = signal if bias is None else signal + np.abs(bias)
    matters = signal > DEAD * largest[node.output[0]]
    count = int((matters & (lost > LOST * total)).sum())
    return f"the weights of {count} output channels are too small for {precision.upper()}" if count else ""


def _with_sums(
    model: onnx.ModelProto, work: dict[str, list[str]]
) -> tuple[onnx.ModelProto, dict[str, tuple[str, int]]]:
    """The model with extra results, and by operator that sums: which result, times what, bounds its sums."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    magnitudes: set[str] = set()
    sums: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        if node.name not in work:
            continue
        if node.op_type == "AveragePool":
            sums[node.name] = (node.input[0], math.prod(attribute(node, "kernel_shape", ())))
        elif node.op_type in PRODUCTS | MEANS.keys():
            summing = _summing(node)
            if node.op_type in PRODUCTS:
                for name in {*node.input} - magnitudes - {""}:
                    magnitudes.add(name)
                    magnitude = f"{name}.observe.abs"
                    probe.graph.node.append(helper.make_node("Abs", [name], [magnitude], magnitude))
            probe.graph.node.append(summing)
            sums[node.name] = (summing.output[0], 1)
    return probe, sums


def _summing(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node for the sums of magnitudes in `node`; that of a product reads `….observe.abs` of every input."""
    summing = onnx.NodeProto()
    summing.CopyFrom(node)
    summing.name = f"{node.name}.observe.abs_sum"
    summing.output[:] = [summing.name]
    if node.op_type in PRODUCTS:
        summing.input[:] = [name and f"{name}.observe.abs" for name in node.input]
    else:
        summing.op_type = MEANS[node.op_type]
    if node.op_type == "GlobalAveragePool":
        summing.attribute.append(helper.make_attribute("p", 1))
    return summing
