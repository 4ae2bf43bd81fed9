"""Options of `estimate`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.measure.estimate_setups import SETUPS, choose, gpus


class Config(StageConfig):
    """Throughput of a model or an architecture on GPUs that are not here, estimated and never measured."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input(
            "model",
            (Format.TORCH, Format.ONNX, Format.ENGINE),
            "the model to estimate, or an architecture",
            optional=True,
        ),
    )
    measures: ClassVar[bool] = True

    arch: str | None = Field(
        default=None, description="Architecture to estimate instead: b0, lite0, any timm name."
    )
    size: int | None = Field(
        default=None, ge=16, description="Input size in pixels; default: the model's or architecture's own."
    )
    num_classes: int | None = Field(
        default=None, ge=1, description="Classes of the architecture's head; default: 1000."
    )
    gpu: tuple[str, ...] = Field(default=(), description=f"GPUs: {', '.join(gpus())}; default: all of them.")
    compiled: bool | None = Field(
        default=None, description="PyTorch with torch.compile, or without (eager); default: both."
    )
    setup: tuple[str, ...] = Field(
        default=(),
        description="Setups that were calibrated, such as rtx4090-nhwc-eager-2.4, instead of the newest of each "
        "GPU.",
    )

    def check(self) -> None:
        """The names are known, and there are throughputs of what is asked for."""
        super().check()
        if self.arch is None and self.num_classes is not None:
            raise UsageError("A model has its own number of classes.", hint="Leave --num-classes out.")
        setups = [setup.name for setup in SETUPS.values() if setup.is_offered]
        for what, names, known in (("GPU", self.gpu, gpus()), ("setup", self.setup, setups)):
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"There are no throughputs of the {what} {name!r}.", hint=closest(name, known)
                    )
        if self.setup and (self.gpu or self.compiled is not None):
            raise UsageError(
                "A setup says its GPU, and whether it is compiled.",
                hint="Leave --gpu and --compiled out, or --setup.",
            )
        if not choose(self.gpu, self.compiled, self.setup):
            raise UsageError(
                f"There are no throughputs of {', '.join(self.gpu)} with torch.compile.",
                hint="Leave --compiled out, or add another GPU.",
            )
