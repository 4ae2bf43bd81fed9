"""What is measured: each function makes its files, measures them and says which demands they meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from int8_parts import engines, files, peers
from int8_parts.calibration import measure_calibration
from int8_parts.case import OPENVINO, ORT, TENSORRT, Case, Options, Row
from int8_parts.demands import Demand, demand
from int8_parts.evaluate import Figure, logits_of, open_cpu
from int8_parts.processes import Failed
from optkit.core.types import Artifact
from optkit.measure.parity import compare_logits

TARGETS = (ORT, OPENVINO, TENSORRT)
LADDER_SECONDS = 300.0
SAME_FUNCTION_DB = 60.0  # float32 rounding of two equal networks stays above it
FAST_ENOUGH = 0.8  # of the latency of FP32 in ONNX Runtime
UNREACHABLE = ["--min-sqnr", "150"]  # so that the whole ladder is climbed
B0_BUDGET = ["--min-sqnr", "27", "--max-drop", "0.3"]
SIMULATED = "simulated: ONNX Runtime computed the answers"
CHECKED = "the budget was checked on these photos, so the ladder ended where it holds on them"
STRESS_BUDGET = ["--max-drop", "0.5"]


@dataclass
class Part:
    """`facts` are figures beside the table of files, `verdict` a sentence."""

    demands: list[Demand]
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""


def lite0(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 1, beside the peers.

    No budget, so that no validation photo has a say in the file; only measured time may leave first layers in float.
    """
    case = Case("lite0", fp32, images, options)
    row = case.add_optkit("optkit", ORT, files.ladder_options("mixed_precision", "qat"))
    for peer in peers.PEERS:
        case.add_peer(peer)
    case.evaluate()
    case.time()
    answers = row.answers
    what = "lite0, onnxruntime: "
    demands = [
        demand(1, what + "SQNR", ("≥", 24, "dB"), answers and answers.sqnr_db),
        demand(1, what + "agreement with FP32", ("≥", 0.985, ""), answers and answers.agreement),
        demand(
            1,
            what + "chance of so large a drop of top-1 among equally good files",
            ("≥", 0.05, ""),
            answers and answers.p_value,
            _drop_text(row),
        ),
        demand(1, what + "latency over ONNX Runtime's own U8S8 file", ("≤", 1, ""), row.to_u8s8),
    ]
    return Part(demands, case.rows)


