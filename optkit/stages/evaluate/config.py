"""Options of `evaluate`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from optkit.core.config import Input, StageConfig
from optkit.core.types import Format
from optkit.data.config import DataConfig
from optkit.runtimes.base import check_runtime


class Config(StageConfig):
    """Accuracy of a model on labelled images, overall and class by class."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.TORCH, Format.ONNX, Format.ENGINE), "the model to evaluate"),
    )
    measures: ClassVar[bool] = True

    data: DataConfig = Field(default_factory=DataConfig)
    split: Literal["train", "val"] = Field(
        default="val",
        description="Which images. val: the validation images; where there are none, every image, unless the "
        "model was trained on them, then the held-out share.",
    )
    runtime: str | None = Field(
        default=None, description="Runtime to use; default: that of the model's format."
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: every core this process may use.")

    def check(self) -> None:
        """The runtime is known, the data exists."""
        super().check()
        if self.runtime is not None:
            check_runtime(self.runtime)
