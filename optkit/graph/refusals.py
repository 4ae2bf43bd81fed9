"""How ONNX Runtime says no."""

from __future__ import annotations

NAMES = (
    "EPFail",
    "NoSuchFile",
    "Fail",
    "InvalidGraph",
    "InvalidProtobuf",
    "InvalidArgument",
    "NotImplemented",
    "RuntimeException",
)


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it refuses: an exception per error code, without a common class."""
    from onnxruntime.capi import (
        onnxruntime_pybind11_state as errors,  # linting for other targets needs it not
    )

    return tuple(getattr(errors, name) for name in NAMES)
