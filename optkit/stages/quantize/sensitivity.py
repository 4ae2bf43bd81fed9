"""What every operator costs when it alone is INT8, measured on the file that says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from optkit.measure.parity import compare_logits
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.workbench import Workbench, run_model

IMAGES = 24


def sensitivity(candidate: Candidate, bench: Workbench) -> list[dict[str, Any]]:
    """`node`, `op` and `sqnr_db` of the logits, the most harmful first; weights are rounded to nearest.

    An operator owns the rounding of what it reads.
    """
    held, count = [], 0
    for pixels in bench.held:
        held.append(pixels)
        count += len(pixels)
        if count >= IMAGES:
            break
    reference = bench.reference[:count]
    nodes = [node for node in candidate.model.graph.node if node.name in candidate.plan.nodes]
    found = []
    with bench.reporter.track("measuring sensitivity", len(nodes)) as task:
        for node in nodes:
            alone = replace(candidate, plan=candidate.plan.only({node.name}), fitted={}, weight_scales={})
            parity = compare_logits(reference, run_model(alone.build(), bench.io, held))
            found.append({"node": node.name, "op": node.op_type, "sqnr_db": round(parity.sqnr_db, 2)})
            task.advance(1, node.name)
    return sorted(found, key=lambda entry: float(entry["sqnr_db"]))
