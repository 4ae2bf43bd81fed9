"""Biases moved so that every output channel keeps its FP32 mean (Nagel et al. 2019, arXiv 1906.04721, section 4.2)."""

from __future__ import annotations

from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.refit import refit_layers
from optkit.stages.quantize.workbench import Workbench

ORDER = 30


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """Layer after layer, on what the quantised layers before it make of the images."""
    return refit_layers(candidate, bench, "correcting biases", biases_only=True)
