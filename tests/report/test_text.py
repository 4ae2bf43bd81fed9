"""Numbers and sentences for people."""

from __future__ import annotations

import pytest

from optkit.core.types import Format
from optkit.report import text
from optkit.report.collect import collect

from .run_folder import RunFolder, bench_row, latency


def test_numbers() -> None:
    assert [text.figure(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == [
        "0.012",
        "1.23",
        "12.3",
        "1\u202f234",
    ]
    assert [text.count(value) for value in (950, 4_010_000, 386_000_000)] == ["950", "4.01 M", "386 M"]
    assert [text.size(value) for value in (12, 1_810_000)] == ["12 B", "1.81 MB"]
    assert [text.points(value) for value in (-0.0031, 0.0004, 0.02)] == ["−0.3", "±0.0", "+2.0"]
    assert [text.duration(value) for value in (4.24, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]


def test_quantities_of_quantisation() -> None:
    assert [text.decibels(value) for value in (24.26, -3.0)] == ["24.3 dB", "−3.0 dB"]
    assert [text.decibel_change(value) for value in (3.1, -0.24)] == ["+3.1 dB", "−0.2 dB"]


def test_long_node_names_lose_their_middle() -> None:
    assert text.short_name("/blocks/blocks.0/conv_pw/Conv") == "/blocks/blocks.0/conv_pw/Conv"
    short = text.short_name("/start" + 90 * "x" + "/end")
    assert len(short) == 57
    assert (short[:6], short[-4:]) == ("/start", "/end")


def test_headline_is_made_of_the_measured_numbers(run: RunFolder) -> None:
    first, second = text.headline(collect(run.path))
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
    (sentence,) = text.headline(collect(empty_run.path))
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
    best = text.headline_row(collect(empty_run.path))
    assert best is not None
    assert best.name == "sound"


def test_headline_without_a_bench(empty_run: RunFolder) -> None:
    empty_run.add("student", "distill", Format.TORCH, size=10)
    assert text.headline(collect(empty_run.path)) == [
        "Nothing was benched with both a latency and an accuracy."
    ]
