"""An FP32 ONNX classifier as a strongly typed FP16 or BF16 graph.

Converters at hand (onnxconverter-common, onnxruntime.transformers) know FP16 alone, and clamp weights that it
cannot hold, tiny ones upwards too. Here such an operator stays in FP32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.core.types import Precision
from optkit.graph.qdq_view import GraphView

ELEMENTS = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}
BF16_OPSET = 22  # the first in which Conv, pooling and the like take bfloat16


def dtype(precision: Precision) -> np.dtype[Any]:
    """numpy's type for FP16 or BF16."""
    return helper.tensor_dtype_to_np_dtype(ELEMENTS[precision])


def number_range(precision: Precision) -> tuple[float, float]:
    """Smallest normal and largest finite number of the format: 6.1e-5 and 65504 for FP16."""
    info = ml_dtypes.finfo(dtype(precision))
    return float(info.smallest_normal), float(info.max)


def float_work(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Operators that compute FP32 values from the image, by name, each with the FP32 activations at it."""
    rules = _Rules(model, Precision.FP16)
    found = {}
    for node in rules.view.nodes:
        if rules.is_float_work(node) and any(rules.is_float(name) for name in node.output):
            tensors = dict.fromkeys([*rules.view.activation_inputs(node), *node.output])
            found[node.name] = [name for name in tensors if rules.is_float(name)]
    return found


def unconvertible(model: onnx.ModelProto, precision: Precision) -> dict[str, str]:
    """Operators on activations that the format cannot serve, by name, with the reason."""
    rules = _Rules(model, precision)
    found = {node.name: rules.reason_for_float(node) for node in rules.view.nodes}
    return {name: reason for name, reason in found.items() if reason}


def to_sixteen_bit(model: onnx.ModelProto, precision: Precision, keep: Iterable[str]) -> onnx.ModelProto:
    """A copy with weights stored and activations computed in 16 bits; its input and output stay FP32.

    The nodes named in `keep` and the `unconvertible` ones compute in FP32 between Casts. Arithmetic on shapes is
    left alone. `model` must be prepared (qdq_prepare) and hold no control flow. BF16 raises the opset.
    """
    _refuse_control_flow(model)
    converted = _copy_with_opset(model, _opset(model, precision))
    _Converter(converted, precision, set(keep)).run()
    return converted


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The 16-bit graph in FP32 arithmetic: every result is rounded to 16 bits, sums are not.

    ONNX Runtime's CPU provider has no BF16 convolution, and computes an FP16 graph in FP32 throughout, so that
    its answers hide rounding and overflow; these do not.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    narrow = {name: kind for name, kind in _element_types(model).items() if kind in ELEMENTS.values()}
    for tensor in graph.initializer:
        if tensor.data_type in ELEMENTS.values():
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            del narrow[tensor.name]
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in narrow:
                node.input[index] = f"{node.name}.in{index}"
                nodes.append(_cast(name, node.input[index], TensorProto.FLOAT))
        results = list(node.output)
        nodes.append(node)
        for index, name in enumerate(results):
            if name in narrow:
                node.output[index] = f"{node.name}.out{index}"
                nodes.append(_cast(node.output[index], name, narrow[name]))
    _set_nodes(graph, nodes)
    return rounded


class _Rules:
    """Which operators and which of their inputs become 16-bit, by the types in ONNX's operator schemas."""

    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        self.view = GraphView(model)
        self.types = _element_types(model)
        self.opset, self.precision = _opset(model, precision), precision
        self.type_name = f"tensor({'float16' if precision == Precision.FP16 else 'bfloat16'})"
        self.limit = number_range(precision)[1]

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT

    def is_float_work(self, node: onnx.NodeProto) -> bool:
        """Whether it reads FP32 values computed from the image. A Cast says its own types."""
        return node.op_type != "Cast" and any(map(self.is_float, self.view.activation_inputs(node)))

    def narrow_inputs(self, node: onnx.NodeProto) -> list[int]:
        """Indices of FP32 inputs that the operator takes in 16 bits too; the others, as Resize's scales, stay."""
        allowed = self._allowed(node, "inputs")
        return [
            index
            for index, name in enumerate(node.input)
            if self.is_float(name) and self.type_name in allowed[index][1]
        ]

    def narrow_outputs(self, node: onnx.NodeProto) -> list[str]:
        """FP32 results that become 16-bit with the inputs, having their type."""
        ties = {self._allowed(node, "inputs")[index][0] for index in self.narrow_inputs(node)}
        return [
            name
            for name, (tie, _) in zip(node.output, self._allowed(node, "outputs"), strict=True)
            if self.is_float(name) and tie in ties
        ]

    def reason_for_float(self, node: onnx.NodeProto) -> str:
        if not self.is_float_work(node):
            return ""
        narrow = [node.input[index] for index in self.narrow_inputs(node)]
        activations = self.view.activation_inputs(node)
        if any(self.is_float(name) and name not in narrow for name in activations):
            return f"its operator takes no {self.type_name.removeprefix('tensor(').removesuffix(')')}"
        for name in narrow:
            value = self.view.constant(name)
            if value is None or node.op_type == "Clip" or not value.size:
                continue
            largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
            if largest > self.limit:
                return (
                    f"its constant {name!r} reaches {largest:.3g}, {self.precision.upper()} {self.limit:.5g}"
                )
        return ""

    def _allowed(self, node: onnx.NodeProto, side: str) -> list[tuple[str, set[str]]]:
        """Per input or output of a node the type parameter of its schema and the types that this may be."""
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        except onnx.defs.SchemaError:  # an operator of somebody's own domain
            return [("", set())] * len(getattr(node, side[:-1]))
        constraints = {
            entry.type_param_str: set(entry.allowed_type_strs) for entry in schema.type_constraints
        }
        formal = [entry.type_str for entry in getattr(schema, side)]
        count = len(getattr(node, side[:-1]))
        ties = [formal[min(index, len(formal) - 1)] for index in range(count)]  # the last may be variadic
        return [(tie, constraints.get(tie, {tie})) for tie in ties]


class _Converter:
    def __init__(self, model: onnx.ModelProto, precision: Precision, keep: set[str]) -> None:
        self.rules = _Rules(model, precision)
        self.graph, self.suffix, self.element = model.graph, precision.value, ELEMENTS[precision]
        self.dtype, self.limit, self.keep = dtype(precision), self.rules.limit, keep
        self.narrow: set[str] = set()  # results that are 16-bit
        self.made: set[str] = set()  # other forms of tensors that exist by now
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for node in self.rules.view.nodes:
            self._convert(node)
        for value in self.graph.output:
            if value.name in self.narrow:
                self._widen_output(value.name)
        _set_nodes(self.graph, self.nodes)
        del self.graph.value_info[:]
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _convert(self, node: onnx.NodeProto) -> None:
        rules = self.rules
        is_narrow = rules.is_float_work(node) and not (node.name in self.keep or rules.reason_for_float(node))
        wanted = rules.narrow_inputs(node) if is_narrow else []
        results = rules.narrow_outputs(node) if is_narrow else []
        for index, name in enumerate(node.input):
            if index in wanted:
                node.input[index] = self._narrowed(name, node)
            elif name in self.narrow:
                node.input[index] = self._other_form(name, "fp32", TensorProto.FLOAT)
        self.narrow.update(results)
        self.nodes.append(node)

    def _narrowed(self, name: str, reader: onnx.NodeProto) -> str:
        """The 16-bit form of a tensor: a new constant, or a Cast where it is not 16-bit as it comes."""
        value = self.rules.view.constant(name)
        if name in self.narrow:
            return name
        if value is None:
            return self._other_form(name, self.suffix, self.element)
        if reader.op_type == "Clip":  # no bound (FLT_MAX) stays none, and finite
            value = np.clip(value, -self.limit, self.limit)
        form = f"{name}.{self.suffix}"
        if form not in self.made:
            self.made.add(form)
            self.graph.initializer.append(numpy_helper.from_array(value.astype(self.dtype), form))
        return form

    def _other_form(self, name: str, suffix: str, element: int) -> str:
        form = f"{name}.{suffix}"
        if form not in self.made:
            self.made.add(form)
            self.nodes.append(_cast(name, form, element))
        return form

    def _widen_output(self, name: str) -> None:
        """The graph's output keeps its name and type: its maker's result is renamed and cast."""
        inner = f"{name}.{self.suffix}"
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, found in enumerate(names):
                    if found == name:
                        names[index] = inner
        self.nodes.append(_cast(inner, name, TensorProto.FLOAT))


def _cast(source: str, result: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], f"{result}.cast", to=element)


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _opset(model: onnx.ModelProto, precision: Precision) -> int:
    own = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return max(own, BF16_OPSET) if precision == Precision.BF16 else int(own)


def _copy_with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset == _opset(model, Precision.FP16):
        return copy
    try:
        copy = onnx.version_converter.convert_version(copy, opset)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"The ONNX file cannot be raised to opset {opset}, which BF16 needs.",
            why=str(error).strip().splitlines()[0],
            hint=f"Export it again with --opset {opset}, or choose FP16.",
        ) from None
    del copy.metadata_props[:]
    copy.metadata_props.extend(model.metadata_props)
    return copy


def _refuse_control_flow(model: onnx.ModelProto) -> None:
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    for node in model.graph.node:
        if any(entry.type in graphs for entry in node.attribute):
            raise InputError(
                "The ONNX file branches or loops, and cannot be converted to 16 bits.",
                why=f"{node.op_type} {node.name!r} holds a graph of its own.",
                hint="Export the network with its control flow resolved (a fixed input size often does).",
            )
