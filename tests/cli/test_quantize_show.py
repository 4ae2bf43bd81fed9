"""A quantised model on the terminal and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optkit.cli import _console
from optkit.cli._quantize_show import quantized_to_json, show_quantized
from optkit.core.types import Artifact, Format, Manifest, Precision
from tests.report.run_folder import ladder, sixteen_bit

TITLES = ("recovery ladder", "most sensitive operators", "operators in", "FP32", "speed", "imulated")


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """What is printed about a model with these details."""
    monkeypatch.setattr(_console.out, "width", 120)

    def printed(details: dict[str, Any], precision: Precision = Precision.INT8) -> str:
        (tmp_path / Format.ONNX.filename).write_bytes(b"1")
        manifest = Manifest(
            stage="quantize", key="k", format=Format.ONNX, precision=precision, details=details
        )
        show_quantized(Artifact("k", tmp_path, manifest))
        return capsys.readouterr().out

    return printed


def test_ladder_sensitivity_and_reasons(show) -> None:
    text = show({"quantization": ladder()})
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["rounding"][1:] == ["yes", "24.3", "98.8", "%", "23.6", "−0.10", "1", "min", "36", "s"]
    assert rows["equalisation"][1:] == ["no", "17.1", "95.2", "%", "–", "–", "6.0", "s"]
    assert "rounding: <b>AdaRound</b>: 49 layers, then 16 blocks" in text
    assert "asked for on validation images: at most 0.5 points of top-1 lost, at least 24.0 dB" in text
    assert "up from 19.8 dB: 3 of the 5 rungs tried helped, rounding most, +3.1 dB" in text
    assert "; on validation images 24.6 dB, 98.9 % agreement, top-1 +0.05 points" in text
    assert "; the budget holds." in text
    assert text.count("/conv_pw/Conv") == 9, "the worst ten, one of another name"
    assert rows["/blocks/blocks.0/blocks.0.1/conv_pw/Conv"][1:] == ["Conv", "24.6", "dB", "fp32"]
    assert rows["/blocks/blocks.0/blocks.0.2/conv_pw/Conv"][1:] == ["Conv", "25.2", "dB", "int8"]
    assert "57 of 75 operators in INT8 (76.0 %)" in text
    assert rows["the runtime has no kernel"][-3:] == ["16", "16", "Sigmoid"]
    assert (
        "speed: INT8 in onnxruntime is faster than FP32 in openvino, the fastest FP32 here: 4.10 ms" in text
    )
    assert "before the ladder: INT8 begins at /<i>, the best of 2 places that were timed: 4.00 ms" in text
    assert "Held-out calibration images, which nothing was fitted to" in text
    assert "imulated" not in text, "this target computed its figures itself"


def test_names_of_rungs_fit_a_narrow_terminal(show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_console.out, "width", 80)
    lines = show({"quantization": ladder()}).splitlines()
    assert [line for line in lines if line.strip().startswith("mixed precision  ")]
    assert [line for line in lines if line.strip().startswith("bias correction  ")]


def test_figures_that_the_target_did_not_compute_are_called_simulated(show) -> None:
    text = show({"quantization": ladder() | {"target": "tensorrt", "speed": None}})
    assert "INT8 of the model (simulated): 25.0 dB" in text
    assert "Simulated: ONNX Runtime computed" in text
    assert "speed" not in text


def test_a_model_without_a_ladder_is_shown_as_any_other(show) -> None:
    text = show({"quantization": {"target": "tensorrt"}})
    assert "precision" in text
    assert not [title for title in TITLES if title in text]


def test_nothing_left_needs_no_table_of_reasons(show) -> None:
    text = show({"quantized": {"Conv": 3}, "float": []})
    assert "3 of 3 operators in INT8 (100.0 %)" in text
    assert "because" not in text


def test_sixteen_bits(show) -> None:
    details = sixteen_bit()
    details["float"][0] |= {"node": "[red]", "reason": "[red] reaches 81234"}
    text = show({"quantization": details}, Precision.FP16)
    assert "FP16 of the model (simulated): on validation images 62.0 dB, 100.0 % agreement" in text
    assert "Simulated by emulation: every result rounded to FP16." in text
    assert "56 of 59 operators in FP16 (94.9 %)" in text
    assert "[red] reaches 81234" in text
    assert "largest activation: 81\u202f234 (/head/<b>y</b>)" in text
    assert "largest sum: 90\u202f123 (/head/Gemm)" in text
    assert "highest allowed in FP16: 8\u202f188" in text
    assert "integer" not in text


def test_programs_read_all_that_was_found_out(tmp_path: Path) -> None:
    (tmp_path / Format.ONNX.filename).write_bytes(b"1")
    details = ladder()
    manifest = Manifest(
        stage="quantize",
        key="k",
        format=Format.ONNX,
        precision=Precision.INT8,
        details={"quantization": details},
    )
    said = quantized_to_json(Artifact("k", tmp_path, manifest))
    for name in (
        "ladder",
        "budget",
        "validation",
        "sensitivity",
        "speed",
        "float_prefix",
        "quantized",
        "float",
    ):
        assert said[name] == details[name]
    assert said["largest_sum"] is None, "it is looked for in FP16 and BF16"
    assert (said["key"], said["size_bytes"]) == ("k", 1)
    assert (said["target"], said["simulated"]) == ("onnxruntime", False)
    details["target"] = "tensorrt"
    said = quantized_to_json(Artifact("k", tmp_path, manifest.model_copy(update={"details": details})))
    assert (said["target"], said["simulated"]) == ("tensorrt", True)
