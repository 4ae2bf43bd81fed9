"""Options of `sample`: which images to calibrate with."""

from __future__ import annotations

from pydantic import Field

from optkit.core.config import StageConfig
from optkit.core.types import Format
from optkit.data.config import DataConfig


class Config(StageConfig):
    """A stratified choice of training images, for one or more quantisations."""

    data: DataConfig = Field(
        default_factory=DataConfig, description="Images to choose from: its training images are used."
    )
    images: int = Field(default=300, gt=0, description="Number of calibration images.")

    def produces(self) -> Format:
        """The names and digests of the images, not the images."""
        return Format.IMAGES
