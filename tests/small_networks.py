"""Small ONNX classifiers that hold what Q/DQ placement must deal with; logits are of order 1."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Adds nodes one after the other; weights are drawn so that activations keep their size."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = value
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> str:
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = self.rng.standard_normal(outputs) * 0.1
        names = [self.constant(value.astype(np.float32)) for value in (weight, bias)]
        return self.op("Conv", x, *names, pads=[kernel // 2] * 4, group=groups)

    def clip(self, x: str) -> str:
        return self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def pool(self, x: str, keepdims: int, opset: int) -> str:
        if opset >= 18:
            axes = self.constant(np.array([2, 3], np.int64))
            return self.op("ReduceMean", x, axes, keepdims=keepdims)
        return self.op("ReduceMean", x, axes=[2, 3], keepdims=keepdims)

    def model(self, logits: str, classes: int, batch: int | None, opset: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "logits"
        shapes = {"input": [batch or "n", 3, 16, 16], "logits": [batch or "n", classes]}
        values = {
            k: helper.make_tensor_value_info(k, TensorProto.FLOAT, shape) for k, shape in shapes.items()
        }
        graph = helper.make_graph(
            self.nodes, "small", [values["input"]], [values["logits"]],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual_network(batch: int | None = None, opset: int = 20, classes: int = 4) -> onnx.ModelProto:
    """Conv–BatchNormalization–Clip, depthwise Conv–Relu, Conv, Add, MaxPool, pooling, Gemm: 3 Conv."""
    b = Builder()
    x = b.conv("input", 3, 16)
    spread, mean = b.rng.uniform(0.5, 1.5, 16), b.rng.standard_normal(16) * 0.1
    statistics = [b.constant(value.astype(np.float32)) for value in (spread, mean, mean, spread)]
    x = b.clip(b.op("BatchNormalization", x, *statistics))
    y = b.op("Relu", b.conv(x, 16, 16, groups=16))
    x = b.op("MaxPool", b.op("Add", b.conv(y, 16, 16, kernel=1), x), kernel_shape=[2, 2], strides=[2, 2])
    x = b.pool(x, 0, opset)
    weight, bias = b.rng.standard_normal((classes, 16)), b.rng.standard_normal(classes)
    x = b.op("Gemm", x, *(b.constant(v.astype(np.float32)) for v in (weight, bias)), transB=1)
    return b.model(x, classes, batch, opset)


def gated_network(batch: int | None = None, opset: int = 20, classes: int = 4) -> onnx.ModelProto:
    """Conv–SiLU, a squeeze-and-excitation gate, Conv–HardSwish, residual Add, pooling, MatMul: 4 Conv."""
    b = Builder()
    x = b.silu(b.conv("input", 3, 16))
    gate = b.silu(b.conv(b.pool(x, 1, opset), 16, 4, kernel=1))
    gated = b.op("Mul", x, b.op("Sigmoid", b.conv(gate, 4, 16, kernel=1)))
    x = b.op("Add", b.op("HardSwish", b.conv(gated, 16, 16)), x)
    weight = b.rng.standard_normal((16, classes)).astype(np.float32)
    return b.model(b.op("MatMul", b.pool(x, 0, opset), b.constant(weight)), classes, batch, opset)


def bottleneck_network(batch: int | None = None, opset: int = 20, classes: int = 4) -> onnx.ModelProto:
    """Linear bottlenecks joined by a sum, between Clips; pooling, Gemm without a bias: 5 Conv."""
    b = Builder()
    x = b.conv(b.clip(b.conv("input", 3, 16)), 16, 8, kernel=1)
    y = b.conv(b.clip(b.conv(x, 8, 16)), 16, 8, kernel=1)
    x = b.clip(b.conv(b.op("Add", x, y), 8, 16))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    weight = b.rng.standard_normal((classes, 16)).astype(np.float32)
    return b.model(b.op("Gemm", x, b.constant(weight), transB=1), classes, batch, opset)


def textured_images(count: int, seed: int = 0) -> np.ndarray:
    """Normalised float32 (count, 3, 16, 16) with structure, so that images differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 4, 4)).repeat(4, 2).repeat(4, 3)
    return (coarse + 0.3 * rng.standard_normal((count, 3, 16, 16))).astype(np.float32)
