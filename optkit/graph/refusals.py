"""How ONNX Runtime says no."""

from __future__ import annotations

from optkit.core.foreign import onnxruntime_refusals


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it refuses; imported here, as linting for other targets needs it not."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return onnxruntime_refusals(errors)
