"""What a runtime really makes of a quantised file: which convolutions run in integers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.foreign import cause, openvino_core, silence_openvino
from optkit.graph.lint.names import label
from optkit.graph.refusals import refusals

CONVOLUTIONS = frozenset({"Conv", "FusedConv"})
INTEGER_CONVOLUTIONS = frozenset({"QLinearConv", "ConvInteger"})
INTEGER_TYPES = frozenset({"i8", "u8"})


@dataclass(frozen=True)
class Execution:
    """Convolutions by their names; `refused` is why the runtime rejects the file, `unchecked` why nobody asked."""

    integer: tuple[str, ...] = ()
    floating: tuple[str, ...] = ()
    refused: str = ""
    unchecked: str = ""


def execution_of(model: onnx.ModelProto, target: str) -> Execution:
    """Ask the runtime of `target`; TensorRT needs a GPU to tell, so it is not asked."""
    asked = {"onnxruntime": integer_share, "openvino": openvino_share}.get(target)
    if asked is None:
        return Execution(
            unchecked="an engine says its precisions only on a GPU: optkit export --format tensorrt"
        )
    if not discover.installed(target):
        return Execution(unchecked=f"{target} is not installed: pip install 'optkit[cpu]'")
    try:
        found = asked(model)
    except InputError as error:
        return Execution(refused=error.why)
    return Execution(tuple(found["integer"]), tuple(found["float"]))


def integer_share(model: onnx.ModelProto) -> dict[str, Any]:
    """Share of convolutions that ONNX Runtime's optimiser turned into integer ones; InputError when it refuses.

    {"convolutions": 49, "share": 0.98, "integer": [names], "float": [names], "operators": {"QLinearConv": 48}};
    `share` is None without any convolution, `operators` counts the optimised graph.
    """
    numbered = onnx.ModelProto()
    numbered.CopyFrom(model)
    for index, node in enumerate(numbered.graph.node):  # names may be absent or double
        node.name = str(index)
    optimised = _optimise(numbered)
    names = [label(node) for node in model.graph.node]
    integer, floating = [], []
    for node in optimised.graph.node:
        if node.op_type in CONVOLUTIONS | INTEGER_CONVOLUTIONS:
            name = names[int(node.name)] if node.name.isdecimal() else node.name
            (integer if node.op_type in INTEGER_CONVOLUTIONS else floating).append(name)
    counts = Counter(node.op_type for node in optimised.graph.node)
    return _shares(integer, floating) | {"operators": dict(sorted(counts.items()))}


def _shares(integer: Sequence[str], floating: Sequence[str]) -> dict[str, Any]:
    total = len(integer) + len(floating)
    return {
        "convolutions": total,
        "share": len(integer) / total if total else None,
        "integer": list(integer),
        "float": list(floating),
    }


def _optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after fusion, before layouts are chosen: from there on nodes lose their names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except refusals() as error:
            raise _refused("ONNX Runtime", error) from None
        return onnx.load(path, format="protobuf")


def _refused(runtime: str, error: Exception) -> InputError:
    return InputError(
        f"{runtime} refuses the file.",
        why=cause(error),
        hint="It may be damaged, made for another target, or of a newer opset.",
    )


def openvino_share(model: onnx.ModelProto) -> dict[str, Any]:
    """The same for OpenVINO on this CPU, from the precisions of the compiled model."""
    silence_openvino()
    import openvino

    core = openvino_core(openvino)
    # Left alone, OpenVINO runs float layers in bf16 where the CPU can.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    except RuntimeError as error:
        raise _refused("OpenVINO", error) from None
    names = {node.name or node.output[0]: label(node) for node in model.graph.node if node.op_type == "Conv"}
    integer, floating = [], []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        facts = layer.rt_info
        if facts["layerType"].astype(str) in ("Convolution", "GroupConvolution"):
            layers = facts["originalLayersNames"].astype(str).split(",")
            origins = [name.removesuffix("/WithoutBiases") for name in layers]
            name = next((names[origin] for origin in origins if origin in names), layer.get_friendly_name())
            is_integer = facts["runtimePrecision"].astype(str) in INTEGER_TYPES
            (integer if is_integer else floating).append(name)
    return _shares(integer, floating)
