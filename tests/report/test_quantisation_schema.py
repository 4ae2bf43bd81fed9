"""What the details of a `quantize` step may look like."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from optkit.report.quantisation_schema import Operator, Peak, Quantized, Rung


@pytest.mark.parametrize("key", ["tensor", "node", "name"])
def test_a_peak_is_of_a_tensor_or_a_node(key: str) -> None:
    peak = Peak.model_validate({key: "x", "value": 3})
    assert (peak.name, peak.value) == ("x", 3.0)
    assert Peak.model_validate_json(peak.model_dump_json()) == peak


def test_figures_are_finite() -> None:
    with pytest.raises(ValidationError):
        Peak(name="x", value=float("inf"))
    with pytest.raises(ValidationError):
        Operator(node="a", sqnr_db=float("nan"))


def test_a_gain_needs_both_ends() -> None:
    assert Rung(rung="qat", before_db=20.0, sqnr_db=21.5).gain_db == 1.5
    assert Rung(rung="calibration", sqnr_db=20.0).gain_db is None
    assert Rung(rung="qat", before_db=20.0).gain_db is None


@pytest.mark.parametrize(("target", "simulated"), [("onnxruntime", False), ("openvino", True), ("", False)])
def test_only_figures_of_another_runtime_are_simulated(target: str, simulated: bool) -> None:
    measured = (Operator(node="a", sqnr_db=20.0),)
    bare = Quantized(step="q", model="m", precision="int8", target=target)
    assert bare.model_copy(update={"sensitivity": measured}).simulated is simulated
    assert not bare.simulated, "there is no figure"
