"""Channels of bottlenecks and residual stages rescaled to more equal ranges; the function stays."""

from __future__ import annotations

from dataclasses import replace

from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.channel_ranges import observe_channels
from optkit.stages.quantize.choose import find_ranges
from optkit.stages.quantize.equalise import channels_to_observe, equalise
from optkit.stages.quantize.workbench import Workbench

ORDER = 10
ALPHAS = (0.5, 0.75, 1.0)


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """The best of several strengths."""
    view = GraphView(candidate.model)
    channels = channels_to_observe(view, candidate.plan)
    if not channels:
        return None
    with bench.reporter.track("observing channels") as task:
        ranges = observe_channels(candidate.model, bench.io, channels, bench.all_fit(), task)
    tried = {}
    for alpha in ALPHAS:
        model = equalise(candidate.model, ranges, alpha)
        seen = bench.observe(model, list(channels), f"observing at alpha {alpha:g}")
        found = find_ranges(candidate.calibrator, view, candidate.plan, seen)
        tried[alpha] = replace(
            candidate, model=model, observed=candidate.observed | seen, ranges=candidate.ranges | found
        )
    scores = {alpha: bench.choosing.parity(trial.build(), bench.io)[0] for alpha, trial in tried.items()}
    best = max(scores, key=lambda alpha: scores[alpha].sqnr_db)
    return tried[best], f"alpha {best:g}"
