"""Manners of the runtimes that optkit asks: what they raise, where they say why, what they would send home."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

ONNXRUNTIME_ERRORS = (
    "EPFail",
    "NoSuchFile",
    "Fail",
    "InvalidGraph",
    "InvalidProtobuf",
    "InvalidArgument",
    "NotImplemented",
    "RuntimeException",
)
MAX_CHARACTERS = 300


def onnxruntime_refusals(errors: ModuleType) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file or an input that it refuses: an exception per error code, with no
    common class. `errors` is onnxruntime.capi.onnxruntime_pybind11_state."""
    return tuple(getattr(errors, name) for name in ONNXRUNTIME_ERRORS)


def cause(error: Exception) -> str:
    """The last line of a message: where runtimes put the cause, behind the calls that led to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["it does not say why"])[-1][:MAX_CHARACTERS]


def silence_openvino() -> None:
    """Call it before OpenVINO is imported, which reports that to Google Analytics through openvino_telemetry.

    A None entry is Python's own way to say that a module cannot be had; OpenVINO then falls back to a silent stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@cache
def openvino_core(openvino: ModuleType) -> Any:
    """The openvino.Core of this process: one, and never closed. Silence `openvino` before it is imported.

    A core takes over the thread's signal stack and, when closed, puts back the one that it found. Closed before its
    successor, it leaves memory there that may be unmapped, and the next signal kills the process.
    """
    return openvino.Core()
