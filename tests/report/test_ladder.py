"""The plot of the recovery ladder."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from optkit.report.ladder import ladder_plots
from optkit.report.plots import COLOURS, Plot
from optkit.report.render import to_html
from optkit.report.schema import Report

from .run_folder import RunFolder, ladder, quantised
from .test_render import Page


def _plot(report: Report) -> Plot:
    return ladder_plots(report)["int8"]


def test_the_waterfall_steps_where_a_rung_was_kept(climbed: Report) -> None:
    plot = _plot(climbed)
    figure = go.Figure(plot.figure)  # raises on anything plotly does not know
    level, kept, kept_marks, discarded, discarded_marks, _ = figure.data
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
    assert notes[:6] == ["<b>19.8</b>", "19.1", "17.1", "<b>21.2</b>", "20.6", "<b>24.3</b>"]
    assert notes[-1] == "asked for: 24.0 dB"
    low, high = figure.layout.xaxis.range
    assert low < 17.1
    assert high > 25.0
    assert (
        "equalisation: 17.1 dB (−2.7 dB), discarded; bias correction: 21.2 dB (+1.4 dB), kept, 20.6 dB on "
        "validation images" in plot.alt
    )


def test_the_line_of_the_budget_has_the_colour_of_what_it_is_compared_with(climbed: Report) -> None:
    figure = _plot(climbed).figure
    checked = figure["data"][-1]
    assert checked["name"] == "validation images"
    assert checked["x"] == [19.1, 20.6, 23.6, 24.6], "of the rungs that were kept"
    assert [int(place) for place in checked["y"]] == [0, 2, 3, 5], "each below its rung"
    (line,) = figure["layout"]["shapes"]
    notes = [note for note in figure["layout"]["annotations"] if "asked for" in note["text"]]
    colours = {line["line"]["color"], checked["marker"]["color"], notes[0]["font"]["color"]}
    assert len(colours) == 1
    low, high = figure["layout"]["xaxis"]["range"]
    assert low < 17.1 < 25.0 < high


def test_without_validation_figures_there_are_no_marks_of_them(empty_run: RunFolder) -> None:
    details = ladder()
    for rung in details["ladder"]:
        del rung["validation"]
    plot = _plot(quantised(empty_run, details))
    assert "validation images" not in [trace.get("name") for trace in plot.figure["data"]]
    assert "validation" not in plot.alt


def test_hovering_tells_what_the_table_tells(climbed: Report) -> None:
    marks = _plot(climbed).figure["data"][2]
    words = marks["customdata"][2][0]
    expected = (
        "<b>rounding</b>",
        "24.3 dB (+3.1 dB), kept, 23.6 dB on validation images",
        "98.8 % on held-out images",
        "98.4 % on validation images",
        "−0.10 points",
        "1 min 36 s",
    )
    assert all(part in words for part in expected)
    assert "&lt;b&gt;AdaRound&lt;/b&gt;" in words


def test_a_rung_that_was_not_measured_has_no_mark(empty_run: RunFolder) -> None:
    details = ladder()
    details["ladder"][1]["sqnr_db"] = None
    report = quantised(empty_run, details)
    figure = _plot(report).figure
    assert figure["data"][4]["y"] == [4]
    assert figure["layout"]["annotations"][2]["text"] == "–"
    assert "equalisation: not measured, discarded" in _plot(report).alt


def test_one_rung_is_a_table_without_a_plot(empty_run: RunFolder) -> None:
    report = quantised(empty_run, {"ladder": ladder()["ladder"][:1]})
    assert ladder_plots(report) == {}
    assert "14.2 s" in Page(to_html(report)).text


def test_a_rung_with_a_name_from_outside_is_short_and_escaped(empty_run: RunFolder) -> None:
    details = ladder()
    details["ladder"][1]["rung"] = "<i>no</i> " + 30 * "long "
    plot = _plot(quantised(empty_run, details))
    name = plot.figure["layout"]["yaxis"]["ticktext"][1]
    assert name.startswith("&lt;i&gt;no&lt;/i&gt;")
    assert name.endswith("…")
    assert "<i>" not in plot.figure["data"][3]["customdata"][0][0]
