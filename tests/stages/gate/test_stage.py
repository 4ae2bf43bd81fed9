from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter, WarningRecorder
from optkit.core.types import Context
from optkit.stages.gate.config import Config
from optkit.stages.gate.stage import run
from tests.stages.gate.benches import ROUNDS, Bench, N, pair, timed


def judged(bench: Bench, stage: str = "bench", **limits: Any) -> dict[str, Any]:
    """Details of the gate's artifact."""
    context = Context(Path(), SilentReporter())
    return run(Config(**limits), {"bench": {"bench": bench.commit(stage)}}, context).details


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"max_drop": 1}, "pass"),
        ({"max_drop": 0.3}, "cannot tell"),
        ({"max_drop": 0}, "cannot tell"),
        ({"min_agreement": 0.99}, "pass"),
        ({"min_agreement": 0.997}, "cannot tell"),
        ({"min_agreement": 0.999}, "fail"),
        ({"max_latency_ms": 11}, "pass"),
        ({"max_latency_ms": 10}, "cannot tell"),
        ({"max_latency_ms": 9}, "fail"),
        ({"min_speedup": 1.9}, "pass"),
        ({"min_speedup": 2}, "cannot tell"),
        ({"min_speedup": 2.1}, "fail"),
        ({"max_bytes": 250}, "pass"),
        ({"max_bytes": 249}, "fail"),
        ({"max_bytes": 250, "max_drop": 0.3}, "cannot tell"),
        ({"max_bytes": 249, "max_drop": 0.3}, "fail"),
    ],
)
def test_a_limit_is_kept_broken_or_undecided(tmp_path: Path, limits: dict[str, float], verdict: str) -> None:
    found = judged(pair(tmp_path), **limits)
    assert found["verdict"] == verdict
    assert [one["name"] for one in found["criteria"]] == sorted(limits, key=list(Config.model_fields).index)
    assert (found["candidate"], found["confidence"]) == ("int8", 0.95)
    for one in found["criteria"]:
        assert one["limit"] == limits[one["name"]]
        assert (one["interval"] is None) == (one["name"] == "max_bytes")
        assert (one["verdict"] == "cannot tell") == ("needs about" in one["text"] or "so near" in one["text"])


@pytest.mark.parametrize("n", [100, 360])
def test_that_all_there_are_agree_is_neither_shown_nor_refuted(tmp_path: Path, n: int) -> None:
    (criterion,) = judged(pair(tmp_path, lost=0, won=0, n=n), min_agreement=1)["criteria"]
    assert (criterion["verdict"], criterion["estimate"], criterion["needs"]) == ("cannot tell", 1, None)
    assert criterion["interval"][1] == 1
    assert "no number of images shows" in criterion["text"]
    assert "so near" not in criterion["text"]


def test_a_drop_fails_where_all_of_its_interval_is_beyond_the_limit(tmp_path: Path) -> None:
    (criterion,) = judged(pair(tmp_path, lost=60, won=10), max_drop=1)["criteria"]
    assert criterion["verdict"] == "fail"
    assert criterion["estimate"] == pytest.approx(2.5)
    assert 1 < criterion["interval"][0] < 2.5 < criterion["interval"][1]
    assert (criterion["unit"], criterion["needs"]) == ("points", None)


@pytest.mark.parametrize(("lost", "won", "limit"), [(4, 2, 0.3), (0, 0, 0.1), (30, 10, 0.8)])
def test_the_images_it_asks_for_decide(tmp_path: Path, lost: int, won: int, limit: float) -> None:
    (criterion,) = judged(pair(tmp_path, lost, won), max_drop=limit)["criteria"]
    times = 1 + criterion["needs"]["images"] / N
    scaled = [round(count * times) for count in (lost, won, N)]
    assert judged(pair(tmp_path, *scaled[:2], n=scaled[2]), max_drop=limit)["verdict"] != "cannot tell"
    fewer = [round(count * (1 + 0.6 * (times - 1))) for count in (lost, won, N)]
    assert judged(pair(tmp_path, *fewer[:2], n=fewer[2]), max_drop=limit)["verdict"] == "cannot tell"


def test_an_estimate_at_the_limit_asks_for_nothing(tmp_path: Path) -> None:
    (criterion,) = judged(pair(tmp_path, lost=10, won=0), max_drop=0.5)["criteria"]
    assert (criterion["verdict"], criterion["needs"]) == ("cannot tell", None)
    assert "so near the limit" in criterion["text"]


