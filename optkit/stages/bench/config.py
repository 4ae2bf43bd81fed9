"""Options of `bench`: how long and with what each model is measured."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from optkit.core import machine
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError
from optkit.core.types import Format, Manifest
from optkit.data.config import DataConfig
from optkit.runtimes.base import check_runtime


class Config(StageConfig):
    """Latency, throughput, memory, accuracy, MACs and bytes of models, measured side by side."""

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
        description="Runtimes to measure in, with a variant where they have several (openvino:throughput, "
        "pytorch:compiled, `optkit list`); default: pytorch for checkpoints, onnxruntime for ONNX, tensorrt for "
        "engines.",
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        default=(1,), min_length=1, description="Batch sizes to time."
    )
    seconds: float = Field(
        default=5.0,
        gt=0,
        description="Time measured per model and batch size; p99 needs 662 calls in it, p99.9 needs 6,636.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        description="CPU threads; the process keeps to as many CPUs. 0: every one that it may use.",
    )
    repeats: PositiveInt = Field(
        default=3,
        description="Processes that each model is timed in, one after the other, as far as opening it again takes "
        "little of the time.",
    )
    confidence: float = Field(
        default=0.99, gt=0.5, lt=1, description="Of the intervals that say faster or slower."
    )
    loads: tuple[Literal["offline", "server"], ...] = Field(
        default=(),
        description="What is measured beside the latency of one stream: offline, the throughput with as many "
        "requests at once as the runtime wants; server, the most requests per second, coming at random, whose p99 "
        "keeps --latency-bound-ms.",
    )
    latency_bound_ms: float | None = Field(
        default=None,
        gt=0,
        description="Latency that 99 % of the server's requests must keep, queueing included.",
    )
    layers: bool = Field(
        default=False,
        description="Time every layer too, against the limits of this machine, which are measured (roofline).",
    )
    like: Literal["trtexec-10", "trtexec-11"] | None = Field(
        default=None,
        description="On a GPU: also time as that major version of trtexec does by default, 200 ms of warm-up, 3 s and "
        "at least 10 runs; 10: with copies, without a CUDA graph, the host sleeps; 11: without copies, with a CUDA "
        "graph, the host spins.",
    )
    max_images: int | None = Field(
        default=None, ge=1, description="Measure accuracy on that many images, drawn evenly from the classes."
    )

    def check(self) -> None:
        """The runtimes are known, the data exists."""
        super().check()
        for name in self.runtimes:
            check_runtime(name)
        if self.threads > (cores := machine.facts()["cores"]):
            raise UsageError(
                f"--threads {self.threads} is more than the {cores} CPUs that this process may use.",
                hint=f"Give at most {cores}.",
            )
        if "server" in self.loads and 1 not in self.batch_sizes:
            raise UsageError(
                "The load 'server' sends single images, and batch 1 is not timed.",
                hint="Add 1 to --batch-sizes.",
            )
        if ("server" in self.loads) != (self.latency_bound_ms is not None):
            raise UsageError(
                "The load 'server' and a latency bound belong together.",
                why="It is the highest rate of requests that keeps the bound.",
                hint="Give --loads server --latency-bound-ms 50, or neither.",
            )

    def accepts(self, manifest: Manifest) -> bool:
        """Not what was interrupted, nor what a process crashed in."""
        return not manifest.details.get("interrupted") and not manifest.details.get("failed")

    def environment(self) -> dict[str, str]:
        """A measurement belongs to the machine and the runtimes it was made with."""
        return machine.environment()
