"""Which network to start from: shared by the stages that train a new one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from optkit.core.config import Config, StageConfig
from optkit.core.errors import UsageError
from optkit.core.types import HeadSpec, Manifest
from optkit.models.names import canonical_source, check_source, is_outdated


class HeadConfig(Config):
    """The new classifier that replaces the architecture's own."""

    pooling: Literal["avg", "max", "catavgmax", "flatten"] | None = Field(
        default=None,
        description="What the head sees of the feature map: its mean, its maximum, both, or all of it (flatten); "
        "default: what the architecture does itself.",
    )
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(),
        description="Widths of hidden layers (linear, ReLU, dropout) before the last: 1024 or 512,128.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the last layer's inputs dropped while training."
    )
    # EfficientNet's own random last layer is too large: on 2,000 photos of cats and dogs, training it on cached
    # features ended at .917, from zero at .991.
    init: Literal["zero", "xavier", "he"] = Field(
        default="zero",
        description="Start of the last layer; hidden layers start from he, or xavier where that is chosen.",
    )

    def spec(self) -> HeadSpec | None:
        """What the network is made of, None for the architecture's own head."""
        spec = HeadSpec(pooling=self.pooling, hidden=self.hidden, dropout=self.dropout)
        return None if spec == HeadSpec() else spec


class NewModelConfig(StageConfig):
    """Base of the configs of stages that build an architecture and fill it with weights."""

    arch: str = Field(default="lite0", description="b0…b7, lite0…lite4, or any timm name.")
    weights: str = Field(
        default="auto",
        description="auto, hub, package, scratch, or a .safetensors or .pth file. "
        "auto tries cache, package and hub.",
    )
    size: int | None = Field(
        default=None, ge=16, description="Input size in pixels; default: the model's, or the data set's own."
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Stochastic depth: how often the last residual block is skipped while training; rises from 0.",
    )
    head: HeadConfig = Field(default_factory=HeadConfig)

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


class NetworkConfig(StageConfig):
    """Base of the configs of stages that look at the network of a model, or at an architecture without weights."""

    arch: str | None = Field(
        default=None, description="Architecture instead of a model: b0, lite0, any timm name."
    )
    size: int | None = Field(
        default=None, ge=16, description="Input size in pixels; default: the model's or architecture's own."
    )
    num_classes: int | None = Field(
        default=None, ge=1, description="Classes of the architecture's head; default: 1000."
    )

    def check(self) -> None:
        """Classes are given for an architecture only."""
        super().check()
        if self.arch is None and self.num_classes is not None:
            raise UsageError("A model has its own number of classes.", hint="Leave --num-classes out.")
