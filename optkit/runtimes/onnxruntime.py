"""ONNX Runtime: the CPU provider, or CUDA where onnxruntime-gpu offers it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover, machine
from optkit.core.errors import InputError
from optkit.core.foreign import onnxruntime_refusals
from optkit.core.types import Artifact, Format, Precision
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import onnxruntime

FORMATS = (Format.ONNX,)


def unavailable() -> str | None:
    """Whether the package is there; the GPU flavour brings the same module."""
    if discover.installed("onnxruntime"):
        return None
    return "onnxruntime is not installed: pip install 'optkit[cpu]' (or 'optkit[gpu]' for CUDA)"


DAMAGED = "It may be damaged, made for another target, or of a newer opset."
CPU = "CPUExecutionProvider"
X86 = ("x86_64", "AMD64")
# Precisions that its CPU provider does not run.
CPU_HINTS = {
    Precision.BF16: "On a CPU it has no BF16 kernels: use --runtimes openvino, or build an engine for a GPU.",
    Precision.FP8: "On a CPU its graph optimiser fails on Q/DQ in FP8: build an engine, "
    "`optkit export --format tensorrt --target SM89`.",
}
INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def _refusals() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return onnxruntime_refusals(errors)


def _refused(path: str, error: Exception, hint: str) -> InputError:
    why = " ".join(str(error).split())[:300]
    return InputError(f"ONNX Runtime refuses {path!r}.", why=why, hint=hint)


class OrtSession:
    """A float image input and one output; `facts["fixed_batch"]` is the batch of a file that fixes it."""

    def __init__(self, session: onnxruntime.InferenceSession, path: str, facts: dict[str, Any]) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._path = path
        self._input = session.get_inputs()[0]
        self._output = session.get_outputs()[0].name
        if self._input.type not in INPUT_TYPES:
            raise InputError(
                f"The input of {path!r} is {self._input.type}.",
                why="optkit feeds normalised float images.",
                hint="Export the model with a float32 or float16 input.",
            )
        self._dtype = INPUT_TYPES[self._input.type]
        self._refusals = _refusals()
        self.facts = facts

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._session is None:
            raise ValueError("the session is closed")
        feed = {self._input.name: pixels.astype(self._dtype, copy=False)}
        try:
            logits: NDArray[Any] = self._session.run([self._output], feed)[0]
        except self._refusals as error:
            raise _refused(self._path, error, f"Its input is {self._input.shape}.") from None
        return logits.astype(np.float32, copy=False)

    def close(self) -> None:
        self._session = None


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal only: errors come as exceptions
    # Threads spin within a run, as by default, but not after it: they would slow down whatever else is
    # measured in the same process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _executed(stored: Precision, provider: str) -> Precision:
    """What a file of this precision is computed in: on x86 the CPU provider casts FP16 to FP32 and back."""
    in_fp32 = stored is Precision.FP16 and provider == CPU and platform.machine() in X86
    return Precision.FP32 if in_fp32 else stored


def open_session(artifact: Artifact, options: SessionOptions) -> OrtSession:
    """Open an ONNX file with all graph optimisations; InputError when ONNX Runtime refuses it."""
    import onnxruntime

    path = str(artifact.file)
    threads = options.threads or machine.facts()["cores"]
    offered = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", CPU) if name in offered]
    try:
        session = onnxruntime.InferenceSession(path, _options(threads), providers=wanted)
    except _refusals() as error:
        hint = CPU_HINTS.get(artifact.precision, DAMAGED) if wanted == [CPU] else DAMAGED
        raise _refused(path, error, hint) from None
    batch = session.get_inputs()[0].shape[0]
    provider = session.get_providers()[0]  # what was taken, not what was asked for
    facts = {
        "device": "cuda" if provider.startswith("CUDA") else "cpu",
        "provider": provider,
        "precision": _executed(artifact.precision, provider).value,
        "threads": threads,
        "fixed_batch": batch if isinstance(batch, int) else None,
        "version": onnxruntime.__version__,
    }
    if facts["device"] == "cuda":
        facts["tf32"] = True  # the provider's default for float32 matrix products
    return OrtSession(session, path, facts)
