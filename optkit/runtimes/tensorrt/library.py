"""The Python module of either flavour, and a logger that prints nothing."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from optkit.core import discover
from optkit.core.errors import MissingError
from optkit.runtimes.tensorrt.engine_file import FLAVOURS


def load_library(flavour: str) -> ModuleType:
    if not discover.installed(flavour):
        extra = "gpu" if flavour == "tensorrt" else "rtx"
        raise MissingError(f"{FLAVOURS[flavour]} is not installed.", hint=f"pip install 'optkit[{extra}]'")
    return importlib.import_module(flavour)


def recorder(trt: ModuleType) -> Any:
    """A TensorRT logger that keeps messages (`errors`, `warnings`) instead of printing them."""

    class Recorder(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(message)

    return Recorder()
