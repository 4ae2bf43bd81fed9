"""What was measured → the result of the stage."""

from __future__ import annotations

from typing import Any

from optkit.core.types import Format, Output
from optkit.measure.latency import Stopwatch
from optkit.stages.bench.candidate import Candidate, Findings, reason
from optkit.stages.bench.comparisons import comparisons
from optkit.stages.bench.config import Config
from optkit.stages.bench.rows import measurements, rows


def result(
    candidates: list[Candidate], config: Config, found: Findings, more: dict[str, Any], watch: Stopwatch
) -> Output:
    """Rows, comparisons and raw samples; `more` are details that were made elsewhere."""
    baseline = next((one for one in candidates if one.accuracy), None)
    in_runs_s = sum(timing.spent_ms for one in candidates for timing in one.timings.values()) / 1000
    of_all = [comparisons(candidates, batch, config.confidence) for batch in config.batch_sizes]
    failed = [
        {"name": one.name, "runtime": one.runtime, "why": reason(one.error)}
        for one in candidates
        if one.failed and one.error
    ]
    return Output(
        format=Format.RESULT,
        measurements=tuple(part for one in candidates for part in measurements(one, config.batch_sizes)),
        details={
            "rows": [row for one in candidates for row in rows(one, config.batch_sizes, baseline)],
            "comparisons": [row for of_batch in of_all for row in of_batch],
            "flips": found.flips,
            "layers": [layers for one in candidates for layers in one.layers],
            "roofline": found.roofline,
            "failed": failed,
            "interrupted": found.interrupted,
            "time": {
                "began": found.began,
                "latency_runs_s": round(in_runs_s, 3),
                "total_s": round(watch.seconds(), 3),
            },
            **more,
        },
    )
