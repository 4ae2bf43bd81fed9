from __future__ import annotations

import pytest

from optkit.cli import doctor
from optkit.cli.list import runtime_rows, unavailable_runtimes
from optkit.core import machine
from optkit.runtimes import onnxruntime
from optkit.runtimes.base import runtime_names


def test_every_variant_of_a_runtime_is_listed_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "_built_in", lambda variant: False)
    found = unavailable_runtimes()
    assert list(found) == runtime_names()
    assert found["pytorch:eager"] is None
    assert "pip install onnxruntime-gpu" in (found["onnxruntime:cuda"] or "")
    shown = dict(runtime_rows())
    assert shown["openvino:latency (default)"]
    assert "NCHW" in shown["pytorch:eager"]
    assert shown["onnxruntime:cuda"].startswith("not here: the installed build")
    assert shown["null"] == "available"


@pytest.mark.parametrize(("version", "advised"), [(None, True), ("13.0", False)])
def test_a_gpu_needs_nvml_to_be_watched(
    monkeypatch: pytest.MonkeyPatch, version: str | None, advised: bool
) -> None:
    monkeypatch.setattr(machine, "version", lambda package: version)
    facts = {"gpus": [{"name": "RTX 4090"}], "cpu_features": ["avx512_vnni"]}
    assert any("nvidia-ml-py" in line for line in doctor._advice(facts)) == advised
