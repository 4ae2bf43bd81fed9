"""Options of `quantize`: an FP32 ONNX classifier → INT8, FP8, FP16 or BF16."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from optkit.core import discover, machine
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.data.config import DataConfig

CALIBRATORS = "optkit.stages.quantize.calibrators"
PLACEMENTS = "optkit.stages.quantize.placement"
RUNGS = "optkit.stages.quantize.recovery"
AUTO = "auto"


class Config(StageConfig):
    """For which runtime, and from which images the ranges are taken."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.ONNX,), "The FP32 ONNX classifier to quantise"),
        Input(
            "calibration",
            (Format.IMAGES,),
            "the calibration images that `optkit sample` chose; default: the same choice is made here",
            optional=True,
        ),
    )

    data: DataConfig = Field(
        default_factory=DataConfig, description="Calibration images: a sample of its training images."
    )
    target: str = Field(default="onnxruntime", description="Runtime that the file is made for (optkit list).")
    calibrator: str = Field(
        default=AUTO,
        description="How ranges are chosen (optkit list); auto: the one that keeps the logits nearest to FP32 "
        "on up to an eighth of the calibration images (48 at most), which no range is taken from.",
    )
    calibration_images: int = Field(
        default=300, gt=0, description="Number of calibration images, where none are given."
    )
    calibration_batch: int = Field(default=8, gt=0, description="Images run at once while calibrating.")
    precision: Literal["int8", "fp8", "fp16", "bf16"] = Field(
        default="int8",
        description="int8 and fp8 (TensorRT on Ada or later) with Q/DQ pairs; fp16 and bf16 as typed graphs.",
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Budget: points of top-1 that may be lost on the validation images. A budget starts the "
        "recovery ladder, which ends as soon as it holds.",
    )
    min_agreement: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Budget: share of validation images with FP32's answer.",
    )
    min_sqnr: float | None = Field(
        default=None, description="Budget: SQNR of the logits on validation images, dB."
    )
    rungs: tuple[str, ...] = Field(
        default=(),
        description="Rungs of the recovery ladder to climb (optkit list); default: all of them. A rung is kept "
        "when it surely raised the SQNR on held-out images. Without a budget all that are named are tried, once.",
    )
    qat_epochs: int = Field(default=1, gt=0, description="Epochs over the training images of the rung 'qat'.")
    qat_lr: float = Field(default=1e-5, gt=0, le=1, description="Peak learning rate of the rung 'qat'.")
    check_images: int = Field(
        default=1000, gt=0, description="Validation images that the budget is checked on, at most."
    )
    allow_slower: bool = Field(
        default=False,
        description="With the recovery ladder, for a file that another machine will run: no layer is chosen by what "
        "is fast on this CPU, and no file is refused because it is slower than FP32 here.",
    )

    def check(self) -> None:
        """Names are known, options go together, and ONNX Runtime is installed."""
        super().check()
        for kind, package, name in (
            ("target", PLACEMENTS, self.target),
            ("calibrator", CALIBRATORS, self.calibrator),
        ):
            known = discover.names(package)
            if name not in known and (kind, name) != ("calibrator", AUTO):
                raise UsageError(f"Unknown {kind} {name!r}.", hint=closest(name, known))
        for name in self.rungs:
            if name not in (known := discover.names(RUNGS)):
                raise UsageError(f"Unknown rung {name!r}.", hint=closest(name, known))
        if self.precision != "int8" and (self.has_budget or self.rungs):
            raise UsageError(
                f"The recovery ladder is for INT8, not for {self.precision}.",
                hint="Leave out --max-drop, --min-agreement, --min-sqnr and --rungs.",
            )
        if self.precision != "int8" and self.calibrator not in (
            AUTO,
            *(["minmax"] if self.precision == "fp8" else []),
        ):
            raise UsageError(
                f"The calibrator {self.calibrator!r} is for INT8.",
                why="The codes of floating point are not evenly spaced: clipping gains nothing.",
                hint="Leave out --calibrator.",
            )
        if self.precision == "bf16" and self.target == "onnxruntime":
            raise UsageError(
                "ONNX Runtime has no BF16 convolutions on a CPU.", hint="Use --target openvino or tensorrt."
            )
        if self.precision == "fp8" and self.target != "tensorrt":
            raise UsageError(
                f"{self.target} does not run FP8 convolutions.",
                hint="Use --target tensorrt, or another --precision.",
            )
        discover.require("onnxruntime", "cpu")

    def environment(self) -> dict[str, str]:
        """The ladder chooses by what is fast here."""
        return machine.environment() if self.climbs and not self.allow_slower else {}

    @property
    def has_budget(self) -> bool:
        """Whether any limit was given."""
        return not (self.max_drop is None and self.min_agreement is None and self.min_sqnr is None)

    @property
    def climbs(self) -> bool:
        """Whether the recovery ladder is asked for."""
        return self.has_budget or bool(self.rungs)

    def produces(self) -> Format:
        """An ONNX file."""
        return Format.ONNX
