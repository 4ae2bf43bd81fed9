"""Weights and biases trained through the rounding, for the same placement, ranges and scales: see `training.py`."""

from __future__ import annotations

import hashlib

from optkit.core.errors import UsageError
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.grids import learning_module, with_learnt
from optkit.stages.quantize.workbench import Workbench

ORDER = 70


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """The candidate after some training; Unsupported when the graph holds operators without a torch form."""
    if bench.train is None:
        return None
    file = candidate.build()
    student = learning_module(candidate, file)
    key = hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()
    try:
        note = bench.train(student, GraphModule(candidate.model), key)
    except (
        UsageError
    ) as error:  # diverged, or out of memory: the hint is for those who train on the command line
        return candidate, f"{error} {error.why}"
    return with_learnt(candidate, student), note
