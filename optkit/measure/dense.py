"""Dense matrix products and convolutions by whatever fast library is at hand: how fast a device can multiply."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.foreign import openvino_core, silence_openvino

if TYPE_CHECKING:
    import onnx

SIZES = (512, 1024)  # of square matrices: they stay in the caches
CUDA_SIZE = 8192
CUDA_COPY_BYTES = 1 << 30
OPENVINO_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
OPENVINO_NEEDS = {"fp32": "FP32", "int8": "INT8", "bf16": "BF16", "fp16": "FP16"}


@dataclass(frozen=True)
class Dense:
    """A call that does `macs` multiply-accumulates."""

    name: str
    macs: int
    call: Callable[[], object]


def cpu_kernels(precision: str, threads: int) -> list[Dense]:
    """Products of square matrices in ONNX Runtime, OpenVINO and PyTorch, in those that are installed.

    PyTorch, which takes long to import, only where it is imported already or nothing else does this precision.
    INT8 is unsigned by signed, accumulated in 32 bits.
    """
    found: list[Dense] = []
    if discover.installed("onnxruntime") and precision in ("fp32", "int8"):
        found += [_onnxruntime(precision, size, threads) for size in SIZES]
    if discover.installed("openvino"):
        found += [kernel for size in SIZES for kernel in _openvino(precision, size, threads)]
    if precision in ("fp32", "bf16") and ("torch" in sys.modules or not found):
        found += [_torch(precision, size, threads) for size in SIZES]
    return found


def _square(precision: str, size: int) -> onnx.ModelProto:
    """x · W with a constant W of this size; INT8 with Q/DQ, as files have it."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    is_int8 = precision == "int8"
    constants: dict[str, NDArray[Any]]
    if is_int8:
        constants = {
            "W": rng.integers(-127, 128, (size, size)).astype(np.int8),
            "scale": np.array(0.01, np.float32),
            "wide": np.array(1.0, np.float32),
            "zero": np.array(0, np.uint8),
            "none": np.array(0, np.int8),
        }
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["xf"]),
            helper.make_node("DequantizeLinear", ["W", "scale", "none"], ["Wf"]),
            helper.make_node("MatMul", ["xf", "Wf"], ["yf"]),
            helper.make_node("QuantizeLinear", ["yf", "wide", "zero"], ["y"]),
        ]
    else:
        constants = {"W": rng.standard_normal((size, size)).astype(np.float32)}
        nodes = [helper.make_node("MatMul", ["x", "W"], ["y"])]
    kind = TensorProto.UINT8 if is_int8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "square",
        [helper.make_tensor_value_info("x", kind, [size, size])],
        [helper.make_tensor_value_info("y", kind, [size, size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _operand(precision: str, size: int) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    if precision == "int8":
        return rng.integers(0, 256, (size, size)).astype(np.uint8)
    return rng.standard_normal((size, size)).astype(np.float32)


def _onnxruntime(precision: str, size: int, threads: int) -> Dense:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        _square(precision, size).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": _operand(precision, size)}
    return Dense(f"onnxruntime {size}³", size**3, lambda: session.run(None, feed))


def _openvino(precision: str, size: int, threads: int) -> Iterator[Dense]:
    """One kernel, none where the CPU has no instructions for the precision."""
    silence_openvino()
    import openvino

    core = openvino_core(openvino)
    if OPENVINO_NEEDS.get(precision) not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
    }
    model = core.read_model(_square(precision, size).SerializeToString())
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    operand = _operand(precision, size)
    yield Dense(f"openvino {size}³", size**3, lambda: request.infer([operand], share_inputs=True))


def _torch(precision: str, size: int, threads: int) -> Dense:
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, size, size).to(dtype)
    return Dense(f"pytorch {size}³", size**3, lambda: torch.mm(a, b))


def cuda_kernels(precision: str, threads: int) -> list[Dense]:
    """PyTorch's product of large square matrices on the CUDA device; FP32 in TF32, as convolutions are computed."""
    import torch

    size = CUDA_SIZE
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision == "int8" and hasattr(torch, "_int_mm"):
        a, b = torch.randint(-127, 127, (2, size, size), dtype=torch.int8, device="cuda")
        multiply: Callable[[], object] = lambda: torch._int_mm(a, b)  # noqa: E731
    elif precision in types:
        a, b = torch.randn(2, size, size, device="cuda").to(types[precision])
        multiply = lambda: torch.mm(a, b)  # noqa: E731
    else:
        return []

    def call() -> None:
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        multiply()
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.cuda.synchronize()

    return [Dense(f"pytorch {size}³", size**3, call)]


def cuda_copy() -> tuple[Callable[[], None], int]:
    """A copy on the CUDA device, and the bytes that it reads and writes."""
    import torch

    source = torch.ones(CUDA_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def call() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return call, 2 * CUDA_COPY_BYTES
