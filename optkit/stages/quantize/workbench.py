"""What the rungs of the recovery ladder work with: images to fit to, others to judge by, and the FP32 answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core.progress import Reporter
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.torch_module import GraphModule
from optkit.measure.parity import Parity, compare_logits
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.observe import observe, open_session, pad

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Workbench:
    """`fit` and `held` are batches (n, 3, size, size) of calibration images; nothing is ever fitted to `held`."""

    io: ClassifierIO
    fit: list[Pixels]
    held: list[Pixels]
    reference: NDArray[np.float32]  # FP32 logits of `held`
    reporter: Reporter
    train: Callable[[GraphModule, GraphModule, str], str] | None = None  # see `training.train_student`

    def score(self, model: onnx.ModelProto) -> Parity:
        """How near a file's logits are to FP32's on the images that were held out."""
        return compare_logits(self.reference, run_model(model, self.io, self.held))

    def score_of(self, candidate: Candidate) -> float:
        """SQNR in dB of the file on the images that were held out."""
        return self.score(candidate.build()).sqnr_db

    def observe(self, model: onnx.ModelProto, tensors: list[str], what: str) -> dict[str, Observed]:
        """What the images to fit to do to `tensors`."""
        with self.reporter.track(what, sum(map(len, self.fit))) as task:
            return observe(model, self.io, tensors, self.fit, True, task)


def run_model(model: onnx.ModelProto, io: ClassifierIO, batches: Iterable[Pixels]) -> NDArray[np.float32]:
    """Logits (n, classes) of all batches, in ONNX Runtime on the CPU."""
    return np.concatenate(list(_answers(model, io, batches)))


def _answers(
    model: onnx.ModelProto, io: ClassifierIO, batches: Iterable[Pixels]
) -> Iterator[NDArray[np.float32]]:
    session = open_session(model)
    for pixels in batches:
        padded = pad(pixels, io.batch)
        yield session.run([io.output_name], {io.input_name: padded})[0][: len(pixels)]
