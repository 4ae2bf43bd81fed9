"""What is measured: each function makes its files, measures them and says which demands they meet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from int8_parts import engines, files, peers
from int8_parts.case import OPENVINO, ORT, Case, Options, Row
from int8_parts.demands import Demand, demand
from int8_parts.evaluate import Figure, logits_of, mean, open_cpu, ratio
from int8_parts.processes import measured
from optkit.core import discover
from optkit.core.types import Artifact
from optkit.measure.parity import compare_logits
from optkit.stages.quantize.config import CALIBRATORS

TENSORRT = "tensorrt"
TARGETS = (ORT, OPENVINO, TENSORRT)
LADDER_SECONDS = 300.0
MANY = 10  # times the calibration images, for the memory that must not grow
SAME_FUNCTION_DB = 60.0  # float32 rounding of two equal networks stays above it


@dataclass
class Part:
    """`facts` are figures beside the table of files."""

    demands: list[Demand]
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def lite0(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Points 1 and 3: CPU targets, every calibrator and the ladder, beside the peers."""
    case = Case("lite0", fp32, images, options)
    for target in (ORT, OPENVINO):
        _add_target(case, target)
    for peer in peers.PEERS:
        case.add_peer(peer)
    case.evaluate()
    case.time([_ladder(ORT), _ladder(OPENVINO), *(peer.name for peer in peers.PEERS)])
    row = _ladder_row(case, ORT)
    answers = row.answers
    demands = [
        demand(1, "lite0, onnxruntime: SQNR", ("≥", 24, "dB"), answers and answers.sqnr_db),
        demand(1, "lite0, onnxruntime: agreement with FP32", ("≥", 0.985, ""), answers and answers.agreement),
        demand(
            1,
            "lite0, onnxruntime: chance of so large a drop of top-1 among equally good files",
            ("≥", 0.05, ""),
            answers and answers.p_value,
            _drop_text(row),
        ),
        demand(1, "lite0, onnxruntime: latency over ONNX Runtime's own U8S8 file", ("≤", 1, ""), row.to_u8s8),
    ]
    demands += [_ladder_time(case, target) for target in (ORT, OPENVINO)]
    return Part(demands, case.rows)


