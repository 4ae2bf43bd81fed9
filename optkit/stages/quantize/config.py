"""Options of `quantize`: an FP32 ONNX classifier → INT8."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core import discover
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.data.config import DataConfig

CALIBRATORS = "optkit.stages.quantize.calibrators"
PLACEMENTS = "optkit.stages.quantize.placement"
AUTO = "auto"


class Config(StageConfig):
    """For which runtime, and from which images the ranges are taken."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.ONNX,), "The FP32 ONNX classifier to quantise"),
    )

    data: DataConfig = Field(
        default_factory=DataConfig, description="Calibration images: a sample of its training images."
    )
    target: str = Field(default="onnxruntime", description="Runtime that the file is made for (optkit list).")
    calibrator: str = Field(
        default=AUTO,
        description="How ranges are chosen (optkit list); auto: the one that keeps the logits nearest to FP32 "
        "on an eighth of the calibration images, which no range was taken from.",
    )
    calibration_images: int = Field(default=300, gt=0, description="Number of calibration images.")
    calibration_batch: int = Field(default=8, gt=0, description="Images run at once while calibrating.")

    def check(self) -> None:
        """Target and calibrator exist, and ONNX Runtime is installed."""
        super().check()
        for kind, package, name in (
            ("target", PLACEMENTS, self.target),
            ("calibrator", CALIBRATORS, self.calibrator),
        ):
            known = discover.names(package)
            if name not in known and (kind, name) != ("calibrator", AUTO):
                raise UsageError(f"Unknown {kind} {name!r}.", hint=closest(name, known))
        discover.require("onnxruntime", "cpu")

    def produces(self) -> Format:
        """An ONNX file with Q/DQ pairs."""
        return Format.ONNX
