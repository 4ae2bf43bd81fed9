"""A quantised model on the terminal: the ladder, the most sensitive operators, what stayed in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import model_to_json, show_model

if TYPE_CHECKING:
    from optkit.core.types import Artifact
    from optkit.report.quantisation_schema import Quantized, Rung

SHOWN = 10  # sensitive operators
COLUMNS = ("rung", "kept", "SQNR,\ndB", "agreement", "validation\nSQNR, dB", "top-1,\npoints", "time")


def show_quantized(artifact: Artifact) -> None:
    """The model, and of what its quantisation found out as much as its manifest holds."""
    from optkit.report import quantisation_text as text

    show_model(artifact)
    found = _read(artifact)
    if found.ladder:
        _show_ladder(found)
    elif found.sentence:
        _say(found.sentence)
    if note := text.simulation_note(found):
        _say(note)
    _show_sensitivity(found)
    _show_left(found)
    for name, words in text.peak_lines(found).items():
        _say(f"{name}: {words}")
    if found.speed:
        _say(f"speed: {text.speed_line(found.speed)}")
    if line := text.float_prefix_line(found.float_prefix):
        _say(f"before the ladder: {line}")


def quantized_to_json(artifact: Artifact) -> dict[str, Any]:
    """The same for programs; null is what was not looked for."""
    from optkit.report.quantisation import SUMMARY, details_of

    details = details_of(artifact.manifest)
    shown = {name: details.get(name) for name in ("target", *SUMMARY)}
    return model_to_json(artifact) | shown | {"simulated": _read(artifact).simulated}


def _read(artifact: Artifact) -> Quantized:
    from optkit.report.quantisation import read_quantized
    from optkit.report.schema import Step

    return read_quantized(Step(name=artifact.manifest.stage, manifest=artifact.manifest), "the model")


def _say(line: str) -> None:
    _console.out.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_ladder(found: Quantized) -> None:
    from optkit.report import quantisation_text as text

    _console.table("recovery ladder", list(COLUMNS), [_ladder_row(rung) for rung in found.ladder])
    lines = [f"{rung.rung}: {rung.note}" for rung in found.ladder if rung.note]  # too long for a column
    lines.append(text.ladder_note(found))
    if found.budget and text.asked_for(found.budget):
        lines.append(f"asked for on validation images: {text.asked_for(found.budget)}")
    for line in [*lines, found.sentence]:
        _say(line)
    _console.out.print()


def _ladder_row(rung: Rung) -> list[str]:
    from optkit.report import quantisation_text, text

    checked = rung.validation
    cells = (
        None if rung.sqnr_db is None else quantisation_text.level_db(rung.sqnr_db),
        None if rung.agreement is None else text.percent(rung.agreement),
        None if not checked or checked.sqnr_db is None else quantisation_text.level_db(checked.sqnr_db),
        None if not checked or checked.drop is None else quantisation_text.loss_in_points(checked.drop),
        None if rung.seconds is None else text.duration(rung.seconds),
    )
    return [rung.rung, "yes" if rung.kept else "no", *(cell or "–" for cell in cells)]


def _show_sensitivity(found: Quantized) -> None:
    from optkit.report import text
    from optkit.report.quantisation import operator_bars

    rows = [
        [
            text.short_name(bar.operator.node),
            bar.operator.op,
            text.decibels(bar.operator.sqnr_db or 0.0),
            found.precision if bar.is_converted else "fp32",
        ]
        for bar in operator_bars(found)[:SHOWN]
    ]
    if rows:
        _console.table("most sensitive operators", ["", "type", "SQNR alone", "ended in"], rows)


def _show_left(found: Quantized) -> None:
    """How many operators are in the new precision, and why the others are not."""
    from optkit.report.quantisation import reasons
    from optkit.report.quantisation_text import operator_count

    title = operator_count(found)
    rows = [
        [reason.reason, str(reason.n), ", ".join(f"{n} {op}" for op, n in reason.ops)]
        for reason in reasons(found.left)
    ]
    if rows:
        _console.table(title, ["left in FP32 because", "operators", "types"], rows)
    elif title:
        _say(title)
