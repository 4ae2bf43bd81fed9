from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optkit.cli import _console
from optkit.cli._quantize_show import show_quantized
from optkit.core.types import Artifact, Format, Manifest, Precision
from tests.report.run_folder import ladder

TITLES = ("recovery ladder", "most sensitive operators", "integer", "FP32")


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
    assert rows["rounding"][1:] == ["kept", "24.3", "dB", "98.8", "%", "−0.10", "1", "min", "36", "s"]
    assert rows["equalisation"][1:] == ["dropped", "17.1", "dB", "95.2", "%", "–", "6.0", "s"]
    assert "rounding: <b>AdaRound</b>: 49 layers, then 16 blocks" in text
    assert "asked for: at most 0.5 points of top-1 lost, at least 24.0 dB" in text
    assert "25.0 dB after 4 of 6 rungs; rounding bought most, 3.1 dB; the budget holds." in text
    assert text.count("/conv_pw/Conv") == 9, "the worst ten, one of another name"
    assert rows["/blocks/blocks.0/blocks.0.1/conv_pw/Conv"][1:] == ["Conv", "24.6", "dB", "float"]
    assert rows["/blocks/blocks.0/blocks.0.2/conv_pw/Conv"][1:] == ["Conv", "25.2", "dB", "int8"]
    assert "57 of 75 operators are integer (76.0 %)" in text
    assert rows["the runtime has no kernel"][-3:] == ["16", "16", "Sigmoid"]


def test_a_model_without_a_ladder_is_shown_as_any_other(show) -> None:
    text = show({"quantization": {"target": "tensorrt"}})
    assert "precision" in text
    assert not [title for title in TITLES if title in text]


def test_all_integer_needs_no_table_of_reasons(show) -> None:
    text = show({"quantized": {"Conv": 3}, "float": []})
    assert "3 of 3 operators are integer (100.0 %)" in text
    assert "because" not in text


def test_sixteen_bits(show) -> None:
    kept = [{"node": "[red]", "op": "Mul", "reason": "[red] reaches 81234"}]
    text = show({"sixteen_bit": {"kept_fp32": kept, "largest_activation": 81234.5}}, Precision.FP16)
    assert "1 operators kept in FP32; the largest activation is 81\u202f234" in text
    assert "[red] reaches 81234" in text
    text = show({"sixteen_bit": {"kept_fp32": [], "largest_activation": 12.0}}, Precision.FP16)
    assert "no operators kept in FP32; the largest activation is 12.0" in text
