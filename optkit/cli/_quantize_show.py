"""A quantised model on the terminal: the ladder, the most sensitive operators, what stayed in floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optkit.cli import _console
from optkit.cli._run import show_model

if TYPE_CHECKING:
    from optkit.core.types import Artifact
    from optkit.report.schema import Operator, Quantized

SHOWN = 10  # sensitive operators


def show_quantized(artifact: Artifact) -> None:
    """The model, and of what its quantisation found out as much as its manifest holds."""
    from optkit.report import text
    from optkit.report.quantisation import read_quantized
    from optkit.report.schema import Step

    show_model(artifact)
    found = read_quantized(Step(name=artifact.manifest.stage, manifest=artifact.manifest), "the model")
    if found.ladder:
        _show_ladder(found)
    _show_sensitivity(found)
    if integer := sum(found.integer.values()):
        total = integer + len(found.floating)
        _show_reasons(
            f"{integer} of {total} operators are integer ({text.percent(integer / total)})", found.floating
        )
    if found.kept_fp32 or found.largest_activation is not None:
        _show_reasons(_kept(found), found.kept_fp32)


def _kept(found: Quantized) -> str:
    from optkit.report import text

    largest = found.largest_activation
    reach = "" if largest is None else f"; the largest activation is {text.figure(largest)}"
    return f"{len(found.kept_fp32) or 'no'} operators kept in FP32{reach}"


def _show_ladder(found: Quantized) -> None:
    from optkit.report import text

    rows = []
    for rung in found.ladder:
        cells = (
            None if rung.sqnr_db is None else text.decibels(rung.sqnr_db),
            None if rung.agreement is None else text.percent(rung.agreement),
            None if rung.drop is None else text.loss_in_points(rung.drop),
            None if rung.seconds is None else text.duration(rung.seconds),
        )
        rows.append([rung.rung, "kept" if rung.kept else "dropped", *(cell or "–" for cell in cells)])
    _console.table("recovery ladder", ["rung", "", "SQNR", "agreement", "top-1, points", "time"], rows)
    lines = [f"{rung.rung}: {rung.note}" for rung in found.ladder if rung.note]  # too long for a column
    if found.budget and text.asked_for(found.budget):
        lines.append(f"asked for: {text.asked_for(found.budget)}")
    for line in [*lines, found.sentence]:
        _console.out.print(line, highlight=False, markup=False, soft_wrap=True)
    _console.out.print()


def _show_sensitivity(found: Quantized) -> None:
    from optkit.report import text
    from optkit.report.quantisation import operator_bars

    rows = [
        [
            text.short_name(bar.operator.node),
            bar.operator.op,
            text.decibels(bar.operator.sqnr_db or 0.0),
            found.precision if bar.is_integer else "float",
        ]
        for bar in operator_bars(found)[:SHOWN]
    ]
    if rows:
        _console.table("most sensitive operators", ["", "type", "SQNR alone", "ended in"], rows)


def _show_reasons(title: str, operators: tuple[Operator, ...]) -> None:
    from optkit.report.quantisation import reasons

    rows = [
        [reason.reason, str(reason.n), ", ".join(f"{n} {op}" for op, n in reason.ops)]
        for reason in reasons(operators)
    ]
    if rows:
        _console.table(title, ["in floating point because", "operators", "types"], rows)
    else:
        _console.out.print(title, highlight=False)
