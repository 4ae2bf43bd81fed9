"""Training curves are valid plotly and show what the history holds."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.curves import training_plots

from .run_folder import RunFolder


def test_every_curve_of_a_history_is_drawn(tutorial: RunFolder) -> None:
    plot, _ = training_plots(collect(tutorial.path))
    figure = go.Figure(plot.figure)  # raises on anything plotly does not know
    words = [trace.hovertemplate.split("<extra>")[1].split("<")[0] for trace in figure.data]
    assert words == [
        "training loss",
        "validation loss",
        "training top-1",
        "validation top-1",
        "learning rate",
    ]
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2", "y2", "y3"]
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "training",
        "validation",
        "learning rate",
    ]
    axes = (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3)
    assert axes[0].domain[0] > axes[1].domain[1] > axes[1].domain[0] > axes[2].domain[1]
    assert figure.layout.xaxis.anchor == "y3"
    assert [note.text for note in figure.layout.annotations] == ["head", "blocks"]
    assert [shape.x0 for shape in figure.layout.shapes] == [3.5]
    assert "learning rate from 0.001 to 0.0001" in plot.alt


def test_rates_over_decades_have_a_logarithmic_axis(empty_run: RunFolder) -> None:
    history = tuple({"epoch": e, "phase": "all", "loss": 1.0, "lr": 10.0**-e} for e in range(1, 9))
    empty_run.add("student", "finetune", Format.TORCH, size=1, history=history)
    (plot,) = training_plots(collect(empty_run.path))
    assert plot.figure["layout"]["yaxis2"]["type"] == "log"
    assert plot.figure["layout"]["yaxis2"]["dtick"] == 3, "seven decades, three ticks"


def test_many_phases_are_borders_without_names(empty_run: RunFolder) -> None:
    history = tuple({"epoch": 0, "phase": f"phase {index}", "loss": 1.0} for index in range(9))
    empty_run.add("student", "finetune", Format.TORCH, size=1, history=history)
    (plot,) = training_plots(collect(empty_run.path))
    assert plot.figure["layout"]["annotations"] == []
    assert len(plot.figure["layout"]["shapes"]) == 8


def test_the_finder_marks_its_suggestion(tutorial: RunFolder) -> None:
    _, plot = training_plots(collect(tutorial.path))
    figure = go.Figure(plot.figure)
    assert len(figure.data[0].x) == 60
    assert figure.layout.xaxis.type == "log"
    assert [shape.x0 for shape in figure.layout.shapes] == [1.2e-3]
    assert figure.layout.yaxis.range[1] < max(figure.data[0].y), "the diverging end is cut off"
    assert "suggested: 0.0012" in plot.alt


def test_a_finder_without_a_curve_is_left_out(empty_run: RunFolder) -> None:
    for index, found in enumerate(({}, {"lr": 1, "loss": 2}, {"lr": [1e-3], "loss": [1.0]}, 3)):
        empty_run.add(f"m{index}", "finetune", Format.TORCH, size=1, details={"lr_finder": found})
    assert training_plots(collect(empty_run.path)) == []


def test_training_plots_tolerate_missing_fields(empty_run: RunFolder) -> None:
    history: tuple[dict[str, Any], ...] = (
        {"epoch": 0, "phase": "head", "loss": 2.0},
        {"epoch": 0, "phase": "<i>blocks</i>", "loss": 1.0, "val_top1": 0.5},
        {"epoch": 1, "phase": "<i>blocks</i>", "loss": None, "val_top1": 0.75, "note": "x"},
    )
    empty_run.add("student", "distill", Format.TORCH, size=1, history=history)
    empty_run.add("odd", "distill", Format.TORCH, size=1, history=({"epoch": 0, "other": 1},))
    (plot,) = training_plots(collect(empty_run.path))
    figure = go.Figure(plot.figure)
    loss, top1 = figure.data
    assert list(loss.x) == [1, 2, 3]
    assert list(loss.y) == [2.0, 1.0, None]
    assert list(top1.y) == [None, 50.0, 75.0]
    assert [note.text for note in figure.layout.annotations] == ["head", "&lt;i&gt;blocks&lt;/i&gt;"]
    assert len(figure.layout.shapes) == 1
    assert "validation top-1 from 50.0 % to 75.0 %" in plot.alt
