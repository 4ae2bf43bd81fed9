"""The result of a run in one or two sentences, made of measured numbers."""

from __future__ import annotations

from optkit.report import text
from optkit.report.gate import gate_sentence
from optkit.report.gate_schema import PASS, Gate
from optkit.report.schema import Delta, Report, Row

BUDGET_WORDS = {
    "pass": "within budget",
    "fail": "over budget",
    "cannot tell": "cannot tell whether it is within budget",
}
WORST_FIRST = ("fail", "cannot tell", PASS)


def gate_of(report: Report, row: Row) -> Gate | None:
    """Of the gates that judged this row, the first one with the worst verdict."""
    judges = [gate for gate in report.gates if gate.judges(row.name, row.key, row.runtime, row.batch)]
    return min(judges, key=lambda gate: WORST_FIRST.index(gate.verdict), default=None)


def headline_row(report: Report) -> Row | None:
    """The fastest timed model that shows no loss of accuracy against what it was made from.

    One that passed a gate comes first, then one that a gate judged at all. Without such a one, the fastest; among
    the rows of the smallest batch, the baseline excluded.
    """
    timed = [row for row in report.rows if row.computes and row.p50 is not None and row.top1 is not None]
    timed = [row for row in timed if row.batch == min(other.batch or 0 for other in timed)]
    others = [row for row in timed if row.name != report.baseline]

    def order(row: Row) -> tuple[bool, bool, bool, float]:
        gate, delta = gate_of(report, row), row.against_source or row.against_baseline
        lost = bool(delta and delta.top1_interval and delta.top1_interval[1] < 0)
        return not (gate and gate.verdict == PASS), gate is None, lost, row.p50 or 0.0

    return min(others or timed, key=order, default=None)


def headline(report: Report) -> list[str]:
    """The result in one or two sentences, and that it is partial where a bench was interrupted."""
    partial = [bench.step for bench in report.benches if bench.interrupted]
    return [*sentences(report), *(f"Partial: {step} was interrupted." for step in partial)]


def sentences(report: Report) -> list[str]:
    """The result alone."""
    row = headline_row(report)
    if row is None:
        return _accuracy_headline(report)
    name = text.label(row.name, row.precision, row.format)
    # What the bench has a verdict on comes first, then what the model was made from.
    deltas = [delta for delta in (row.against_source, row.against_baseline) if delta]
    deltas.sort(key=lambda delta: delta.verdict is None)
    gate = gate_of(report, row)
    if not deltas:
        top1, p50 = text.percent(row.top1 or 0), text.figure(row.p50 or 0)
        end = f": {_budget(gate)}" if gate else ""
        return [f"{name}: {top1} top-1 and {p50} ms at batch {row.batch} in {row.runtime}{end}."]
    # A gate judges against its own reference: what it says belongs to the sentence about that one.
    judged = next((delta for delta in deltas if gate and gate.baseline == delta.reference), deltas[0])
    first, *others = deltas
    found = [f"{name}: {_changes(first, _speed_against(first), gate if judged is first else None)}."]
    for delta in others:
        speed = f"{text.speed_change(delta)} ({text.runtimes(delta)})" if delta.speedup else ""
        changes = _changes(delta, speed, gate if judged is delta else None)
        if delta.reference != first.reference and changes:
            role = "the baseline" if delta is row.against_baseline else "its source"
            found.append(f"Against {role} {_reference(delta)}: {changes}.")
    return found


def _speed_against(delta: Delta) -> str:
    """`2.1× faster than onnx (FP32 ONNX) in onnxruntime`."""
    speed, reference = text.speed_change(delta), _reference(delta)
    if not speed:
        return f"against {reference}"
    if delta.verdict == "cannot tell" or delta.not_comparable:
        return f"{speed} against {reference}, {text.runtimes(delta)}"
    compared = f"{speed} {'than' if delta.verdict else 'of'} {reference}"
    if delta.runtime != delta.reference_runtime:
        return f"{compared} ({text.runtimes(delta)})"
    why = text.no_verdict(delta)
    return f"{compared} {text.where(delta)}" + (f" ({why})" if why else "")


def _budget(gate: Gate) -> str:
    """`over budget (latency)`: with what decided against it."""
    decisive = [found.words for found in gate.criteria if found.verdict == gate.verdict != PASS]
    return BUDGET_WORDS[gate.verdict] + (f" ({', '.join(decisive)})" if decisive else "")


def _accuracy_headline(report: Report) -> list[str]:
    """The best accuracy, where no latency was measured beside one."""
    known = [row for row in report.rows if row.computes and row.top1 is not None]
    if not known and report.gates:
        return [f"Gate: {gate.verdict}: {gate_sentence(gate)}." for gate in report.gates]
    if not known:
        return ["Nothing was benched with both a latency and an accuracy."]
    best = max(known, key=lambda row: row.top1 or 0)
    bounds = f" (95 %: {text.interval(best.top1_interval)})" if best.top1_interval else ""
    images = f" on {text.grouped(best.n)} images" if best.n else ""
    return [
        f"{text.label(best.name, best.precision, best.format)}: {text.percent(best.top1 or 0)} top-1{bounds}{images}."
    ]


def _reference(delta: Delta) -> str:
    return text.label(delta.reference, delta.reference_precision, delta.reference_format)


def _changes(delta: Delta, speed: str, gate: Gate | None) -> str:
    """What changed; at the end what the gate says, or else what the interval of the accuracy allows to say."""
    accuracy = text.accuracy_points(delta) if gate else text.accuracy_change(delta)
    changes = ", ".join(change for change in (speed, text.size_change(delta), accuracy) if change)
    return f"{changes}: {_budget(gate)}" if gate else changes
