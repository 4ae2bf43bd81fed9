"""OpenVINO on the CPU; reads ONNX files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover, machine
from optkit.core.errors import InputError
from optkit.core.foreign import cause, openvino_core, silence_openvino
from optkit.core.types import Artifact, Format, Precision
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import openvino

FORMATS = (Format.ONNX,)
MATRIX_LAYERS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
PRECISIONS = {"f32": "fp32", "f16": "fp16", "i8": "int8", "u8": "int8"}


def unavailable() -> str | None:
    """Whether the package is there."""
    return None if discover.installed("openvino") else "openvino is not installed: pip install 'optkit[cpu]'"


def _core() -> openvino.Core:
    silence_openvino()
    import openvino

    return openvino_core(openvino)


class OpenVinoSession:
    """One input, one output."""

    def __init__(self, compiled: openvino.CompiledModel, path: str, facts: dict[str, Any]) -> None:
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._path = path
        self.facts = facts

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._request is None:
            raise ValueError("the session is closed")
        try:
            answer = self._request.infer([pixels], share_inputs=True)
        except RuntimeError as error:
            raise _refused(self._path, error, f"It was given a batch of {len(pixels)}.") from None
        logits: NDArray[np.float32] = np.array(answer[0], np.float32)  # the request reuses its own buffer
        return logits

    def close(self) -> None:
        self._request = None


def _refused(path: str, error: Exception, hint: str) -> InputError:
    return InputError(f"OpenVINO refuses {path!r}.", why=cause(error), hint=hint)


def _executed(compiled: openvino.CompiledModel) -> dict[str, int]:
    """In which precision the convolutions and matrix products really run: {"fp32": 49}."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        if node.rt_info["layerType"].astype(str) in MATRIX_LAYERS:
            precision = node.rt_info["runtimePrecision"].astype(str)
            counts[PRECISIONS.get(precision, precision)] += 1
    return dict(counts)


def open_session(artifact: Artifact, options: SessionOptions) -> OpenVinoSession:
    """Compile an ONNX file for latency; InputError when OpenVINO refuses it."""
    path = str(artifact.file)
    core = _core()
    threads = options.threads or machine.facts()["cores"]
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if artifact.precision not in (Precision.FP16, Precision.BF16):
        # Left alone, OpenVINO runs float layers in bf16 where the CPU can: no longer what the file says.
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        hint = "It may be damaged, made for another target, or of a newer opset."
        raise _refused(path, error, hint) from None
    batch = model.inputs[0].get_partial_shape()[0]
    executed = _executed(compiled)
    facts = {
        "device": "cpu",
        "precision": "+".join(sorted(executed)) or artifact.precision.value,
        "executed_layers": executed,
        "threads": threads,
        "fixed_batch": batch.get_length() if batch.is_static else None,
        "version": core.get_versions("CPU")["CPU"].build_number,
    }
    return OpenVinoSession(compiled, path, facts)
