"""Compound scaling: a network's depth, width and resolution grow together (arXiv 1905.11946, section 3.3)."""

from __future__ import annotations

from typing import Any

from optkit.core.types import Artifact, Context, Format, Measurement, Output
from optkit.models.build import default_preprocess
from optkit.models.scaling import Coefficients, check_base
from optkit.stages.scale.budget import Budget
from optkit.stages.scale.candidates import TARGET, coefficients_of, count_candidates, grid, make_base
from optkit.stages.scale.config import Config
from optkit.stages.scale.training import rank_by_training
from optkit.train.optimisation import check_optimizer

RANKED_BY_COST = (
    "The candidates are ranked by cost, which cannot tell the most accurate of them: --rank-by training can."
)


def check(config: Config) -> None:
    """The base can be scaled, the optimiser can be made."""
    check_base(config.base)
    check_optimizer(config.train)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Step 1 where a search is asked for, then φ: given, or the largest within the budget."""
    base = make_base(config.base, config.size or default_preprocess(config.base).size, config.num_classes)
    coefficients = Coefficients(config.alpha, config.beta, config.gamma)
    candidates: list[dict[str, Any]] = []
    if config.search:
        points = grid(coefficients, config.step, config.tolerance)
        candidates = count_candidates(base, points, context.reporter)
        if config.rank_by == "training":
            candidates = rank_by_training(candidates, config, context)
        else:
            context.reporter.warn(RANKED_BY_COST)
        coefficients = coefficients_of(candidates[0])
    measurements: tuple[Measurement, ...] = ()
    trials: list[dict[str, Any]] = []
    if config.max_macs is None and config.max_latency_ms is None:
        chosen = base.scaled(coefficients, 1.0 if config.phi is None else config.phi)
    else:
        budget = Budget(config, base, coefficients, context)
        chosen = budget.spend()
        trials = [budget.trials[phi] for phi in sorted(budget.trials)]
        measurements = tuple(budget.latencies[phi] for phi in (chosen["phi"],) if phi in budget.latencies)
    return Output(
        format=Format.RESULT,
        metrics={name: chosen[name] for name in ("macs", "params", "size", "phi")},
        measurements=measurements,
        details={
            "base": base.row(),
            "chosen": chosen | {"predicted_ratio": TARGET ** chosen["phi"]},
            "candidates": candidates,
            "trials": trials,
            "rank_by": config.rank_by if config.search else None,
        },
    )
