"""Options of `bench`: how long and with what each model is measured."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveInt

from optkit.core import discover, machine
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.data.config import DataConfig


class Config(StageConfig):
    """Latency, throughput, accuracy, MACs, parameters and bytes of models, measured side by side."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input(
            "models",
            (Format.TORCH, Format.ONNX, Format.ENGINE),
            "the models to measure; the first one is the baseline",
            many=True,
        ),
    )
    measures: ClassVar[bool] = True

    data: DataConfig | None = Field(
        default=None, description="Images to measure accuracy on; without them accuracy is not measured."
    )
    runtimes: tuple[str, ...] = Field(
        default=(),
        description="Runtimes to measure in; default: pytorch for checkpoints, onnxruntime for ONNX, "
        "tensorrt for engines.",
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        default=(1,), min_length=1, description="Batch sizes to time."
    )
    seconds: float = Field(
        default=5.0,
        gt=0,
        description="Time measured per model and batch size; a sound p99 needs 662 calls in it.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: every core this process may use.")
    max_images: int | None = Field(
        default=None, ge=1, description="Measure accuracy on that many images, drawn evenly from the classes."
    )

    def check(self) -> None:
        """The runtimes are known, the data exists."""
        super().check()
        known = discover.names("optkit.runtimes")
        for name in self.runtimes:
            if name not in known:
                raise UsageError(f"Unknown runtime {name!r}.", hint=closest(name, known))

    def environment(self) -> dict[str, str]:
        """A measurement belongs to the machine and the runtimes it was made with."""
        return machine.environment()
