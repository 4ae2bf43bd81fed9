"""Gate: whether a measured model keeps its limits, and how sure that is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from optkit.core.types import Artifact, Context, Format, Output
from optkit.measure.verdict import overall
from optkit.stages.gate.case import Case
from optkit.stages.gate.choose import choose
from optkit.stages.gate.config import Config
from optkit.stages.gate.criteria import judge_all
from optkit.stages.gate.measured import Row, read_bench


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
            "bench_options": _bench_options(artifact.manifest.config, candidate, baseline),
            "confidence": config.confidence,
            "criteria": [asdict(criterion) for criterion in criteria],
        },
    )


def _bench_options(asked: dict[str, Any], candidate: Row, baseline: Row | None) -> dict[str, Any]:
    """The options of a bench that measures what was judged as this one did, where they are not the defaults."""
    runtimes = [row.runtime for row in (baseline, candidate) if row] if asked.get("runtimes") else []
    options = {
        "runtimes": list(dict.fromkeys(runtimes)),
        "batch_sizes": [candidate.batch] if candidate.batch != 1 else [],
        "threads": asked.get("threads"),
    }
    return {name: value for name, value in options.items() if value}
