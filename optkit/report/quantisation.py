"""What `quantize` steps did, read from their manifests: the ladder, sensitive and floating-point operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optkit.core.types import Record
from optkit.report.findings import ladder_line, model_name, unreadable
from optkit.report.schema import Operator, QuantizeBudget, Quantized, Rung, Step

GROUPS = ("quantization", "sixteen_bit")  # of `details`: their entries are read as if they stood beside them
SHOWN = ("ladder", "budget", "sensitivity", "quantized", "float", "kept_fp32", "largest_activation")
MAX_BARS = 25
LADDER = TypeAdapter(tuple[Rung, ...])
OPERATORS = TypeAdapter(tuple[Operator, ...])
COUNTS = TypeAdapter(dict[str, int])


class OperatorBar(Record):
    """A sensitive operator; `share` is its noise by that of the most harmful one."""

    operator: Operator
    share: float
    is_integer: bool


class Reason(Record):
    """Why operators are in floating point: `n` of them, and how many of each type, the most frequent first."""

    reason: str
    n: int
    ops: tuple[tuple[str, int], ...]


def quantized(steps: Sequence[Step]) -> list[Quantized]:
    """One for every `quantize` step."""
    found = []
    for step in steps:
        if step.manifest.stage == "quantize":
            (key, *_) = [*step.manifest.inputs.get("model", []), ""]
            found.append(read_quantized(step, model_name(key, steps)))
    return found


def read_quantized(step: Step, model: str) -> Quantized:
    """What the manifest of a `quantize` step says; `model` is the name of what was quantised."""
    manifest = step.manifest
    details = _without_groups(manifest.details)
    budget = details.get("budget")
    try:
        found = Quantized(
            step=step.name,
            model=model,
            precision=manifest.precision.value,
            ladder=_with_starts(LADDER.validate_python(details.get("ladder") or ())),
            budget=QuantizeBudget.model_validate(budget) if budget else None,
            sensitivity=_most_harmful_first(OPERATORS.validate_python(details.get("sensitivity") or ())),
            integer=COUNTS.validate_python(details.get("quantized") or {}),
            floating=OPERATORS.validate_python(details.get("float") or ()),
            kept_fp32=OPERATORS.validate_python(details.get("kept_fp32") or ()),
            largest_activation=details.get("largest_activation"),
            facts=manifest.metrics | {name: value for name, value in details.items() if name not in SHOWN},
        )
    except ValidationError as error:
        raise unreadable(step, error) from None
    return found.model_copy(update={"sentence": ladder_line(found)})


def _without_groups(details: dict[str, Any]) -> dict[str, Any]:
    for group in GROUPS:
        if isinstance(details.get(group), dict):
            details = {name: value for name, value in details.items() if name != group} | details[group]
    return details


def _with_starts(ladder: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """The rungs with the SQNR that each started from: that of the last one kept before it."""
    level, rungs = None, []
    for rung in ladder:
        rungs.append(rung.model_copy(update={"before_db": level}))
        if rung.kept and rung.sqnr_db is not None:
            level = rung.sqnr_db
    return tuple(rungs)


def _most_harmful_first(operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
    return tuple(sorted(operators, key=lambda one: float("inf") if one.sqnr_db is None else one.sqnr_db))


def operator_bars(found: Quantized) -> list[OperatorBar]:
    """The most harmful operators of those whose SQNR was measured."""
    floating = {operator.node for operator in found.floating}
    measured = [operator for operator in found.sensitivity if operator.sqnr_db is not None]
    return [
        OperatorBar(
            operator=operator,
            share=10 ** (((measured[0].sqnr_db or 0.0) - (operator.sqnr_db or 0.0)) / 10),
            is_integer=operator.node not in floating,
        )
        for operator in measured[:MAX_BARS]
    ]


def reasons(operators: Sequence[Operator]) -> list[Reason]:
    """The operators collapsed by their reason, the most frequent reason first."""
    grouped: dict[str, Counter[str]] = {}
    for operator in operators:
        grouped.setdefault(operator.reason, Counter())[operator.op] += 1
    found = [
        Reason(reason=reason or "no reason was recorded", n=ops.total(), ops=tuple(ops.most_common()))
        for reason, ops in grouped.items()
    ]
    return sorted(found, key=lambda reason: -reason.n)
