"""What is counted of a model, and not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.core.errors import OptkitError
from optkit.core.types import Artifact, Format
from optkit.stages.bench.candidate import INTERRUPTED, Candidate, reason

if TYPE_CHECKING:
    from optkit.measure.counts import Cost

COUNTS = ("macs", "params", "activations")


def count_modules(candidates: list[Candidate]) -> None:
    """Torch modules are counted by a process that has torch already: importing it here would take seconds."""
    found: dict[str, Cost | str] = {}
    for one in candidates:
        if one.process and _is_uncounted_module(one) and one.artifact.key not in found:
            try:
                found[one.artifact.key] = one.process.call("cost")
            except OptkitError as error:  # also when it died: it has done all that it was needed for
                found[one.artifact.key] = reason(error)
    for one in candidates:
        one.cost = found.get(one.artifact.key)


def _is_uncounted_module(candidate: Candidate) -> bool:
    return candidate.artifact.format == Format.TORCH and None in _known(candidate.artifact).values()


def _known(artifact: Artifact) -> dict[str, Any]:
    return {name: artifact.manifest.metrics.get(name) for name in COUNTS}


def counted(candidate: Candidate, gaps: dict[str, str]) -> dict[str, Any]:
    """MACs, parameters and activations: from the manifest where the step that made it counted, else counted now."""
    known = _known(candidate.artifact)
    if None not in known.values():
        return known
    missing = [name for name, value in known.items() if value is None]
    cost = _cost(candidate)
    if cost is None:
        cost = "an engine does not say; bench the artifact folder that its export made"
    if isinstance(cost, str):
        gaps |= dict.fromkeys(missing, cost)
        return known
    if cost.unknown and "macs" in missing:
        gaps["macs"] = f"no shapes for {len(cost.unknown)} layers, such as {cost.unknown[0]}"
    found = {**cost.metrics(), "macs": None if cost.unknown else cost.macs}
    return found | {name: value for name, value in known.items() if value is not None}


def _cost(candidate: Candidate) -> Cost | str | None:
    """What was counted, None for an engine, or why nothing was."""
    if _is_uncounted_module(candidate):
        return candidate.cost or (reason(candidate.error) if candidate.error else INTERRUPTED)
    try:
        return cost_of(candidate.artifact)
    except OptkitError as error:
        return reason(error)


def cost_of(artifact: Artifact) -> Cost | None:
    """The work of one image; None for an engine."""
    if artifact.format == Format.TORCH:
        from optkit.measure.cost import module_cost
        from optkit.models.build import rebuild

        return module_cost(rebuild(artifact.spec).eval(), artifact.spec.preprocess.size)
    if artifact.format == Format.ONNX:
        from optkit.graph.onnx_file import read_onnx
        from optkit.measure.onnx_cost import onnx_cost

        return onnx_cost(read_onnx(artifact.file), artifact.spec.preprocess.size)
    return None
