"""Figures are valid plotly, show what was measured, and let no HTML in."""

from __future__ import annotations

import plotly.graph_objects as go

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.labels import label_places
from optkit.report.lineage import lineage
from optkit.report.plots import pareto_plots

from .run_folder import RunFolder, bench_row, latency


def test_pareto_plot_shows_every_timed_row(run: RunFolder) -> None:
    (plot,) = pareto_plots(collect(run.path).rows)
    figure = go.Figure(plot.figure)  # raises on anything plotly does not know
    points = {name for trace in figure.data if trace.text for name in trace.text}
    assert points == {"teacher", "student", "pruned", "onnx", "int8"}
    assert figure.layout.xaxis.type == "log"  # 1.6 to 41 ms
    front = next(trace for trace in figure.data if trace.name == "Pareto front")
    assert list(front.x) == [1.63, 3.42, 22.8, 41.3]
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if trace.text}
    assert symbols["FP32 in pytorch"] != symbols["FP32 in onnxruntime"]
    int8 = next(trace for trace in figure.data if trace.name == "INT8 in onnxruntime")
    assert round(int8.error_y.array[0], 2) == 1.27
    assert "int8 in onnxruntime: 1.63 ms, 97.2 % (on the Pareto front)" in plot.alt


def test_each_batch_has_its_own_plot(empty_run: RunFolder) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=1)
    rows = [bench_row("m", key, batch=batch, latency_ms=latency(batch), top1=0.9) for batch in (8, 1)]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    plots = pareto_plots(collect(empty_run.path).rows)
    assert [plot.id for plot in plots] == ["pareto-1", "pareto-8"]
    assert plots[0].figure["layout"]["xaxis"]["type"] == "linear"


def test_names_from_outside_cannot_become_markup(empty_run: RunFolder) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=1)
    rows = [bench_row('<a href="http://evil">x</a>', key, latency_ms=latency(1.0), top1=0.9)]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    (plot,) = pareto_plots(collect(empty_run.path).rows)
    assert "<a" not in str(plot.figure)


def test_labels_keep_clear_of_each_other(empty_run: RunFolder) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=1)
    near = [bench_row(f"model{i}", key, latency_ms=latency(5 + 0.1 * i), top1=0.9) for i in range(3)]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": near})
    rows = list(collect(empty_run.path).rows)
    assert len(set(label_places(rows, [0.0, 10.0], logarithmic=False))) == 3


def test_lineage_draws_an_arc_for_every_edge(run: RunFolder) -> None:
    drawing = lineage(collect(run.path).steps)
    assert len(drawing.nodes) == 7
    assert len([arc for arc, measures in drawing.arcs if not measures]) == 5
    assert len([arc for arc, measures in drawing.arcs if measures]) == 6
    heights = [node.y for node in drawing.nodes]
    assert heights == sorted(heights)
    assert heights[-1] < drawing.height
    assert "; onnx from pruned; int8 from onnx; " in drawing.alt