def tensorrt(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 2: symmetric files, their answers, the linter and TensorRT-RTX."""
    case = Case("lite0-tensorrt", fp32, images, options)
    _add_target(case, TENSORRT)
    case.evaluate()
    row = _ladder_row(case, TENSORRT)
    sqnr = row.answers.sqnr_db if row.answers else None
    demands = [
        demand(2, "lite0, tensorrt: SQNR", ("≥", 22.5, "dB"), sqnr),
        *_engine_demands(2, row, options),
        _ladder_time(case, TENSORRT),
    ]
    return Part(demands, case.rows)


def calibration(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 3: time and memory of plain calibration, in turns with NNCF; the same memory with ten times the photos."""
    case = Case("calibration", fp32, images, options)
    names = discover.names(CALIBRATORS)
    seconds: dict[str, list[float]] = {name: [] for name in (*names, peers.NNCF_DEFAULT.name)}
    stage: dict[str, list[float]] = {name: [] for name in names}
    peak: dict[str, list[float]] = {name: [] for name in names}
    loaded: list[float] = []
    out = case.folder / "nncf.onnx"
    for number in range(options.rounds):
        options.report(f"calibration: round {number + 1} of {options.rounds}")
        loaded.append(_loaded_mb(fp32))
        for name in list(seconds)[:: -1 if number % 2 else 1]:
            if name in names:
                made = files.quantise(fp32.file, images, _plain(ORT, name), case.folder / name)
                seconds[name].append(made.run.seconds)
                stage[name].append(made.stage_seconds)
                peak[name].append(made.run.peak_bytes / 1e6)
            else:
                run, _ = peers.quantise(
                    peers.NNCF_DEFAULT, options.environments, fp32.file, case.calibration, out
                )
                seconds[name].append(run.seconds)
    many = _peaks_of_many(case, names)
    nncf = np.array(seconds[peers.NNCF_DEFAULT.name])
    demands = []
    for name in names:
        note = f"the stage alone {np.mean(stage[name]):.1f} s, NNCF {nncf.mean():.1f} s"
        own, above = np.array(seconds[name]), np.array(peak[name]) - np.array(loaded)
        demands += [
            demand(3, f"{name}: whole command with 300 photos", ("≤", 8, "s"), mean(own), note),
            demand(3, f"{name}: memory above the loaded model", ("≤", 300, "MB"), mean(above)),
            demand(3, f"{name}: NNCF's time over ours", ("≥", 2, ""), ratio(nncf, own)),
            demand(
                3,
                f"{name}: peak with {MANY} times the photos over that with 300",
                ("≤", 1.1, ""),
                many[name] / float(np.mean(peak[name])),
            ),
        ]
    facts = {
        "seconds": seconds,
        "stage_seconds": stage,
        "peak_mb": peak,
        "loaded_mb": loaded,
        "many_mb": many,
    }
    return Part(demands, facts=facts)


def b0(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 4: the hard network for every target, and what is fastest on this CPU."""
    case = Case("b0", fp32, images, options)
    for target in TARGETS:
        case.add_optkit(f"optkit {target} plain", target, [])
        case.add_optkit(_ladder(target), target, files.ladder_options())
    for peer in peers.PEERS:
        case.add_peer(peer)
    case.evaluate()
    ours = [f"optkit {target} {how}" for target in (ORT, OPENVINO) for how in ("plain", "ladder")]
    case.time([*ours, *(peer.name for peer in peers.PEERS)])
    demands = []
    for target in TARGETS:
        row = _ladder_row(case, target)
        answers = row.answers
        demands += [
            demand(4, f"b0, {target}: SQNR", ("≥", 27, "dB"), answers and answers.sqnr_db),
            demand(4, f"b0, {target}: drop", ("≤", 0.3, "points"), answers and answers.drop_points),
        ]
    demands += _engine_demands(4, _ladder_row(case, TENSORRT), options)
    timed = [row for row in case.rows if row.name in ours and row.to_fp32]
    best = min(timed, key=lambda row: row.to_fp32.value if row.to_fp32 else np.inf, default=None)
    told = [
        text for row in timed for text in row.found.get("warnings", []) if "fast" in text or "slow" in text
    ]
    note = f"{best.name} in {best.runtime}. " if best else ""
    note += f"optkit said: {told[0]}" if told else "optkit said nothing of speed"
    wanted = ("≤", 0.8, "of FP32 in ONNX Runtime")
    demands.append(demand(4, "b0: the fastest of our files", wanted, best and best.to_fp32, note))
    return Part(demands, case.rows)


def stress(fp32: Artifact, images: files.Images, options: Options) -> Part:
    """Point 4: the same function with ranges that per-tensor INT8 cannot serve."""
    hard = files.make_stress(fp32, options.folder / "stress" / "fp32", seed=0)
    case = Case("stress", hard, images, options)
    pixels = case.evaluation[0]
    logits = [logits_of(open_cpu(one, ORT, options.threads), pixels) for one in (fp32, hard)]
    same = compare_logits(*logits).sqnr_db
    for target in TARGETS:
        case.add_optkit(f"optkit {target} plain", target, ["--calibrator", "minmax"])
        case.add_optkit(_ladder(target), target, files.ladder_options())
    case.evaluate()
    what = "stress: the variant computes the same, SQNR"
    demands = [demand(4, what, ("≥", SAME_FUNCTION_DB, "dB"), same)]
    for target in TARGETS:
        row = _ladder_row(case, target)
        plain = case.row(f"optkit {target} plain", row.runtime)
        note = f"plain: {_drop_text(plain)}; {_rungs(row)}" if plain else _rungs(row)
        drop = row.answers.drop_points if row.answers else None
        demands.append(demand(4, f"stress, {target}: drop", ("≤", 0.5, "points"), drop, note))
    return Part(demands, case.rows)


PARTS: dict[str, Callable[[Artifact, files.Images, Options], Part]] = {
    "lite0": lite0,
    "tensorrt": tensorrt,
    "calibration": calibration,
    "b0": b0,
    "stress": stress,
}


def _plain(target: str, calibrator: str) -> list[str]:
    return ["--target", target, "--calibrator", calibrator]


def _ladder(target: str) -> str:
    return f"optkit {target} ladder"


def _ladder_row(case: Case, target: str) -> Row:
    row = case.row(_ladder(target), OPENVINO if target == OPENVINO else ORT)
    assert row is not None
    return row


def _add_target(case: Case, target: str) -> None:
    for name in discover.names(CALIBRATORS):
        case.add_optkit(f"optkit {target} {name}", target, ["--calibrator", name])
    case.add_optkit(_ladder(target), target, files.ladder_options())


def _ladder_time(case: Case, target: str) -> Demand:
    what = f"lite0, {target}: whole ladder without training"
    return demand(3, what, ("≤", LADDER_SECONDS, "s"), _ladder_row(case, target).made_in_seconds)


def _engine_demands(point: int, row: Row, options: Options) -> list[Demand]:
    """The linter finds nothing, and every kind of GPU gets an engine."""
    name = row.name.removeprefix("optkit ")
    lint_what, build_what = f"{name}: findings of the linter", f"{name}: engines built"
    wanted = ("≥", float(len(engines.COMPUTE_CAPABILITIES)), "")
    if row.error or row.artifact.manifest.stage != "quantize":
        return [
            demand(point, lint_what, ("≤", 0, ""), None, row.error),
            demand(point, build_what, wanted, None),
        ]
    options.report(f"{name}: linter and engines")
    findings, built = engines.lint_findings(row.artifact, TENSORRT), engines.builds(row.artifact)
    refused = [f"{capability}: {why}" for capability, why in built.items() if why]
    note = "; ".join(refused) or ", ".join(built)
    return [
        demand(point, lint_what, ("≤", 0, ""), float(len(findings)), "; ".join(findings[:3])),
        demand(point, build_what, wanted, float(len(built) - len(refused)), note),
    ]


def _loaded_mb(fp32: Artifact) -> float:
    command = [sys.executable, str(Path(__file__).parent / "baseline.py"), str(fp32.file)]
    return measured(command).peak_bytes / 1e6


def _peaks_of_many(case: Case, names: list[str]) -> dict[str, float]:
    """Peak of each calibrator in MB with ten copies of every photo."""
    table = files.repeated(case.images.path, case.folder / "many", MANY)
    many = files.Images(table, case.images.val)
    found = {}
    for name in names:
        case.options.report(f"calibration: {name}, many photos")
        words = [*_plain(ORT, name), "--calibration-images", str(MANY * files.CALIBRATION_IMAGES)]
        made = files.quantise(case.fp32.file, many, words, case.folder / f"many-{name}")
        found[name] = made.run.peak_bytes / 1e6
    return found


def _drop_text(row: Row) -> str:
    if row.answers is None:
        return row.error or "not measured"
    drop: Figure = row.answers.drop_points
    return f"drop {drop.value:.2f} points ({drop.interval[0]:.2f} to {drop.interval[1]:.2f})"


def _rungs(row: Row) -> str:
    """The ladder in a line: SQNR after every rung that was kept."""
    ladder = row.found.get("ladder") or []
    kept = [f"{rung['rung']} {rung['sqnr_db']:.1f} dB" for rung in ladder if rung["kept"]]
    return "rungs: " + (", ".join(kept) or "none told of")
