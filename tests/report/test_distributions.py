"""Plots of latencies, rounds and the machine."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from optkit.report.collect import collect
from optkit.report.distributions import constants, distribution_plots, trace_gaps
from optkit.report.plots import Plot
from optkit.report.render import to_html

from .bench_folder import MODELS, full_bench
from .run_folder import RunFolder
from .test_render import Page


@pytest.fixture
def plots(empty_run: RunFolder) -> dict[str, Plot]:
    full_bench(empty_run)
    return {plot.id: plot for plot in distribution_plots(collect(empty_run.path).benches)}


def test_every_candidate_has_a_curve(plots: dict[str, Plot]) -> None:
    assert list(plots) == ["latencies-0-1", "rounds-0-1", "trace-0"]
    for id in ("latencies-0-1", "rounds-0-1"):
        figure = go.Figure(plots[id].figure)
        assert [trace.name for trace in figure.data] == [f"{name} in {MODELS[name][0]}" for name in MODELS]
        assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == len(MODELS)
    spread = go.Figure(plots["latencies-0-1"].figure)
    assert spread.data[0].y[-1] == 100
    assert len(spread.data[0].x) < 80
    assert "fp32 in onnxruntime: 310 calls, 4.13 to" in plots["latencies-0-1"].alt
    assert "medians of" in plots["rounds-0-1"].alt


def test_the_machine_has_a_panel_for_each_column_that_was_read(plots: dict[str, Plot]) -> None:
    figure = go.Figure(plots["trace-0"].figure)
    assert [trace.name for trace in figure.data] == ["runnable tasks", "clock, MHz"]
    assert [trace.yaxis for trace in figure.data] == ["y", "y2"]
    domains = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert domains[0][0] > domains[1][1]
    assert (
        plots["trace-0"].alt
        == "The machine while bench ran: runnable tasks from 1.80 to 2.20, clock, MHz from 2\u202f783 to 2\u202f900."
    )


def test_what_could_not_be_read_says_why(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    report = collect(empty_run.path)
    gaps = [("°C", "/sys/class/thermal <is> empty"), ("GPU clock, MHz and GPU, W", "no GPU")]
    assert trace_gaps(report.benches) == gaps
    assert constants(report.benches) == ["cgroup throttles 0"]
    text = " ".join(Page(to_html(report)).text.split())
    assert "Did not change: cgroup throttles 0." in text
    assert "GPU clock, MHz and GPU, W (no GPU)" in text


def test_a_trace_without_seconds_or_of_ragged_rows_is_left_out(empty_run: RunFolder) -> None:
    full_bench(empty_run, trace={"columns": ["load"], "rows": [[1.0], [2.0]], "gaps": {}})
    ids = [plot.id for plot in distribution_plots(collect(empty_run.path).benches)]
    assert ids == ["latencies-0-1", "rounds-0-1"]


def test_names_from_outside_cannot_become_markup(empty_run: RunFolder) -> None:
    full_bench(empty_run)

    def rename(manifest: dict) -> None:  # type: ignore[type-arg]
        for found in manifest["measurements"]:
            found["conditions"]["model"] = "<a href='x'>"

    empty_run.edit("bench", rename)
    assert all("<a" not in str(plot.figure) for plot in distribution_plots(collect(empty_run.path).benches))
