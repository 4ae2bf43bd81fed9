"""What quantisation did, in words."""

from __future__ import annotations

from typing import Any

import pytest

from optkit.report import quantisation_text as text
from optkit.report.quantisation_schema import (
    FloatPrefix,
    Peak,
    QuantizeBudget,
    Quantized,
    Rung,
    Speed,
    Validation,
)


def _found(**fields: Any) -> Quantized:
    return Quantized(step="q", model="onnx", **{"precision": "int8", **fields})


def _rung(name: str, sqnr_db: float | None, before_db: float | None = None, kept: bool = True) -> Rung:
    return Rung(rung=name, kept=kept, before_db=before_db, sqnr_db=sqnr_db)


def _speed(**fields: Any) -> Speed:
    given = {"runtime": "openvino", "fp32_runtime": "onnxruntime", "device": "cpu", "batch": 1, "threads": 1}
    given |= {"fp32_ms": 6.6, "int8_ms": 4.1, "ratio": 0.62, "interval": (0.58, 0.66), "verdict": "faster"}
    return Speed.model_validate(given | fields)


CALIBRATED = _rung("calibration", 20.0)


def test_losses_have_the_sign_of_a_difference() -> None:
    assert [text.loss_in_points(drop) for drop in (0.25, -0.1, 0.001)] == ["−0.25", "+0.10", "±0.00"]
    assert text.loss_interval((-0.3, 1.2)) == "−1.20 … +0.30"
    assert text.level_db(-3.04) == "−3.0"


def test_what_was_asked_for() -> None:
    assert text.asked_for(QuantizeBudget(max_drop=0.5, min_agreement=0.985)) == (
        "at most 0.5 points of top-1 lost, at least 98.5 % agreement"
    )
    assert text.asked_for(QuantizeBudget(min_sqnr=24)) == "at least 24.0 dB"
    assert text.asked_for(QuantizeBudget()) == ""


def test_calibration_alone_is_no_rung_that_was_tried() -> None:
    assert text.outcome_line(_found(ladder=(CALIBRATED,))) == "INT8 of onnx: 20.0 dB on held-out images."
    assert text.outcome_line(_found()) == ""
    assert text.outcome_line(_found(ladder=(_rung("calibration", None),))) == ""


def test_rungs_that_did_not_help_are_said() -> None:
    dropped = _rung("ranges", 19.0, 20.0, kept=False)
    assert text.outcome_line(_found(ladder=(CALIBRATED, dropped))) == (
        "INT8 of onnx: 20.0 dB on held-out images with calibration alone: no other rung helped."
    )


def test_the_rungs_that_helped_are_counted_without_calibration() -> None:
    rungs = (
        CALIBRATED,
        _rung("ranges", 21.0, 20.0),
        _rung("bias", 20.5, 21.0, False),
        _rung("qat", 24.0, 21.0),
    )
    assert text.outcome_line(_found(ladder=rungs)) == (
        "INT8 of onnx: 24.0 dB on held-out images, up from 20.0 dB: 2 of the 3 rungs tried helped, "
        "qat most, +3.0 dB."
    )


@pytest.mark.parametrize(
    ("held", "words"), [(True, "the budget holds."), (False, "the budget does not hold.")]
)
def test_the_budget_is_beside_what_it_is_checked_on(held: bool, words: str) -> None:
    validation = Validation(sqnr_db=19.0, agreement=0.975, drop=0.2)
    found = _found(ladder=(CALIBRATED,), validation=validation, budget=QuantizeBudget(max_drop=1, held=held))
    assert text.outcome_line(found) == (
        "INT8 of onnx: 20.0 dB on held-out images; on validation images 19.0 dB, 97.5 % agreement, "
        f"top-1 −0.20 points; {words}"
    )


def test_without_a_ladder_the_validation_figures_are_told() -> None:
    validation = Validation(sqnr_db=62.0, drop=0.0, drop_interval=(-0.5, 0.4))
    found = _found(precision="fp16", validation=validation, validated_by="emulation: rounded results")
    assert text.outcome_line(found) == (
        "FP16 of onnx (simulated): on validation images 62.0 dB, top-1 ±0.00 points (95 %: −0.40 … +0.50)."
    )
    assert text.simulation_note(found) == "Simulated by emulation: rounded results."


