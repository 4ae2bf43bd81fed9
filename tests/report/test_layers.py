"""Costs of layers, and the roofline."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from optkit.report.bench_schema import Layer, LayerCosts
from optkit.report.collect import collect
from optkit.report.layers import dearest, layers_sentence, layers_table, roofline_plots
from optkit.report.render import to_html

from .bench_folder import EVIL, LAYERS, full_bench
from .run_folder import RunFolder
from .test_render import Page


def test_the_dearest_layers_are_bars_of_their_time_and_limit() -> None:
    layers = [Layer(name=str(ms), ms=ms, limit_ms=ms / 4) for ms in (1.0, 4.0, 2.0)] + [Layer(name="?")]
    bars = dearest(LayerCosts(name="m", layers=tuple(layers)))
    assert [(bar.layer.name, bar.length, bar.limit) for bar in bars] == [
        ("4.0", 1.0, 0.25),
        ("2.0", 0.5, 0.125),
        ("1.0", 0.25, 0.0625),
    ]
    assert dearest(LayerCosts(name="m")) == []


def test_words_and_table(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    found = collect(empty_run.path).benches[0].layers[0]
    words = layers_sentence(found)
    assert words == (
        "onnxruntime, batch 1; 4.20 ms in 40 layers; 0.210 ms of it belong to none of them; "
        "the machine's ceilings allow 1.89 ms; 45.0 % of the limit reached"
    )  # the bench's own figures
    table = layers_table(found)
    assert len(table.rows) == 40
    assert table.rows[0][0].text == EVIL
    assert [column.words for column in table.columns][:4] == ["Layer", "Type", "ms", "Of the total"]
    assert [cell.text for cell in table.rows[-1]][4:] == ["", "", "", "", "", "", "not counted", ""]
    assert table.rows[0][-1].text == "FP32"
    page = " ".join(Page(to_html(collect(empty_run.path))).text.split())
    assert "Above 100 % of its limit, a layer found its data in a cache." in page
    assert "no kernel of the runtime stands for them: /fused/<i>0</i>/Conv, " in page
    assert "/fused/<i>11</i>/Conv and 2 more, named in report.json." in page
    assert page.count("not counted") == 2  # models


def test_figures_that_a_runtime_does_not_tell_leave_their_columns_out() -> None:
    table = layers_table(LayerCosts(name="m", layers=(Layer(name="a", ms=1.0),)))
    assert [column.words for column in table.columns] == ["Layer", "ms"]


def test_the_roofline_has_both_ceilings_and_every_layer(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    report = collect(empty_run.path)
    (plot,) = roofline_plots(report.benches, report.rows)
    figure = go.Figure(plot.figure)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    traces = {trace.name: trace for trace in figure.data}
    ceiling = traces["FP32 ceiling, measured"]
    assert ceiling.x[1] == pytest.approx(1.9e11 / 2.3e10)  # where memory and arithmetic meet
    assert ceiling.y == pytest.approx((ceiling.x[0] * 2.3e10, 1.9e11, 1.9e11))
    int8 = traces["int8 in onnxruntime"]
    assert len(int8.x) == LAYERS  # what is not counted has no place in it
    layer = report.benches[0].layers[1].layers[3]
    assert int8.y[3] == pytest.approx(layer.macs / layer.ms * 1000)
    assert "<script" not in str(plot.figure)
    assert (
        "measured ceilings: FP32 190 GMACs/s, INT8 640 GMACs/s, memory 23.0 GB/s (cpu, 2 threads)" in plot.alt
    )


def test_layers_of_another_device_are_not_under_these_ceilings(empty_run: RunFolder) -> None:
    full_bench(empty_run)

    def move(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["details"]["rows"][2]["facts"]["device"] = "cuda:0"

    empty_run.edit("bench", move)
    report = collect(empty_run.path)
    (plot,) = roofline_plots(report.benches, report.rows)
    names = [trace["name"] for trace in plot.figure["data"]]
    assert "fp32 in onnxruntime" in names
    assert "int8 in onnxruntime" not in names


def test_without_ceilings_there_is_no_roofline(empty_run: RunFolder) -> None:
    full_bench(empty_run, roofline=None)
    report = collect(empty_run.path)
    assert roofline_plots(report.benches, report.rows) == []
    assert "The dearest 15 of 40 layers" in Page(to_html(report)).text
