"""Gate: whether a measured model keeps its limits, and how sure that is."""

from __future__ import annotations

from dataclasses import asdict

from optkit.core.types import Artifact, Context, Format, Output
from optkit.measure.verdict import overall
from optkit.stages.gate.case import Case
from optkit.stages.gate.choose import choose
from optkit.stages.gate.config import Config
from optkit.stages.gate.criteria import judge_all
from optkit.stages.gate.measured import read_bench


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Judge one row of a bench; no work but arithmetic on its samples."""
    ((name, artifact),) = inputs["bench"].items()
    measured = read_bench(name, artifact)
    if measured.interrupted:
        context.reporter.warn(
            f"{name} was interrupted: it has fewer samples than were asked for, and wider intervals."
        )
    candidate, baseline = choose(measured.rows, measured.models, config)
    case = Case(artifact, measured, candidate, baseline, config.confidence)
    criteria = judge_all(case, config)
    return Output(
        format=Format.RESULT,
        details={
            "verdict": overall([criterion.verdict for criterion in criteria]),
            "candidate": candidate.name,
            "key": candidate.key,
            "runtime": candidate.runtime,
            "batch": candidate.batch,
            "baseline": baseline and baseline.name,
            "baseline_runtime": baseline and baseline.runtime,
            "models": measured.models,
            "seconds_timed": case.seconds(),
            "confidence": config.confidence,
            "criteria": [asdict(criterion) for criterion in criteria],
        },
    )