@pytest.mark.parametrize(("target", "name"), [("openvino", "OpenVINO"), ("tensorrt", "TensorRT")])
def test_what_the_target_did_not_compute_is_simulated(target: str, name: str) -> None:
    found = _found(target=target, ladder=(CALIBRATED,))
    assert text.outcome_line(found).startswith("INT8 of onnx (simulated): 20.0 dB")
    assert f"{name} may round otherwise" in text.simulation_note(found)
    compared = _found(target=target, facts={"sqnr_db_of_calibrators": {"minmax": 20.0}})
    assert text.simulation_note(compared)
    assert text.simulation_note(_found(target=target)) == "", "no figure, nothing simulated"
    assert text.simulation_note(_found(target="onnxruntime", ladder=(CALIBRATED,))) == ""


def test_operators_are_counted_in_their_precision() -> None:
    left = ({"node": "a"},)
    found = _found(precision="fp16", converted={"Conv": 2, "Mul": 1}, left=left)
    assert text.operator_count(found) == "3 of 4 operators in FP16 (75.0 %)"
    assert text.operator_count(_found()) == ""


def test_peaks_and_their_limit() -> None:
    fields = {"precision": "fp16", "limit": 8188.0}
    both = _found(
        **fields,
        largest_activation=Peak(name="x", value=81234.5),
        largest_sum=Peak(name="/head/Gemm", value=2.5e6),
    )
    assert text.peak_lines(both) == {
        "largest activation": "81\u202f234 (x)",
        "largest sum": "2.50e6 (/head/Gemm)",
        "highest allowed in FP16": "8\u202f188",
    }
    assert text.peak_lines(_found(**fields)) == {}
    assert text.magnitude(4.24e37) == "4.24e37"


def test_speed_with_its_verdict() -> None:
    assert text.speed_line(_speed()) == (
        "INT8 in openvino is faster than FP32 in onnxruntime, the fastest FP32 here: 4.10 ms against 6.60 ms "
        "at batch 1 with 1 thread, 0.62 times its latency (95 %: 0.58 … 0.66)"
    )
    unsure = text.speed_line(_speed(verdict="cannot tell", batch=8, threads=4))
    assert unsure.startswith("cannot tell whether INT8 in openvino is faster than FP32 in onnxruntime, ")
    assert " at batch 8 with 4 threads, " in unsure


def test_where_int8_begins() -> None:
    def tried(chosen: int) -> tuple[FloatPrefix, ...]:
        fields = {"interval": (0.58, 0.64), "ratio": 0.61}
        return tuple(
            FloatPrefix(layers=layers, until=f"/{layers}", ms=ms, chosen=index == chosen, **fields)
            for index, (layers, ms) in enumerate([(2, 4.4), (5, 4.2), (9, 4.0)])
        )

    assert text.float_prefix_line(tried(2)) == (
        "INT8 begins at /9, the best of 3 places that were timed: 4.00 ms with 9 layers in floating point, instead "
        "of 4.40 ms with 2; 0.61 times the latency of FP32 (95 %: 0.58 … 0.64)"
    )
    assert text.float_prefix_line(tried(0)) == (
        "INT8 begins at /2 as planned: the best of 2 later places that were timed is not surely faster"
    )
    assert text.float_prefix_line(()) == text.float_prefix_line(tried(0)[:1]) == ""


@pytest.mark.parametrize("budget", [None, QuantizeBudget(), QuantizeBudget(min_sqnr=20)])
def test_validation_images_stop_a_ladder_with_a_budget_alone(budget: QuantizeBudget | None) -> None:
    note = text.ladder_note(_found(budget=budget))
    assert ("when to stop" in note) == bool(budget and budget.min_sqnr)
    assert "Held-out calibration images, which nothing was fitted to" in note


def test_few_calibration_images_are_not_called_held_out() -> None:
    few = _found(ladder=(CALIBRATED,), set_aside=False, budget=QuantizeBudget(min_sqnr=20))
    assert "the same ones served for fitting and for judging alike" in text.ladder_note(few)
    assert "when to stop" in text.ladder_note(few)
    for words in (text.ladder_note(few), text.outcome_line(few)):
        assert "held-out" not in words.lower()
