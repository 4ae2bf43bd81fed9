"""Options of `scale`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from optkit.core import machine
from optkit.core.config import StageConfig
from optkit.core.errors import UsageError
from optkit.data.config import AugmentConfig, TrainingDataConfig
from optkit.train.config import TrainConfig


class Config(StageConfig):
    """Compound scaling of EfficientNet (arXiv 1905.11946, section 3.3)."""

    measures: ClassVar[bool] = True

    base: str = Field(default="b0", description="Network to scale: b0…b7 or lite0…lite4.")
    size: int | None = Field(
        default=None, ge=16, description="Input size of the base in pixels; default: its own."
    )
    num_classes: int = Field(default=1000, ge=1, description="Classes of the head that is counted.")
    phi: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Compound coefficient φ; default: 1, or what the budget allows.",
    )
    alpha: float = Field(default=1.2, ge=1, le=4, description="Depth grows as α^φ.")
    beta: float = Field(default=1.1, ge=1, le=4, description="Width grows as β^φ.")
    gamma: float = Field(default=1.15, ge=1, le=4, description="Resolution grows as γ^φ.")
    search: bool = Field(
        default=False,
        description="Step 1: search α, β and γ with α·β²·γ² ≈ 2 on a grid, the given ones among them.",
    )
    rank_by: Literal["cost", "training"] = Field(
        default="cost",
        description="How candidates are ranked: by MACs nearest to twice the base's, or by the accuracy after a "
        "short training.",
    )
    step: float = Field(default=0.1, ge=0.01, le=0.5, description="Distance of the grid's points.")
    tolerance: float = Field(
        default=0.1, gt=0, le=1, description="How far from 2 a candidate's α·β²·γ² may be."
    )
    candidates: int = Field(
        default=5,
        ge=2,
        description="How many candidates are trained: those with MACs nearest to twice the base's.",
    )
    max_macs: float | None = Field(
        default=None, gt=0, description="Step 2: the largest φ within this many GMACs per image."
    )
    max_latency_ms: float | None = Field(
        default=None,
        gt=0,
        description="Step 2: the largest φ within this latency, the median of one image in PyTorch on this machine.",
    )
    seconds: float = Field(default=1.0, gt=0, description="Time measured per network for --max-latency-ms.")
    data: TrainingDataConfig | None = Field(default=None, description="Images for --rank-by training.")
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    def check(self) -> None:
        """The options go together."""
        super().check()
        if self.phi is not None and (self.max_macs or self.max_latency_ms):
            raise UsageError(
                "--phi and a budget exclude each other: φ follows from the budget.",
                hint="Give --phi, or --max-macs and --max-latency-ms.",
            )
        if self.train.phases or self.train.unfreeze not in ("auto", "all") or self.train.keep != "last":
            raise UsageError(
                "Candidates are trained whole and from scratch, in one phase, and the last weights count.",
                hint="Leave out --phases, --unfreeze and --keep.",
            )
        if self.rank_by == "training" and not self.search:
            raise UsageError("There is nothing to rank.", hint="Add --search.")
        if self.rank_by == "training" and self.data is None:
            raise UsageError("Ranking by training needs images.", hint="Name them with --data.")
        if self.rank_by == "cost" and self.data is not None:
            raise UsageError(
                "Nothing is trained on the images.",
                hint="Add --search --rank-by training, or leave --data out.",
            )

    def environment(self) -> dict[str, str]:
        """A latency belongs to the machine it was measured on."""
        return {} if self.max_latency_ms is None else machine.environment()
