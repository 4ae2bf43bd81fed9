"""The benchmarks of `optkit bench`: their networks, their summaries, and a short run."""

from __future__ import annotations

import json
import sys

import onnx
import pytest

from benchmarks import bench_parity, bench_verdicts
from optkit.measure.onnx_cost import onnx_cost
from optkit.measure.statistics import Ratio
from tests.conftest import small_classifier


def test_the_second_network_has_a_tenth_more_of_the_same_work(tmp_path):
    macs = []
    for layers in (bench_verdicts.LAYERS, bench_verdicts.MORE):
        bench_verdicts.network(layers, tmp_path / "n.onnx")
        cost = onnx_cost(onnx.load(tmp_path / "n.onnx"), bench_verdicts.SIDE)
        macs.append(sum(layer.macs for layer in cost.layers if layer.name.startswith("conv")))
    assert macs[1] / macs[0] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("name", "verdicts", "share", "holds"),
    [
        ("A/A", ["cannot tell"] * 39 + ["faster"], 1 / 40, True),
        ("A/A", ["cannot tell"] * 37 + ["faster", "slower", "slower"], 3 / 40, False),
        ("A/B", ["slower"] * 37 + ["cannot tell"] * 3, 37 / 40, True),
        ("A/B", ["slower"] * 35 + ["faster"] * 5, 35 / 40, False),
    ],
)
def test_a_summary_counts_what_is_wrong_or_found(name, verdicts, share, holds):
    runs = [{"verdict": verdict, "ratio": 1.0, "wall_s": 12.0} for verdict in verdicts]
    found = bench_verdicts.summary(name, runs)
    assert found["share"] == pytest.approx(share)
    assert found["holds"] is holds
    if name == "A/B":
        assert not bench_verdicts.summary(name, [*runs, {**runs[0], "wall_s": 61.0}])["holds"]


def test_a_short_run(tmp_path, monkeypatch):
    out = tmp_path / "verdicts.json"
    arguments = ["--repetitions", "1", "--seconds", "0.2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_verdicts.py", *arguments])
    bench_verdicts.main()
    found = json.loads(out.read_text())
    assert found["runs"]["A/B"][0]["ratio"] > 0
    assert set(found["summaries"]) == {"A/A", "A/B"}


def test_parity_compares_medians_of_rounds(tmp_path):
    rounds = {"ours": [1.01, 1.0, 1.02, 1.01, 1.01, 1.0, 1.02, 1.01], "theirs": [1.0] * 8}
    assert bench_parity.compare(rounds, "ours", "theirs")["within_3_percent"] == "pass"
    rounds["ours"] = [1.05] * 8
    assert bench_parity.compare(rounds, "ours", "theirs")["within_3_percent"] == "fail"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "expected"),
    [
        (1.01, 0.98, 1.029, "pass"),
        (1.018, 0.994, 1.043, "cannot tell"),
        (0.98, 0.96, 1.0, "cannot tell"),
        (1.04, 1.02, 1.06, "fail"),
        (0.96, 0.94, 0.98, "fail"),
    ],
)
def test_parity_is_that_of_the_whole_interval(ratio, low, high, expected):
    assert bench_parity.within(Ratio(ratio, low, high)) == expected


def test_the_other_tools_are_really_run(tmp_path):
    small_classifier(tmp_path / "m.onnx")
    assert bench_parity.loop(tmp_path / "m.onnx", 0.05, 1, spinning=False) > 0
    pytest.importorskip("openvino")
    assert bench_parity.benchmark_app_ms(tmp_path / "m.onnx", 1, 1) > 0
