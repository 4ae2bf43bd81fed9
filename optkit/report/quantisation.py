"""What `quantize` steps did, read from their manifests: the ladder, sensitive operators, what stayed in FP32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from optkit.core.types import Manifest, Record
from optkit.report.findings import model_name, unreadable
from optkit.report.quantisation_schema import Operator, Quantized, Rung
from optkit.report.quantisation_text import outcome_line
from optkit.report.schema import Step

GROUP = "quantization"  # of `details`: its entries are read as if they stood beside it
SUMMARY = (  # what has a place of its own
    *("ladder", "set_aside", "budget", "validation", "validated_by", "sensitivity", "speed", "float_prefix"),
    *("quantized", "float", "largest_activation", "largest_sum", "limit"),
)
MAX_BARS = 25


class OperatorBar(Record):
    """A sensitive operator; `share` is its noise by that of the most harmful one."""

    operator: Operator
    share: float
    is_converted: bool


class Reason(Record):
    """Why operators are left in FP32: `n` of them, and how many of each type, the most frequent first."""

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
    details = details_of(manifest)
    known = {name: details[name] for name in SUMMARY if details.get(name) is not None}
    names = {"quantized": "converted", "float": "left"}
    try:
        found = Quantized.model_validate(
            {
                "step": step.name,
                "model": model,
                "precision": manifest.precision.value,
                "target": details.get("target") or "",
                **{names.get(name, name): value for name, value in known.items()},
                "facts": manifest.metrics | _facts(details),
            }
        )
    except ValidationError as error:
        raise unreadable(step, error) from None
    found = found.model_copy(
        update={"ladder": _with_starts(found.ladder), "sensitivity": _most_harmful_first(found.sensitivity)}
    )
    return found.model_copy(update={"sentence": outcome_line(found)})


def details_of(manifest: Manifest) -> dict[str, Any]:
    """The details of a `quantize` step, without their group."""
    details = dict(manifest.details)
    group = details.pop(GROUP, None)
    return details | group if isinstance(group, dict) else details


def _facts(details: dict[str, Any]) -> dict[str, Any]:
    """What has no place of its own and says something: of FP8 no calibrators were compared."""
    shown = (*SUMMARY, "precision")
    return {name: value for name, value in details.items() if name not in shown and value not in ({}, [])}


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
    left = {operator.node for operator in found.left}
    measured = [operator for operator in found.sensitivity if operator.sqnr_db is not None]
    return [
        OperatorBar(
            operator=operator,
            share=10 ** (((measured[0].sqnr_db or 0.0) - (operator.sqnr_db or 0.0)) / 10),
            is_converted=operator.node not in left,
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
