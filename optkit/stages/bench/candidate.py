"""A model in a runtime, and what was measured of it and beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optkit.core.errors import MissingError, OptkitError
from optkit.core.types import Artifact, Measurement
from optkit.stages.bench.process import CrashedError, Process, fresh_process

if TYPE_CHECKING:
    from optkit.measure.accuracy import Accuracy
    from optkit.measure.counts import Cost


INTERRUPTED = "interrupted before it was measured"


@dataclass
class Timing:
    """What was timed at one batch size. `rounds[r]` are the milliseconds of round r, when every model had its turn.

    `spent_ms` counts the calls too that are not among them; `joules` is what the rounds took, by source;
    `no_energy` why a source cannot be read.
    """

    rounds: dict[int, list[float]] = field(default_factory=dict)
    warm_up_ms: list[float] = field(default_factory=list)
    steady: bool = True
    spent_ms: float = 0.0
    calls: int = 0
    joules: dict[str, float] = field(default_factory=dict)
    no_energy: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int | None] | None = None
    parts: list[Measurement] = field(default_factory=list)

    @property
    def samples(self) -> list[float]:
        """Every call that counts, in order."""
        return [sample for number in sorted(self.rounds) for sample in self.rounds[number]]

    @property
    def counts(self) -> list[int]:
        """How many of the samples belong to each round, in order."""
        return [len(self.rounds[number]) for number in sorted(self.rounds)]


@dataclass
class Candidate:
    """`error` is why it could not be opened or why its process died; `not_measured` has a reason for other gaps.

    `computes` is False where the answers are not the model's, so that no accuracy is measured. `prepared` are the
    batch sizes that it takes; `opening_s` is the processor time of starting a process and opening the model there;
    `offline` are the images per second of every round; `data_classes` says which class of the data each of the
    model's is; `cost` is what a process counted, or why it did not.
    """

    name: str
    artifact: Artifact
    runtime: str
    computes: bool = True
    process: Process | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    opening_s: float = 0.0
    error: OptkitError | None = None
    accuracy: Accuracy | None = None
    data_classes: dict[int, int] = field(default_factory=dict)
    timings: dict[int, Timing] = field(default_factory=dict)
    prepared: set[int] = field(default_factory=set)
    offline: dict[int, list[float]] = field(default_factory=dict)
    server: dict[str, Any] | None = None
    layers: list[dict[str, Any]] = field(default_factory=list)
    cost: Cost | str | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether its process died, or could not be started again for further rounds."""
        return self.error is not None and (isinstance(self.error, CrashedError) or bool(self.timings))

    @property
    def answers(self) -> list[int | str]:
        """What was answered for each image: a class of the data, or the name of another one."""
        found = self.accuracy.predictions if self.accuracy else []
        return [self.data_classes.get(one, self.artifact.spec.class_names[one]) for one in found]

    @property
    def on_gpu(self) -> bool:
        return str(self.facts.get("device", "cpu")) not in ("cpu", "none")

    def conditions(self, batch: int) -> dict[str, Any]:
        """What a measurement of this candidate belongs to."""
        return {
            "model": self.name,
            "key": self.artifact.key,
            "runtime": self.runtime,
            "batch": batch,
            "threads": self.facts.get("threads"),
        }

    def refused_batch(self, batch: int) -> str | None:
        """Why the file does not take this batch size, None when it does."""
        fixed, largest = self.facts.get("fixed_batch"), self.facts.get("max_batch")
        if fixed and batch != fixed:
            return f"the file fixes its batch at {fixed}"
        if largest and batch > largest:
            return f"the file takes batches of at most {largest}"
        return None

    def call(self, command: str, *arguments: Any) -> Any:
        """Have its process do something; CrashedError, also kept in `error`, when that dies."""
        with self.watched():
            return self._alive().call(command, *arguments)

    def post(self, command: str, *arguments: Any) -> None:
        """Ask its process for something; `wait` has the answer."""
        with self.watched():
            self._alive().post(command, *arguments)

    def wait(self) -> Any:
        """The answer to what was posted."""
        with self.watched():
            return self._alive().wait()

    def start(self) -> None:
        """A fresh process."""
        self.stop()
        self.process = fresh_process()

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process:
            self.process.close()
            self.process = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keeps the crash of the process in `error`, and what is left of it away."""
        try:
            yield
        except CrashedError as error:
            self.error = error
            self.stop()
            raise

    def _alive(self) -> Process:
        if self.process is None:
            raise ValueError("the process is not running")
        return self.process


@dataclass
class Findings:
    """What is not a candidate's own: `began` is when all models were open, `interrupted` that Ctrl-C came before all
    was measured."""

    flips: list[dict[str, Any]] = field(default_factory=list)
    roofline: dict[str, Any] | None = None
    began: str = ""
    interrupted: bool = False


def alive(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose process runs."""
    return [candidate for candidate in candidates if candidate.process]


def reason(error: OptkitError) -> str:
    """An error as one line: of what the machine lacks the cause alone, as the row says what the model is."""
    if isinstance(error, MissingError) and error.why:
        return error.why
    return " ".join(filter(None, (error.message, error.why)))
