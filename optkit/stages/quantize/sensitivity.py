"""What every operator costs when it alone is INT8, measured on the file that says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optkit.core.progress import Reporter
from optkit.graph.onnx_file import ClassifierIO
from optkit.measure.parity import compare_logits
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import Pixels, run_model

IMAGES = 24


@dataclass(frozen=True)
class OperatorNoise:
    """An operator, and the SQNR in dB of the logits when it alone is INT8."""

    node: str
    op: str
    sqnr_db: float


def sensitivity(
    candidate: Candidate, io: ClassifierIO, batches: list[Pixels], reporter: Reporter
) -> list[OperatorNoise]:
    """Every operator of the plan, the most harmful first; weights are rounded to nearest.

    An operator owns the rounding of what it reads.
    """
    enough = -(-IMAGES // len(batches[0]))
    batches = batches[:enough]
    reference = run_model(candidate.model, io, batches)
    nodes = [node for node in candidate.model.graph.node if node.name in candidate.plan.nodes]
    found = []
    with reporter.track("measuring sensitivity", len(nodes)) as task:
        for node in nodes:
            alone = replace(candidate, plan=candidate.plan.only({node.name}), fitted={}, weight_scales={})
            parity = compare_logits(reference, run_model(alone.build(), io, batches))
            found.append(OperatorNoise(node.name, node.op_type, round(parity.sqnr_db, 2)))
            task.advance(1, node.name)
    return sorted(found, key=lambda one: one.sqnr_db)