def test_the_seconds_it_asks_for_grow_with_the_square_of_what_is_missing(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    speedup = judged(bench, min_speedup=1.5)["criteria"][0]["estimate"]
    needs = [judged(bench, min_speedup=speedup * (1 - gap))["criteria"][0]["needs"] for gap in (0.002, 0.001)]
    assert needs[0]["seconds"] > 1
    assert needs[1]["seconds"] / needs[0]["seconds"] == pytest.approx(4, rel=0.3)


def test_the_percentile_can_be_chosen(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    p50, p90 = (
        judged(bench, max_latency_ms=20, latency_percentile=label)["criteria"][0] for label in ("p50", "p90")
    )
    assert p50["estimate"] < p50["interval"][1] < p90["estimate"]
    assert "p90 of 800 calls" in p90["text"]


def test_a_percentile_that_needs_more_calls_is_not_told(tmp_path: Path) -> None:
    (criterion,) = judged(pair(tmp_path), max_latency_ms=20, latency_percentile="p99.9")["criteria"]
    assert (criterion["verdict"], criterion["estimate"]) == ("cannot tell", None)
    assert criterion["needs"]["seconds"] == pytest.approx(5 * (6636 / 800 - 1), rel=0.05)


def test_two_rounds_say_nothing_of_a_ratio(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    bench.measurements = bench.measurements[:2]
    for name in ("fp32", "int8"):
        bench.times(name, timed(10, rounds=2))
    (criterion,) = judged(bench, min_speedup=0.1)["criteria"]
    assert (criterion["verdict"], criterion["interval"]) == ("cannot tell", None)


def test_more_confidence_asks_for_more(tmp_path: Path) -> None:
    assert judged(pair(tmp_path, 4, 2), max_drop=0.5)["verdict"] == "pass"
    assert judged(pair(tmp_path, 4, 2), max_drop=0.5, confidence=0.999)["verdict"] == "cannot tell"


def without(quantity: str) -> Any:
    def change(bench: Bench) -> None:
        bench.measurements = [one for one in bench.measurements if one.name != quantity]

    return change


def other_images(bench: Bench) -> None:
    bench.answers("int8", np.ones(10, bool))
    del bench.measurements[1]


def fewer_rounds(bench: Bench) -> None:
    bench.times("int8", timed(10, rounds=30))
    del bench.measurements[3]


@pytest.mark.parametrize(
    ("change", "limit", "error", "words"),
    [
        (without("top1"), "max_drop", InputError, "accuracy of fp32"),
        (without("top1"), "min_agreement", InputError, "accuracy of int8"),
        (without("latency_ms"), "max_latency_ms", InputError, "latency of int8"),
        (without("latency_ms"), "min_speedup", InputError, "latency of fp32|int8"),
        (other_images, "max_drop", InputError, "same images"),
        (fewer_rounds, "min_speedup", InputError, "same rounds"),
        (lambda bench: bench.rows[1].pop("size_bytes"), "max_bytes", InputError, "size of int8"),
        (lambda bench: bench.rows[1].pop("agreement"), "min_agreement", InputError, "agreement"),
        (lambda bench: bench.rows[1].pop("batch"), "max_bytes", InputError, "cannot be read"),
        (lambda bench: bench.rows.clear(), "max_bytes", InputError, "no model"),
    ],
)
def test_what_was_not_measured_is_an_error_and_no_pass(
    tmp_path: Path, change: Any, limit: str, error: type[Exception], words: str
) -> None:
    bench = pair(tmp_path)
    change(bench)
    with pytest.raises(error, match=words) as raised:
        judged(bench, **{limit: 0.5 if limit != "max_bytes" else 500})
    assert raised.value.hint


def test_only_a_bench_is_judged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a measurement"):
        judged(pair(tmp_path), "evaluate", max_bytes=10)


def compared(root: Path, *names: tuple[str, str]) -> Bench:
    """Models in runtimes; each agrees with the first one that has answers: those named "engine" have none."""
    bench = Bench(root)
    (name, runtime), *_ = [one for one in names if one[0] != "engine"]
    for this in names:
        if this[0] == "engine":
            bench.row(*this)
            continue
        agreement = 1.0 if this == (name, runtime) else 0.99
        bench.row(*this, agreement=agreement, agreement_with={"name": name, "runtime": runtime})
        bench.answers(this[0], np.ones(N, bool), this[1])
    return bench


A, B, C = "a", "b", "c"


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        # The other way round; the first one cannot be executed here; a runtime of each side; a model with itself.
        (
            [(A, "onnxruntime"), (B, "onnxruntime")],
            {"baseline": B, "candidate": A},
            "with itself, not with b",
        ),
        ([("engine", "tensorrt"), (A, "onnxruntime"), (B, "onnxruntime")], {"candidate": A}, "with itself"),
        (
            [("engine", "tensorrt"), (A, "onnxruntime"), (B, "onnxruntime")],
            {"candidate": B},
            r"with a \(onnxruntime\), not with engine",
        ),
        (
            [(A, "onnxruntime"), (A, "openvino"), (B, "onnxruntime"), (B, "openvino")],
            {"runtime": "openvino"},
            r"with a \(onnxruntime\), not with a \(openvino\)",
        ),
        ([(A, "onnxruntime"), (A, "openvino")], {"runtime": "onnxruntime"}, "with itself"),
        (
            [(A, "onnxruntime"), (A, "openvino"), (A, "null:x")],
            {"runtime": "null:x", "baseline_runtime": "openvino"},
            r"with a \(onnxruntime\), not with a \(openvino\)",
        ),
    ],
)
def test_agreement_with_another_model_or_runtime_is_refused(
    tmp_path: Path, names: list[tuple[str, str]], options: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        judged(compared(tmp_path, *names), min_agreement=0.5, **options)
    assert "Measure again" in raised.value.hint
    assert ("--baseline a --baseline-runtime onnxruntime" in raised.value.hint) == ("itself" not in words)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ([(A, "onnxruntime"), (B, "onnxruntime"), (C, "onnxruntime")], {"candidate": C}),
        ([("engine", "tensorrt"), (A, "onnxruntime"), (B, "onnxruntime")], {"candidate": B, "baseline": A}),
        ([(A, "onnxruntime"), (A, "openvino")], {}),
        (
            [(A, "onnxruntime"), (A, "openvino"), (B, "onnxruntime"), (B, "openvino")],
            {"runtime": "openvino", "baseline_runtime": "onnxruntime"},
        ),
    ],
)
def test_agreement_with_the_baseline_is_judged(
    tmp_path: Path, names: list[tuple[str, str]], options: dict[str, str]
) -> None:
    (criterion,) = judged(compared(tmp_path, *names), min_agreement=0.5, **options)["criteria"]
    assert (criterion["verdict"], criterion["estimate"]) == ("pass", 0.99)


