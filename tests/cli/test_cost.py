"""What `optkit cost` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import optkit


def test_activations_bytes_and_intensity_in_total_and_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short, long = optkit("cost", "lite0", "--size", "32"), optkit("cost", "lite0", "--size", "32", "--layers")
    counted = optkit("cost", "lite0", "--size", "32", "--json").json
    title = f"{counted['activations'] / 1e6:.4g} M activations, {counted['bytes'] / 1e6:.4g} MB"
    for text in (title, "MACs/byte", "of weights", f"{counted['macs_per_byte']:.3g} MACs per byte"):
        assert text in short.out
    stem = counted["layers"][0]
    assert stem["bytes"] == stem["weight_bytes"] + stem["activation_bytes"]
    row = next(line for line in long.out.splitlines() if line.lstrip().startswith("conv_stem"))
    assert f"{stem['activations']:,}" in row
    assert f"{stem['bytes'] / 1e3:,.1f}" in row
    assert "fp32" in row
