"""The recovery ladder, sensitive operators and reasons for floating point: read, drawn and written."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format, Precision
from optkit.report.collect import collect
from optkit.report.ladder import ladder_plots
from optkit.report.plots import COLOURS, Plot
from optkit.report.quantisation import MAX_BARS, operator_bars, reasons
from optkit.report.render import to_html, to_json, to_markdown
from optkit.report.schema import Operator, Quantized, Report

from .run_folder import RunFolder, ladder
from .test_render import Page

HEADINGS = ("Recovery ladder", "Most sensitive operators", "integer operators", "left in floating point")


def _report(run: RunFolder, details: dict[str, Any], precision: Precision = Precision.INT8) -> Report:
    onnx = run.add("onnx", "export", Format.ONNX, size=1)
    run.add(
        "int8",
        "quantize",
        Format.ONNX,
        size=1,
        precision=precision,
        inputs={"model": [onnx]},
        metrics={"params": 7},
        details=details,
    )
    return collect(run.path)


@pytest.fixture
def climbed(empty_run: RunFolder) -> Report:
    return _report(empty_run, {"quantization": ladder()})


def _plot(report: Report) -> Plot:
    return ladder_plots(report)["int8"]


def _found(report: Report) -> Quantized:
    (found,) = report.quantized
    return found


def test_each_rung_starts_from_the_last_one_kept(climbed: Report) -> None:
    starts = [rung.before_db for rung in _found(climbed).ladder]
    assert starts == [None, 19.8, 19.8, 21.2, 24.3, 24.3]
    assert _found(climbed).facts == {"params": 7, "target": "onnxruntime"}, "what has a place is no fact"


def test_entries_count_beside_the_group_too(empty_run: RunFolder, climbed: Report) -> None:
    beside = _report(empty_run, ladder())
    assert _found(beside) == _found(climbed)


def test_the_sentence_holds_measured_figures_only(climbed: Report, empty_run: RunFolder) -> None:
    assert _found(climbed).sentence == (
        "INT8 of onnx: 25.0 dB after 4 of 6 rungs; rounding bought most, 3.1 dB; the budget holds."
    )
    details = ladder()
    alone = details | {"ladder": details["ladder"][:1], "budget": None}
    assert _found(_report(empty_run, alone)).sentence == "INT8 of onnx: 19.8 dB."
    failed = {"ladder": [{"rung": "calibration", "kept": True, "sqnr_db": None}]}
    assert _found(_report(empty_run, failed)).sentence == ""


def test_a_budget_that_was_missed_is_said(empty_run: RunFolder) -> None:
    details = ladder()
    details["budget"] = {"max_drop": None, "min_agreement": 0.995, "min_sqnr": None, "held": False}
    report = _report(empty_run, details)
    assert _found(report).sentence.endswith("the budget does not hold.")
    words = " ".join(Page(to_html(report)).text.split())
    assert "Asked for: at least 99.5 % agreement: not held." in words
    layout = _plot(report).figure["layout"]
    assert layout["shapes"] == [], "no line: the plot shows decibels, the budget is a share"
    assert not [note for note in layout["annotations"] if "asked for" in note["text"]]


def test_the_waterfall_steps_where_a_rung_was_kept(climbed: Report) -> None:
    plot = _plot(climbed)
    figure = go.Figure(plot.figure)  # raises on anything plotly does not know
    level, kept, kept_marks, discarded, discarded_marks = figure.data
    assert list(kept.y) == [0, 2, 3, 5]
    assert list(kept.base) == [19.8, 19.8, 21.2, 24.3]
    assert list(kept.x) == pytest.approx([0.0, 1.4, 3.1, 0.7])
    assert list(kept_marks.x) == [19.8, 21.2, 24.3, 25.0]
    assert kept.marker.color == COLOURS["int8"]
    assert list(discarded.y) == [1, 4]
    assert list(discarded.base) == [19.8, 24.3]
    assert list(discarded_marks.x) == [17.1, 24.4]
    assert discarded.marker.color == "rgba(0,0,0,0)"
    assert discarded_marks.marker.symbol == "circle-open"
    assert list(level.x)[:4] == [19.8, 19.8, None, 21.2]
    assert list(level.y)[:3] == [0, 2, None], "down to the next kept rung, past the discarded one"
    assert [shape.x0 for shape in figure.layout.shapes] == [24.0]
    notes = [note.text for note in figure.layout.annotations]
    assert notes[:6] == ["<b>19.8</b>", "17.1", "<b>21.2</b>", "<b>24.3</b>", "24.4", "<b>25.0</b>"]
    assert notes[6:] == ["asked for: 24.0 dB"]
    low, high = figure.layout.xaxis.range
    assert low < 17.1
    assert high > 25.0
    assert "equalisation: 17.1 dB (−2.7 dB), discarded; bias correction: 21.2 dB (+1.4 dB), kept" in plot.alt


def test_hovering_tells_what_the_table_tells(climbed: Report) -> None:
    marks = _plot(climbed).figure["data"][2]
    words = marks["customdata"][2][0]
    expected = ("<b>rounding</b>", "24.3 dB (+3.1 dB), kept", "98.8 %", "−0.10 points", "1 min 36 s")
    assert all(part in words for part in expected)
    assert "&lt;b&gt;AdaRound&lt;/b&gt;" in words


def test_a_rung_that_was_not_measured_has_no_mark(empty_run: RunFolder) -> None:
    details = ladder()
    details["ladder"][1]["sqnr_db"] = None
    report = _report(empty_run, details)
    figure = _plot(report).figure
    assert figure["data"][4]["y"] == [4]
    assert figure["layout"]["annotations"][1]["text"] == "–"
    assert "equalisation: not measured, discarded" in _plot(report).alt


def test_one_rung_is_a_table_without_a_plot(empty_run: RunFolder) -> None:
    report = _report(empty_run, {"ladder": ladder()["ladder"][:1]})
    assert ladder_plots(report) == {}
    assert "14.2 s" in Page(to_html(report)).text


def test_the_worst_operators_are_bars(climbed: Report, empty_run: RunFolder) -> None:
    bars = operator_bars(_found(climbed))
    assert len(bars) == MAX_BARS == 25
    assert [bar.is_integer for bar in bars[:3]] == [False, False, True]
    assert bars[0].share == 1.0
    assert bars[5].share == pytest.approx(10**-0.3), "3 dB less harm is half the noise"
    assert "13 more are in report.json" in Page(to_html(climbed)).text
    values = [
        {"node": "a", "sqnr_db": None},
        {"node": "b", "sqnr_db": 9.0},
        {"node": "c", "sqnr_db": -4000.0},
    ]
    report = _report(empty_run, {"sensitivity": values})
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
    assert "Asked for: at most 0.5 points of top-1 lost, at least 24.0 dB: held" in words
    assert html.count('<i class="integer" style=') == 23
    assert html.count('<i class="floating" style=') == 2
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


def test_a_rung_with_a_name_from_outside_is_short_and_escaped(empty_run: RunFolder) -> None:
    details = ladder()
    details["ladder"][1]["rung"] = "<i>no</i> " + 30 * "long "
    plot = _plot(_report(empty_run, details))
    name = plot.figure["layout"]["yaxis"]["ticktext"][1]
    assert name.startswith("&lt;i&gt;no&lt;/i&gt;")
    assert name.endswith("…")
    assert "<i>" not in plot.figure["data"][3]["customdata"][0][0]


def test_without_a_ladder_nothing_of_it_is_drawn(empty_run: RunFolder) -> None:
    report = _report(empty_run, {"quantization": {"target": "tensorrt"}})
    page = Page(to_html(report))
    assert not [heading for heading in HEADINGS if heading in page.text]
    assert "tensorrt" in page.text
    assert "Rung" not in to_markdown(report)
    assert json.loads(page.scripts[0][1]) == {}


def test_operators_that_sixteen_bits_cannot_hold(empty_run: RunFolder) -> None:
    kept = [{"node": "/head/Mul", "op": "Mul", "reason": "reaches 81234"}]
    details = {"sixteen_bit": {"kept_fp32": kept, "largest_activation": 81234.5}}
    report = _report(empty_run, details, Precision.FP16)
    words = " ".join(Page(to_html(report)).text.split())
    for expected in ("FP16 of onnx", "kept in FP32", "reaches 81234", "/head/Mul", "largest activation"):
        assert expected in words
    assert "integer operators" not in words
    assert _found(report).largest_activation == 81234.5


def test_markdown_has_the_ladder(climbed: Report) -> None:
    lines = to_markdown(climbed).splitlines()
    start = lines.index("| Rung | Kept | SQNR | Agreement | Top-1, points | Time | Note |")
    assert lines[start - 2].startswith("**int8**: INT8 of onnx: 25.0 dB")
    assert lines[start + 3] == (
        "| equalisation | no | 17.1 dB | 95.2 % | – | 6.0 s | no pair of layers without a SiLU between them |"
    )
    assert all(line.count("|") == 8 for line in lines[start : start + 8])


def test_json_has_the_ladder(climbed: Report) -> None:
    (found,) = json.loads(to_json(climbed))["quantized"]
    assert [rung["before_db"] for rung in found["ladder"]] == [None, 19.8, 19.8, 21.2, 24.3, 24.3]
    assert len(found["sensitivity"]) == 38
    assert found["budget"]["held"] is True
    assert Report.model_validate_json(to_json(climbed)) == climbed


@pytest.mark.parametrize(
    "details",
    [{"ladder": 3}, {"sensitivity": [{"op": "Conv"}]}, {"ladder": [{"rung": "x", "sqnr_db": "inf"}]}],
)
def test_details_of_another_version_are_an_error(empty_run: RunFolder, details: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="int8"):
        _report(empty_run, details)
