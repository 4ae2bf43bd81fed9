"""The sentences at the top of a report."""

from __future__ import annotations

import pytest

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.headline import headline, headline_row

from .run_folder import RunFolder, bench_row, latency


def test_headline_is_made_of_the_measured_numbers(run: RunFolder) -> None:
    first, second = headline(collect(run.path))
    assert first == (
        "int8 (INT8 ONNX): 2.10× the speed of onnx (FP32 ONNX) in onnxruntime (not timed side by side), 74 % smaller, "
        "accuracy −0.3 ± 1.3 points: no difference that 360 images can show."
    )
    assert second.startswith(
        "Against the baseline teacher (FP32 PyTorch): 25.3× the speed "
        "(onnxruntime against pytorch, not timed side by side)"
    )


@pytest.mark.parametrize(
    ("top1", "p50", "expected"),
    [
        (0.7, 4.0, "accuracy −20.0 ± 5.8 points: a loss that 360 images show"),
        (0.9, 10.0, "0.80× the speed of"),
        (0.9, 8.1, "0.99× the speed of"),
    ],
)
def test_headline_says_losses_and_slowness(
    empty_run: RunFolder, top1: float, p50: float, expected: str
) -> None:
    dense = empty_run.add("dense", "export", Format.ONNX, size=10)
    small = empty_run.add("small", "quantize", Format.ONNX, size=5, inputs={"model": [dense]})
    rows = [
        bench_row("dense", dense, latency_ms=latency(8.0), top1=0.9),
        bench_row("small", small, precision="int8", latency_ms=latency(p50), top1=top1),
    ]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [dense, small]}, details={"rows": rows})
    (sentence,) = headline(collect(empty_run.path))
    assert expected in sentence


def test_headline_prefers_a_model_that_lost_nothing(empty_run: RunFolder) -> None:
    dense = empty_run.add("dense", "export", Format.ONNX, size=10)
    broken = empty_run.add("broken", "quantize", Format.ONNX, size=5, inputs={"model": [dense]})
    sound = empty_run.add("sound", "quantize", Format.ONNX, size=5, inputs={"model": [dense]})
    rows = [
        bench_row("dense", dense, latency_ms=latency(8.0), top1=0.95),
        bench_row("broken", broken, latency_ms=latency(2.0), top1=0.10),
        bench_row("sound", sound, latency_ms=latency(4.0), top1=0.945),
    ]
    empty_run.add(
        "bench", "bench", Format.RESULT, inputs={"models": [dense, broken, sound]}, details={"rows": rows}
    )
    best = headline_row(collect(empty_run.path))
    assert best is not None
    assert best.name == "sound"


def test_headline_without_a_bench(empty_run: RunFolder) -> None:
    empty_run.add("student", "distill", Format.TORCH, size=10)
    assert headline(collect(empty_run.path)) == ["Nothing was benched with both a latency and an accuracy."]
