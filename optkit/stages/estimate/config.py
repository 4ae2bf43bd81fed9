"""Options of `estimate`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core.config import Input
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.measure.estimate_setups import SETUPS, choose, gpus
from optkit.models.config import NetworkConfig


class Config(NetworkConfig):
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
        setups = [setup.name for setup in SETUPS.values() if setup.is_offered]
        for name in {setup.name for setup in SETUPS.values()}.difference(setups).intersection(self.setup):
            raise UsageError(
                f"The estimates of the setup {name!r} are too far off to be shown.",
                why="On networks of held-out families, their error exceeds a median of 10 % or a mean of 13 %.",
                hint=closest(name, setups),
            )
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
