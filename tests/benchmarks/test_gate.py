"""The simulation runs, and the gate's intervals keep what they promise on a part of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gate.py"


def test_the_intervals_keep_their_promises(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ["--draws", "1000", "--images", "500", "--rounds", "20", "--out", str(out)]
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True, stdout=subprocess.DEVNULL)
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
    assert len(result["demands"]) == 4
