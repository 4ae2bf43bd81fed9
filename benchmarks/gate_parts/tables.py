"""What was simulated, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gate_parts.agreement import Share
from gate_parts.demands import Demand
from gate_parts.drop import DROP_METHODS, Cell, summarise
from gate_parts.latency import NOISES, RATIO_METHODS, Quantile, Rounds


def show_drop(cells: Sequence[Cell], console: Console) -> None:
    """A line for each method and number of flips."""
    columns = (
        "interval",
        "truths",
        "cells",
        "within 93–97 %",
        "below",
        "above",
        "coverage",
        "wrong pass: mean, most",
        "width, points",
    )
    table = Table(*columns, title="drop of top-1: 95 % intervals, and gates whose limit is the true drop")
    for method in DROP_METHODS:
        for name, group in summarise(cells, method).items():
            table.add_row(
                method,
                name,
                *(f"{group[key]:.0f}" for key in ("cells", "within", "below", "above")),
                f"{100 * group['lowest']:.1f}–{100 * group['highest']:.1f} %",
                f"{100 * group['wrong_pass_mean']:.1f} %, {100 * group['wrong_pass_most']:.1f} %",
                f"{group['points_wide']:.2f}",
            )
    console.print(table)


def show_ratio(found: Sequence[Rounds], console: Console) -> None:
    """A column for each kind of noise."""
    table = Table(
        "interval", "rounds", *NOISES, title="a model against itself: % called faster or slower (width, %)"
    )
    for method in RATIO_METHODS:
        for n in dict.fromkeys(one.rounds for one in found):
            own = [one for one in found if (one.method, one.rounds) == (method, n)]
            table.add_row(method, str(n), *(f"{100 * one.wrong:.1f} ({100 * one.width:.1f})" for one in own))
    console.print(table)


def show_percentiles(found: Sequence[Quantile], console: Console) -> None:
    """A line for each percentile."""
    table = Table(
        "percentile",
        "calls",
        "rounds",
        "coverage",
        "all above the truth",
        "all below",
        "refused",
        title="95 % intervals of percentiles, 40 rounds",
    )
    for one in found:
        shares = (one.coverage, one.too_high, one.too_low)
        rounds = "differ" if one.rounds_differ else "alike"
        table.add_row(
            one.percentile,
            str(one.calls),
            rounds,
            *("–" if share is None else f"{100 * share:.1f} %" for share in shares),
            f"{100 * one.refused:.0f} %",
        )
    console.print(table)


def show_agreement(found: Sequence[Share], console: Console) -> None:
    """A line for each number of images."""
    table = Table(
        "images",
        *(f"{100 * share:g} %" for share in dict.fromkeys(one.agreement for one in found)),
        title="agreement: coverage of 95 % intervals; wrong pass / wrong fail of gates whose limit is the true one, %",
    )
    for n in dict.fromkeys(one.images for one in found):
        own = [one for one in found if one.images == n]
        cells = (
            f"{100 * one.coverage:.1f}; {100 * one.wrong_pass:.1f} / {100 * one.wrong_fail:.1f}"
            for one in own
        )
        table.add_row(str(n), *cells)
    console.print(table)


def show_demands(found: Sequence[Demand], console: Console) -> None:
    """A line for each."""
    table = Table("demand", "met", "worst cell")
    for one in found:
        table.add_row(one.text, "yes" if one.met else "NO", one.worst)
    console.print(table)
