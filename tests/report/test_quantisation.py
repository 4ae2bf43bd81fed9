"""The recovery ladder, sensitive operators and reasons for FP32: read, drawn and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Precision
from optkit.report.ladder import ladder_plots
from optkit.report.plots import Plot
from optkit.report.quantisation import MAX_BARS, operator_bars, reasons
from optkit.report.quantisation_schema import Operator, Quantized
from optkit.report.render import to_html, to_json, to_markdown
from optkit.report.schema import Report

from .run_folder import RunFolder, ladder, quantised, sixteen_bit
from .test_render import Page

HEADINGS = ("Recovery ladder", "Most sensitive operators", "operators in INT8", "left in FP32")


def _plot(report: Report) -> Plot:
    return ladder_plots(report)["int8"]


def _found(report: Report) -> Quantized:
    (found,) = report.quantized
    return found


def test_each_rung_starts_from_the_last_one_kept(climbed: Report) -> None:
    starts = [rung.before_db for rung in _found(climbed).ladder]
    assert starts == [None, 19.8, 19.8, 21.2, 24.3, 24.3]
    facts = {"params": 7, "target": "onnxruntime", "held_images": 100}
    assert _found(climbed).facts == facts, "what has a place is no fact"


def test_entries_count_beside_the_group_too(empty_run: RunFolder, climbed: Report) -> None:
    beside = quantised(empty_run, ladder())
    assert _found(beside) == _found(climbed)


def test_a_budget_that_was_missed_is_said(empty_run: RunFolder) -> None:
    details = ladder()
    details["budget"] = {"max_drop": None, "min_agreement": 0.995, "min_sqnr": None, "held": False}
    report = quantised(empty_run, details)
    assert _found(report).sentence.endswith("the budget does not hold.")
    words = " ".join(Page(to_html(report)).text.split())
    assert "Asked for on validation images: at least 99.5 % agreement: not held." in words
    layout = _plot(report).figure["layout"]
    assert layout["shapes"] == [], "no line: the plot shows decibels, the budget is a share"
    assert not [note for note in layout["annotations"] if "asked for" in note["text"]]


def test_the_worst_operators_are_bars(climbed: Report, empty_run: RunFolder) -> None:
    bars = operator_bars(_found(climbed))
    assert len(bars) == MAX_BARS == 25
    assert [bar.is_converted for bar in bars[:3]] == [False, False, True]
    assert bars[0].share == 1.0
    assert bars[5].share == pytest.approx(10**-0.3), "3 dB less harm is half the noise"
    assert "13 more are in report.json" in Page(to_html(climbed)).text
    values = [
        {"node": "a", "sqnr_db": None},
        {"node": "b", "sqnr_db": 9.0},
        {"node": "c", "sqnr_db": -4000.0},
    ]
    report = quantised(empty_run, {"sensitivity": values})
    assert [operator.node for operator in _found(report).sensitivity] == ["c", "b", "a"]
    assert [bar.operator.node for bar in operator_bars(_found(report))] == ["c", "b"]


def test_reasons_are_collapsed() -> None:
    operators = [Operator(node="a", op="Mul", reason="slow")]
    operators += [Operator(node=f"{index}", op=op, reason="none") for index, op in enumerate("xyx")]
    first, second = reasons([*operators, Operator(node="b")])[:2]
    assert (first.reason, first.n, first.ops) == ("none", 3, (("x", 2), ("y", 1)))
    assert second.reason == "slow"
    assert reasons([Operator(node="b")])[0].reason == "no reason was recorded"


def test_the_page_shows_all_of_it(climbed: Report) -> None:
    html = to_html(climbed)
    page = Page(html)
    words = " ".join(page.text.split())
    for expected in (*HEADINGS, "57 of 75", "47 Conv, 9 Add", "16 Sigmoid", "24.3 dB+3.1 dB"):
        assert expected in words, expected
    assert "Asked for on validation images: at most 0.5 points of top-1 lost, at least 24.0 dB: held" in words
    assert html.count('<i class="converted" style=') == 23
    assert html.count('<i class="left" style=') == 2
    assert html.count('style="width:100.0%"') == 1
    figures = [part for part in page.all("div") if part.get("role") == "img"]
    assert [part["aria-label"] for part in figures] == [_plot(climbed).alt]
    assert json.loads(page.scripts[0][1]).keys() == {"ladder-0"}


def test_names_from_outside_stay_text(climbed: Report) -> None:
    page = Page(to_html(climbed))
    assert len(page.scripts) == 3  # figures, plotly.js and our own
    assert "/conv_stem/<script>alert(4)</script>/" in page.text
    assert "<b>AdaRound</b>" in page.text
    assert "\\<b\\>AdaRound\\</b\\>" in to_markdown(climbed)


def test_without_a_ladder_nothing_of_it_is_drawn(empty_run: RunFolder) -> None:
    report = quantised(empty_run, {"quantization": {"target": "tensorrt"}})
    page = Page(to_html(report))
    assert not [heading for heading in HEADINGS if heading in page.text]
    assert "tensorrt" in page.text
    assert "Rung" not in to_markdown(report)
    assert json.loads(page.scripts[0][1]) == {}


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_sixteen_bits_are_not_called_integers(empty_run: RunFolder, precision: Precision) -> None:
    report = quantised(empty_run, {"quantization": sixteen_bit() | {"precision": precision}}, precision)
    found = _found(report)
    assert (found.converted, len(found.left)) == ({"Conv": 47, "Mul": 9}, 3)
    assert found.facts == {"params": 7, "target": "tensorrt", "images": 300}, "what has a place is no fact"
    name = precision.upper()
    words = " ".join(Page(to_html(report)).text.split())
    for expected in (
        f"56 of 59 operators in {name} (94.9 %)",
        "left in FP32",
        "it sums squares, which overflow first2 LpPool",
        "largest activation81 234 (/head/<b>y</b>)",
        "largest sum90 123 (/head/Gemm)",
        f"highest allowed in {name}8 188",
    ):
        assert expected in words, expected
    assert f"56 of 59 operators in {name}" in to_markdown(report)
    assert "integer" not in words.lower()
    for shown in (words, to_markdown(report)):
        assert f"{name} of onnx (simulated): on validation images 62.0 dB, 100.0 % agreement" in shown
        assert "Simulated by emulation: every result rounded to FP16." in shown


def test_a_model_without_sums_has_no_largest_one(empty_run: RunFolder) -> None:
    report = quantised(empty_run, sixteen_bit() | {"largest_sum": None}, Precision.FP16)
    words = Page(to_html(report)).text
    assert "largest activation" in words
    assert "largest sum" not in words


@pytest.mark.parametrize(
    ("target", "simulated"), [("onnxruntime", False), ("openvino", True), ("tensorrt", True)]
)
def test_figures_of_files_for_other_runtimes_are_called_simulated(
    empty_run: RunFolder, target: str, simulated: bool
) -> None:
    report = quantised(empty_run, ladder() | {"target": target})
    assert json.loads(to_json(report))["quantized"][0]["simulated"] is simulated
    for words in (_found(report).sentence, Page(to_html(report)).text, to_markdown(report)):
        assert ("simulated" in words) is simulated
    for words in (Page(to_html(report)).text, to_markdown(report)):
        assert ("ONNX Runtime computed SQNR" in words) is simulated


def test_the_speed_is_shown(climbed: Report, empty_run: RunFolder) -> None:
    expected = (
        "Speed: INT8 in onnxruntime is faster than FP32 in openvino, the fastest FP32 here: 4.10 ms against"
    )
    assert expected in " ".join(Page(to_html(climbed)).text.split())
    assert expected in to_markdown(climbed)
    start = "Before the ladder: INT8 begins at"
    assert f"{start} /<i>, the best of 2 places" in " ".join(Page(to_html(climbed)).text.split())
    assert start in to_markdown(climbed)
    engine = quantised(empty_run, ladder() | {"speed": None, "float_prefix": None})
    for words in (Page(to_html(engine)).text, to_markdown(engine)):
        assert "Speed:" not in words
        assert "Before the ladder" not in words


@pytest.mark.parametrize("set_aside", [True, False])
def test_only_images_that_were_set_aside_are_called_held_out(empty_run: RunFolder, set_aside: bool) -> None:
    report = quantised(empty_run, ladder() | {"set_aside": set_aside})
    html, figure = to_html(report), json.dumps(_plot(report).figure)
    for words in (Page(html).text, to_markdown(report), figure, _plot(report).alt):
        assert ("held-out" in words.lower()) is set_aside
    assert "Times include building and judging the file, not the checks on validation images." in html


def test_facts_that_say_nothing_are_left_out(empty_run: RunFolder) -> None:
    details = {"target": "tensorrt", "calibrator": "minmax", "sqnr_db_of_calibrators": {}}
    assert _found(quantised(empty_run, details, Precision.FP8)).facts == {
        "params": 7,
        "target": "tensorrt",
        "calibrator": "minmax",
    }


def test_markdown_has_the_ladder(climbed: Report) -> None:
    lines = to_markdown(climbed).splitlines()
    start = lines.index(
        "| Rung | Kept | SQNR, held-out | Agreement, held-out | SQNR, validation | Agreement, validation "
        "| Top-1, points | Time | Note |"
    )
    assert lines[start - 2].startswith("**int8**: INT8 of onnx: 25.0 dB on held-out images")
    assert lines[start + 3] == (
        "| equalisation | no | 17.1 dB | 95.2 % | – | – | – | 6.0 s "
        "| no pair of layers without a SiLU between them |"
    )
    assert "| bias correction | yes | 21.2 dB | 97.8 % | 20.6 dB | 97.4 % | −0.30 | 9.1 s | – |" in lines
    assert all(line.count("|") == 10 for line in lines[start : start + 8])


def test_json_has_the_ladder(climbed: Report) -> None:
    (found,) = json.loads(to_json(climbed))["quantized"]
    assert [rung["before_db"] for rung in found["ladder"]] == [None, 19.8, 19.8, 21.2, 24.3, 24.3]
    assert len(found["sensitivity"]) == 38
    assert found["budget"]["held"] is True
    assert found["validation"]["sqnr_db"] == 24.6
    assert found["speed"]["verdict"] == "faster"
    assert [one["chosen"] for one in found["float_prefix"]] == [False, True]
    assert (found["target"], found["simulated"], found["set_aside"]) == ("onnxruntime", False, True)
    assert Report.model_validate_json(to_json(climbed)) == climbed


@pytest.mark.parametrize(
    "details",
    [
        {"ladder": 3},
        {"sensitivity": [{"op": "Conv"}]},
        {"ladder": [{"rung": "x", "sqnr_db": "inf"}]},
        {"largest_activation": 81234.5},
    ],
)
def test_details_of_another_version_are_an_error(empty_run: RunFolder, details: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="int8"):
        quantised(empty_run, details)
