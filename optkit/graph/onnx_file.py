"""Reading and writing ONNX classifiers, and the spec they carry in their metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from optkit.core.errors import InputError, UsageError
from optkit.core.types import ModelSpec, Precision
from optkit.graph.lint.names import type_name

SPEC_KEY = "optkit.spec"
IMAGE_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class ClassifierIO:
    """Input `(batch, 3, size, size)` and output `(batch, num_classes)` of an image classifier.

    `batch` is None when dynamic, `size` is None when the graph leaves it open.
    """

    input_name: str
    output_name: str
    batch: int | None
    size: int | None
    num_classes: int


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file, external data included; InputError when it is anything else."""
    try:
        # Left alone, `load` takes names like `model.json` for text.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise InputError(f"There is no ONNX file {str(path)!r}.", hint="Check the path.") from None
    except (DecodeError, OSError) as error:
        raise _invalid(path, error) from None
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise InputError(
            f"The external data of {str(path)!r} cannot be read.",
            why=(str(error).strip().splitlines() or ["it is damaged"])[0],
            hint="Keep the file with its external data beside it, under its original name.",
        ) from None
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _invalid(path, error) from None
    return model


def _invalid(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{str(path)!r} is not a valid ONNX file.",
        why=(str(error).strip().splitlines() or ["empty file"])[0],
        hint="It may be truncated: export or copy it again.",
    )


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Check and write a model as one file (ONNX's own limit: 2 GiB)."""
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _dimension(value: onnx.ValueInfoProto, axis: int) -> int | None:
    dimension = value.type.tensor_type.shape.dim[axis]
    return dimension.dim_value or None


def _refuse_image_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type.tensor_type.elem_type
    if kind not in IMAGE_TYPES:
        raise InputError(
            "The ONNX file does not take normalised float images.",
            why=f"Its input {value.name!r} is of the type {type_name(kind)}.",
            hint="Export the classifier with an input in float32 or float16.",
        )


def check_size(model: onnx.ModelProto, size: int) -> None:
    """UsageError unless the graph takes images of `size` pixels."""
    fixed = classifier_io(model).size
    if fixed and fixed != size:
        raise UsageError(
            f"The ONNX file takes {fixed}×{fixed} pixels, not {size}.",
            why="Its export fixed the size.",
            hint=f"Leave --size out, or export the network at {size} pixels.",
        )


def classifier_io(model: onnx.ModelProto) -> ClassifierIO:
    """Names and shapes of an image classifier's input and output; InputError for another kind of graph."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    outputs = list(model.graph.output)
    found = f"{len(inputs)} inputs and {len(outputs)} outputs"
    if len(inputs) == 1 and len(outputs) == 1:
        ranks = [len(value.type.tensor_type.shape.dim) for value in (inputs[0], outputs[0])]
        found = f"an input of rank {ranks[0]} and an output of rank {ranks[1]}"
        if ranks == [4, 2]:
            channels, classes = _dimension(inputs[0], 1), _dimension(outputs[0], 1)
            found = f"{channels} input channels and {classes} classes"
            if channels == 3 and classes:
                _refuse_image_type(inputs[0])
                height, width = _dimension(inputs[0], 2), _dimension(inputs[0], 3)
                return ClassifierIO(
                    input_name=inputs[0].name,
                    output_name=outputs[0].name,
                    batch=_dimension(inputs[0], 0),
                    size=height if height == width else None,
                    num_classes=classes,
                )
    raise _no_classifier(found)


def _no_classifier(found: str) -> InputError:
    return InputError(
        "The ONNX file is not an image classifier.",
        why=f"It has {found}; expected one (batch, 3, height, width) input and one (batch, classes) output.",
        hint="Export the classifier alone, with logits as its only output.",
    )


def precision_of(model: onnx.ModelProto) -> Precision:
    """INT8 or FP8 with quantisation nodes, else the type that most of the weights have."""
    if any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer):
        return Precision.FP8
    quantised = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"}
    if any(node.op_type in quantised for node in model.graph.node):
        return Precision.INT8
    types = {
        onnx.TensorProto.FLOAT: Precision.FP32,
        onnx.TensorProto.FLOAT16: Precision.FP16,
        onnx.TensorProto.BFLOAT16: Precision.BF16,
    }
    counts = dict.fromkeys(types, 0)
    for tensor in model.graph.initializer:
        if tensor.data_type in counts:
            counts[tensor.data_type] += math.prod(tensor.dims)
    return types[max(counts, key=lambda kind: counts[kind])]


def embed_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write preprocessing, class names and architecture into the file's metadata."""
    kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=SPEC_KEY, value=spec.model_dump_json())


def spec_from_metadata(model: onnx.ModelProto) -> ModelSpec | None:
    """The spec that `embed_spec` wrote, None when there is none; InputError when it is broken."""
    for entry in model.metadata_props:
        if entry.key == SPEC_KEY:
            try:
                return ModelSpec.model_validate_json(entry.value)
            except ValidationError as error:
                raise InputError(
                    f"The metadata {SPEC_KEY!r} of the ONNX file is broken.",
                    why=error.errors()[0]["msg"],
                    hint="Export the file again.",
                ) from None
    return None
