"""What nodes and types are called in findings."""

from __future__ import annotations

import onnx
from onnx import TensorProto


def label(node: onnx.NodeProto) -> str:
    """How a node is called in findings: its name, or what it makes."""
    return node.name or f"{node.op_type} → {next((name for name in node.output if name), '?')}"


def type_name(kind: int) -> str:
    """`INT8` for 3."""
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else f"type {kind}"
