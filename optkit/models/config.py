"""Which network to start from: shared by the stages that train a new one."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from optkit.core.config import StageConfig
from optkit.core.types import Manifest
from optkit.models.names import canonical_source, check_source, is_outdated


class NewModelConfig(StageConfig):
    """Base of the configs of stages that build an architecture and fill it with weights."""

    arch: str = Field(default="lite0", description="b0…b7, lite0…lite4, or any timm name.")
    weights: str = Field(
        default="auto",
        description="auto, hub, package, scratch, or a .safetensors or .pth file. "
        "auto tries cache, package and hub.",
    )

    def canonical(self) -> dict[str, Any]:
        """A weights file by its content."""
        return {**super().canonical(), "weights": canonical_source(self.weights)}

    def check(self) -> None:
        """A weights file exists."""
        super().check()
        check_source(self.weights)

    def accepts(self, manifest: Manifest) -> bool:
        """Not what was trained from scratch only because the weights' package was not installed then."""
        return not is_outdated(self.arch, self.weights, manifest)
