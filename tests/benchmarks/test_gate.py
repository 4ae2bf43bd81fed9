"""The simulation runs, and the gate's intervals keep what they promise on a part of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import gate

    yield gate
    for name in [name for name in sys.modules if name.split(".")[0] in ("gate", "gate_parts")]:
        sys.modules.pop(name)


def test_the_intervals_keep_their_promises(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate = script.simulate_percentiles
    monkeypatch.setattr(script, "simulate_percentiles", lambda draws, seed: simulate(60, seed))  # quicker
    out = tmp_path / "result.json"
    options = ["--draws", "1000", "--images", "500", "--rounds", "20", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gate.py", *options])
    script.main()
    result = json.loads(out.read_text())
    cells = [cell for cell in result["drop"]["cells"] if cell["images"] * cell["flips"] >= 5]
    assert len(cells) == 25
    drawn = 0.03  # of 1000 draws: four standard errors
    assert all(0.93 - drawn <= cell["coverage"] <= 0.97 + drawn for cell in cells)
    assert all(cell["wrong_pass"] <= 0.05 for cell in result["drop"]["cells"])
    few = {method: groups["fewer than 5 flips"] for method, groups in result["drop"]["summary"].items()}
    assert few["Wald"]["below"] > few["Tango's score"]["below"] == 0
    wrong = [one["wrong"] for one in result["ratio"] if one["method"] == "paired_ratio"]
    assert sum(wrong) / len(wrong) <= 0.05
    assert {one["percentile"] for one in result["percentiles"]} == {"p50", "p90", "p99"}
    # 60 draws know 95 % to within 3; intervals that took calls for independent would hold the truth in half of them.
    assert all(one["coverage"] >= 0.85 for one in result["percentiles"] if one["percentile"] != "p99")
    assert all(one["wrong_pass"] <= 0.05 for one in result["agreement"])
    assert len(result["demands"]) == 8
    assert all(one["met"] and one["worst"] for one in result["demands"].values())