def tensorrt(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 2: a symmetric file, its answers (simulated), the linter and TensorRT-RTX; as in point 1 without a budget.

    And of point 3 the whole ladder's time, of a file that is not looked at.
    """
    case = Case("lite0-tensorrt", fp32, images, options)
    row = case.add_optkit("optkit tensorrt", TENSORRT, files.ladder_options("mixed_precision", "qat"))
    case.evaluate()
    sqnr = row.answers.sqnr_db if row.answers else None
    demands = [
        demand(2, "lite0, tensorrt: SQNR", ("≥", 22.5, "dB"), sqnr, SIMULATED),
        *_engine_demands(2, "lite0", case, row),
    ]
    for target in (ORT, TENSORRT):
        words = ["--target", target, *files.ladder_options("qat"), *UNREACHABLE]
        options.report(f"whole ladder: optkit quantize {' '.join(words)}")
        what = f"lite0, {target}: whole ladder without training, with its checks on validation photos"
        wanted = ("≤", LADDER_SECONDS, "s")
        try:
            made = files.quantise(case.fp32.file, images, words, case.folder / f"whole-{target}")
        except Failed as error:
            demands.append(demand(3, what, wanted, None, str(error)))
        else:
            demands.append(demand(3, what, wanted, made.run.seconds))
    return Part(demands, case.rows)


def calibration(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 3: time and memory of plain calibration."""
    demands, facts = measure_calibration(Case("calibration", fp32, images, options))
    return Part(demands, facts=facts)


def b0(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 4: the hard network for every target, and what is fastest on this CPU."""
    case = Case("b0", fp32, images, options)
    own = {target: case.add_optkit(f"optkit {target}", target, B0_BUDGET) for target in TARGETS}
    for peer in (peers.ORT_U8S8, peers.NNCF_DEFAULT):
        case.add_peer(peer)
    case.evaluate()
    case.time()
    demands = []
    for target, row in own.items():
        answers = row.answers
        note = CHECKED + (f"; {SIMULATED}" if target == TENSORRT else "")
        demands += [
            demand(4, f"b0, {target}: SQNR", ("≥", 27, "dB"), answers and answers.sqnr_db, note),
            demand(4, f"b0, {target}: drop", ("≤", 0.3, "points"), answers and answers.drop_points, note),
        ]
    demands += _engine_demands(4, "b0", case, own[TENSORRT])
    demands.append(speed_demand([own[ORT], own[OPENVINO]]))
    return Part(demands, case.rows, verdict=speed_verdict(case.rows))


def stress(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 4: the same function with ranges that per-tensor INT8 cannot serve."""
    hard = files.make_stress(fp32, options.folder / "stress" / "fp32", seed=0)
    case = Case("stress", hard, images, options)
    pixels = case.evaluation[0]
    logits = []
    for one in (fp32, hard):
        session = open_cpu(one, ORT, options.threads)
        logits.append(logits_of(session, pixels))
        session.close()
    same = compare_logits(*logits).sqnr_db
    own = {target: case.add_optkit(f"optkit {target}", target, STRESS_BUDGET) for target in TARGETS}
    case.evaluate()
    what = "stress: the variant computes the same, SQNR"
    demands = [demand(4, what, ("≥", SAME_FUNCTION_DB, "dB"), same)]
    for target, row in own.items():
        drop = row.answers.drop_points if row.answers else None
        note = f"{rungs_text(row)}; {CHECKED}" + (f"; {SIMULATED}" if target == TENSORRT else "")
        demands.append(demand(4, f"stress, {target}: drop", ("≤", 0.5, "points"), drop, note))
    return Part(demands, case.rows)


PARTS: dict[str, Callable[[Artifact, files.Images, Options], Part]] = {
    "lite0": lite0,
    "tensorrt": tensorrt,
    "calibration": calibration,
    "b0": b0,
    "stress": stress,
}


def speed_demand(own: list[Row]) -> Demand:
    """One of our files beats FP32 in ONNX Runtime by a fifth; beside it what optkit itself said of its files."""
    timed = [(row.to_fp32.value, row.to_fp32, row) for row in own if row.to_fp32]
    what, wanted = "b0: our fastest file", ("≤", FAST_ENOUGH, "of FP32 in ONNX Runtime")
    if not timed:
        return demand(4, what, wanted, None)
    _, figure, best = min(timed, key=lambda entry: entry[0])
    told = [(row, row.found.get("speed")) for _, _, row in timed]
    said = "; ".join(
        f"{row.name}: {speed['verdict']}, {speed['ratio']:.2f} of FP32 in {speed['fp32_runtime']}"
        if speed
        else f"{row.name}: nothing"
        for row, speed in told
    )
    return demand(4, what, wanted, figure, f"{best.name} in {best.runtime}; optkit says of {said}")


def speed_verdict(rows: list[Row]) -> str:
    """Which file is really fastest, of all and of optkit's, and whether it beats FP32 in ONNX Runtime by 20 %."""
    timed = [row for row in rows if row.to_fp32]
    own = [row for row in timed if row.target]
    if not own:
        return "Not measured."

    def speed(row: Row) -> float:
        return row.to_fp32.value if row.to_fp32 else float("inf")

    first, best = min(timed, key=speed), min(own, key=speed)
    text = f"Fastest of all: {_speed_text(first)}. Fastest of optkit's: {_speed_text(best)}. "
    if speed(best) >= 1:
        return text + "No INT8 file of optkit beats FP32 in ONNX Runtime."
    sure = best.to_fp32 is not None and best.to_fp32.interval[1] <= FAST_ENOUGH
    enough = "by" if sure else "perhaps by" if speed(best) <= FAST_ENOUGH else "but NOT by"
    return text + f"It beats FP32 in ONNX Runtime {enough} 20 %."


def _speed_text(row: Row) -> str:
    figure = row.to_fp32
    if figure is None:
        return f"{row.name}, not measured"
    low, high = figure.interval
    return f"{row.name} in {row.runtime} ({row.executed}), {figure.value:.2f} × ({low:.2f} to {high:.2f})"


def _engine_demands(point: int, network: str, case: Case, row: Row) -> list[Demand]:
    """The linter finds nothing, and every kind of GPU gets an engine."""
    what = (f"{network}, tensorrt: findings of the linter", f"{network}, tensorrt: engines built")
    wanted = ("≥", float(len(engines.COMPUTE_CAPABILITIES)), "")
    if row.made_in_seconds is None:
        return [demand(point, what[0], ("≤", 0, ""), None), demand(point, what[1], wanted, None)]
    case.options.report(f"{case.name}: linter and engines")
    folder, model = case.folder / "engines", row.artifact.path
    try:
        findings = engines.lint_findings(model, TENSORRT, folder / "lint")
        linted = demand(point, what[0], ("≤", 0, ""), float(len(findings)), "; ".join(findings[:3]))
    except Failed as error:
        linted = demand(point, what[0], ("≤", 0, ""), None, str(error))
    built = engines.builds(model, folder)
    refused = [f"{capability}: {why}" for capability, why in built.items() if why]
    note = "; ".join(refused) or ", ".join(built)
    return [linted, demand(point, what[1], wanted, float(len(built) - len(refused)), note)]


def _drop_text(row: Row) -> str:
    if row.answers is None:
        return row.error or "not measured"
    drop: Figure = row.answers.drop_points
    return f"drop {drop.value:.2f} points ({drop.interval[0]:.2f} to {drop.interval[1]:.2f})"


def rungs_text(row: Row) -> str:
    """The ladder in a line: the drop on validation images after every rung that was kept."""
    kept = [rung for rung in row.found.get("ladder") or [] if rung["kept"]]
    steps = [f"{rung['rung']} {rung['drop']:.2f}" for rung in kept if rung["drop"] is not None]
    return "drop by rung: " + (", ".join(steps) or "none told of")
