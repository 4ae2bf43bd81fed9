"""What the rungs of the recovery ladder work with: images to fit to, to choose by and to judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core.progress import Reporter
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.torch_module import GraphModule
from optkit.measure.parity import Parity, compare_logits, image_sqnr
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import Pixels, run_model
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.sensitivity import OperatorNoise, sensitivity


@dataclass(frozen=True)
class Judged:
    """Batches (n, 3, size, size) of images, and their FP32 logits."""

    batches: list[Pixels]
    reference: NDArray[np.float32]

    def parity(self, model: onnx.ModelProto, io: ClassifierIO) -> tuple[Parity, NDArray[np.float64]]:
        """How near a file's logits are to FP32's, in all and as SQNR in dB of every image."""
        logits = run_model(model, io, self.batches)
        return compare_logits(self.reference, logits), image_sqnr(self.reference, logits)


@dataclass(frozen=True)
class Workbench:
    """Three shares of the calibration images, no image in two of them where there are enough.

    `fit` are the first batches of those that ranges, weights and biases are taken from, and `all_fit` yields all of
    them; among a few alternatives the best on `choosing` is taken; `held` alone says whether a rung helped.
    `train(student, teacher, key)` trains, and says on how much.
    """

    io: ClassifierIO
    fit: list[Pixels]
    all_fit: Callable[[], Iterable[Pixels]]
    choosing: Judged
    held: Judged
    seed: int
    reporter: Reporter
    train: Callable[[GraphModule, GraphModule, str], str] | None = None
    _noise: list[tuple[Candidate, list[OperatorNoise]]] = field(default_factory=list)

    def observe(self, model: onnx.ModelProto, tensors: list[str], what: str) -> dict[str, Observed]:
        """What the images to fit to do to `tensors`."""
        with self.reporter.track(what) as task:
            return observe(model, self.io, tensors, self.all_fit(), True, task)

    def sensitivity(self, candidate: Candidate) -> list[OperatorNoise]:
        """The noise of every operator alone, the most harmful first; measured once for a model and its ranges."""
        for known, found in self._noise:
            if known.model is candidate.model and known.ranges is candidate.ranges:
                return found
        found = sensitivity(candidate, self.io, self.fit, self.reporter)
        self._noise.append((candidate, found))
        return found
