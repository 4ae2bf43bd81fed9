"""Options of `export`: which file to make, and for which machine."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from optkit.core import machine
from optkit.core.config import Input, StageConfig
from optkit.core.errors import MissingError, UsageError
from optkit.core.types import Format

PORTABLE = "portable"
RTX_TARGETS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")  # TensorRT-RTX 1.x; there is no Hopper


class Config(StageConfig):
    """ONNX from a checkpoint, or a TensorRT engine from a checkpoint or an ONNX file."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.TORCH, Format.ONNX), "the checkpoint or ONNX file to export"),
    )

    format: Literal["onnx", "tensorrt"] = Field(
        default="onnx", description="onnx, or tensorrt for an engine (the ONNX file is kept beside it)."
    )
    opset: int = Field(default=20, ge=18, description="ONNX operator set of an export from a checkpoint.")
    max_batch: int = Field(
        default=8,
        ge=1,
        le=4096,
        description="Largest batch: ONNX is checked up to it, an engine is tuned for it and takes no more.",
    )
    target: str | None = Field(
        default=None,
        description="GPU an engine is built for, as compute capability (SM89, 8.9), or 'portable'. "
        "Default: this machine's GPU, else portable (Ampere and later).",
    )

    @field_validator("target")
    @classmethod
    def _read_target(cls, value: str | None) -> str | None:
        """`8.9`, `89` and `sm89` mean SM89."""
        if value is None or value.lower() == PORTABLE:
            return value and PORTABLE
        digits = value.lower().removeprefix("sm").lstrip("_").replace(".", "")
        if not re.fullmatch(r"\d{2,3}", digits):
            raise ValueError("a compute capability looks like SM89 or 8.9")
        return f"SM{digits}"

    def produces(self) -> Format:
        """By --format."""
        return Format.ENGINE if self.format == "tensorrt" else Format.ONNX

    def check(self) -> None:
        """TensorRT is there, and builds for the target."""
        super().check()
        if self.format != "tensorrt":
            return
        found = machine.tensorrt()
        if found is None:
            raise MissingError(
                "An engine needs TensorRT, and it is not installed.",
                why="Neither the package 'tensorrt' nor 'tensorrt_rtx' is there.",
                hint="pip install 'optkit[rtx]' (builds without a GPU too) or 'optkit[gpu]'",
            )
        if found[0] == "tensorrt":
            self._check_tensorrt()
        elif (target := self.resolved_target()) not in (*RTX_TARGETS, PORTABLE):
            raise UsageError(
                f"TensorRT-RTX does not build for {target}.",
                why="That is this machine's GPU." if self.target is None else "",
                hint=f"--target {', '.join(RTX_TARGETS)} or {PORTABLE}; full TensorRT is in 'optkit[gpu]'.",
            )

    def _check_tensorrt(self) -> None:
        here = machine.compute_capability()
        if here is None:
            raise MissingError(
                "TensorRT builds engines only where there is an NVIDIA GPU, and there is none here.",
                hint="Uninstall 'tensorrt' and install 'optkit[rtx]', which builds without one.",
            )
        if self.target not in (None, here):
            raise UsageError(
                f"TensorRT builds for this machine's GPU, {here}, not for {self.target}.",
                hint="Leave --target out, or build on the machine that will run the engine.",
            )

    def resolved_target(self) -> str:
        """The target that will be built for."""
        return self.target or machine.compute_capability() or PORTABLE

    def environment(self) -> dict[str, str]:
        """An engine belongs to one TensorRT version and to its target; TensorRT's own also to the GPU."""
        found = machine.tensorrt()
        if self.format != "tensorrt" or found is None:
            return {}
        facts = {"tensorrt": " ".join(found), "target": self.resolved_target()}
        if found[0] == "tensorrt" and machine.gpus():
            facts["gpu"] = machine.gpus()[0]["name"]
        return facts
