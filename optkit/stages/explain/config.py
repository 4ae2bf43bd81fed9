"""Options of `explain`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from optkit.core import fingerprint
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError
from optkit.core.types import Format
from optkit.data.config import DataConfig
from optkit.data.files import find_images
from optkit.runtimes.base import check_runtime

FORMATS = (Format.TORCH, Format.ONNX, Format.ENGINE)


class Config(StageConfig):
    """Where in the images a model finds its evidence, and whether a second model looks there too."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", FORMATS, "the model to explain"),
        Input("other", FORMATS, "a second model, whose maps are compared with the first's", optional=True),
    )
    measures: ClassVar[bool] = True

    data: DataConfig | None = Field(
        default=None,
        description="Labelled images to draw from: half of those shown are mistakes, where there are as many.",
    )
    images: tuple[str, ...] = Field(
        default=(),
        description="Images, folders or quoted patterns without labels, separated by commas; instead of data.",
    )
    count: int = Field(default=8, ge=1, description="How many images to explain.")
    method: Literal["gradcam", "occlusion"] = Field(
        default="gradcam",
        description="gradcam: by gradients, checkpoints only. occlusion: hides one place after another; slower, "
        "works on every model.",
    )
    layer: str | None = Field(
        default=None, description="gradcam: layer to look at; default: the last convolutional feature map."
    )
    patches: int | None = Field(
        default=None,
        ge=4,
        le=64,
        description="occlusion: how many steps of the patch go across the image; default: 8.",
    )
    target: Literal["predicted", "label"] = Field(
        default="predicted",
        description="Class to explain: what the first model predicted, or the true one.",
    )
    runtime: str | None = Field(
        default=None, description="Runtime to use; default: that of the model's format."
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: every core this process may use.")

    @field_validator("images", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def canonical(self) -> dict[str, Any]:
        """Images by name and content."""
        files = find_images(self.images) if self.images else []
        return {**super().canonical(), "images": [[str(file), fingerprint.of_file(file)] for file in files]}

    def check(self) -> None:
        """There are images, labels where they are wanted, and the runtime is known."""
        super().check()
        if self.data is None and not self.images:
            raise UsageError(
                "explain needs images.", hint="Give --data photos/ (labelled), or --images 'photos/*.jpg'."
            )
        if self.images:
            if self.data is not None:
                raise UsageError(
                    "Images come from one place: --data and --images were both given.",
                    hint="Leave one out; in a recipe that has data for all its steps, write `data: null` here.",
                )
            find_images(self.images)
            if self.target == "label":
                raise UsageError(
                    "Images without labels have no true class.", hint="Give --data alone for --target label."
                )
        if self.layer is not None and self.method != "gradcam":
            raise UsageError("A layer means nothing to occlusion.", hint="Leave --layer out.")
        if self.patches is not None and self.method != "occlusion":
            raise UsageError("Patches mean nothing to Grad-CAM.", hint="Leave --patches out.")
        if self.runtime is not None:
            check_runtime(self.runtime)