def test_agreement_that_does_not_say_with_whom_is_refused(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    del bench.rows[1]["agreement_with"]
    with pytest.raises(InputError, match="does not name"):
        judged(bench, min_agreement=0.5)


def test_rounds_are_paired_by_their_numbers(tmp_path: Path) -> None:
    """As Ctrl-C leaves them: the baseline lacks a round in the middle, the candidate the last ones."""
    levels = np.exp(
        np.random.default_rng(0).standard_normal((ROUNDS, 1))
    )  # of the machine, the same for both
    for numbered in (True, False):
        bench = pair(tmp_path)
        bench.details["interrupted"] = True
        bench.measurements = bench.measurements[:2]
        ids = {"fp32": [one for one in range(ROUNDS) if one != 3], "int8": list(range(ROUNDS - 2))}
        for seed, (name, ms) in enumerate({"fp32": 20.0, "int8": 10.0}.items()):
            calls = (levels * timed(ms, seed=seed))[ids[name]]
            bench.times(name, calls, numbers=ids[name] if numbered else None)
        if not numbered:
            with pytest.raises(InputError, match="same rounds"):
                judged(bench, min_speedup=1.9)
            continue
        (criterion,) = judged(bench, min_speedup=1.9)["criteria"]
        assert (criterion["verdict"], criterion["estimate"]) == ("pass", pytest.approx(2, rel=0.03))
        assert f"{ROUNDS - 3} rounds side by side" in criterion["text"]


def test_rounds_of_which_none_is_shared_say_nothing(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    bench.measurements = bench.measurements[:2]
    bench.times("fp32", timed(20, rounds=5), numbers=range(5))
    bench.times("int8", timed(10, rounds=5), numbers=range(5, 10))
    with pytest.raises(InputError, match="same rounds"):
        judged(bench, min_speedup=1)


@pytest.mark.parametrize(
    ("who", "limits", "verdict"),
    [
        ("int8", {"max_latency_ms": 100}, "fail"),
        ("int8", {"max_bytes": 500}, "fail"),
        ("fp32", {"min_speedup": 1}, "fail"),
        ("fp32", {"max_bytes": 500}, "pass"),  # needs no baseline
        ("other", {"min_speedup": 1, "candidate": "int8"}, "pass"),
    ],
)
def test_a_crash_of_the_model_or_its_baseline_fails(
    tmp_path: Path, who: str, limits: dict[str, Any], verdict: str
) -> None:
    bench = pair(tmp_path)
    bench.row("other")
    bench.details["failed"] = [{"name": who, "runtime": "onnxruntime", "why": "signal 11"}]
    (criterion,) = judged(bench, **{"candidate": "int8", **limits})["criteria"]
    assert (criterion["verdict"], criterion["crashed"]) == (verdict, verdict == "fail")
    assert ("signal 11" in criterion["text"]) == (verdict == "fail")


def test_a_partial_measurement_is_judged_with_a_warning(tmp_path: Path) -> None:
    bench = pair(tmp_path)
    bench.details["interrupted"] = True
    reporter = WarningRecorder(SilentReporter())
    run(Config(max_bytes=500), {"bench": {"bench": bench.commit()}}, Context(Path(), reporter))
    assert "interrupted" in reporter.warnings[0]
