"""A report → one HTML file that needs no network, Markdown for a pull request, CSV and JSON."""

from __future__ import annotations

from pathlib import Path

from optkit.core.store import write_atomically
from optkit.report import curves, plots
from optkit.report.csv_file import to_csv
from optkit.report.deltas import comparison_confidence, deltas_table, percentiles_table
from optkit.report.device_times import device_times_table
from optkit.report.distributions import constants, distribution_plots, trace_gaps
from optkit.report.estimates import estimates_notes, estimates_table
from optkit.report.flips import changed
from optkit.report.gate import gate_table
from optkit.report.headline import headline_row, sentences
from optkit.report.ladder import ladder_plots
from optkit.report.layers import roofline_plots
from optkit.report.lineage import lineage
from optkit.report.page import environment, page
from optkit.report.pictures import Album
from optkit.report.plots import Plot
from optkit.report.schema import Report


def render(report: Report, folder: Path) -> dict[str, Path]:
    """Write `report.html`, `.md`, `.csv` and `.json` into `folder`; returns their paths by ending."""
    contents = {
        "html": to_html(report),
        "md": to_markdown(report),
        "csv": to_csv(report.rows),
        "json": to_json(report),
    }
    return write(contents, folder, "report")


def write(contents: dict[str, str], folder: Path, stem: str) -> dict[str, Path]:
    """A file for each ending."""
    paths = {ending: folder / f"{stem}.{ending}" for ending in contents}
    for ending, content in contents.items():
        write_atomically(paths[ending], content)
    return paths


def to_json(report: Report) -> str:
    """The report dumped; what JSON cannot hold (NaN, infinities) becomes null."""
    return report.model_dump_json(indent=2) + "\n"


def to_markdown(report: Report) -> str:
    """Headline, gate, deltas and warnings; the rest folded."""
    return environment(escape_html=False).get_template("report.md").render(_shared(report))


def to_html(report: Report) -> str:
    """The whole page as one string, with scripts and styles inside."""
    sections: dict[str, list[Plot]] = {
        "pareto": plots.pareto_plots(report.rows, report.baseline),
        "latencies": distribution_plots(report.benches),
        "rooflines": roofline_plots(report.benches, report.rows),
        "training": curves.training_plots(report),
    }
    ladders = ladder_plots(report)
    drawn = [plot for section in sections.values() for plot in section]
    values = {
        **_shared(report),
        "best": headline_row(report),
        "trace_gaps": trace_gaps(report.benches),
        "constants": constants(report.benches),
        "flips": changed(report.benches),
        "layers": [found for bench in report.benches for found in bench.layers],
        "album": Album(Path(report.folder)),
        "scaled": [step for step in report.steps if step.manifest.stage == "scale"],
        "lineage": lineage(report.steps),
        "ladders": ladders,
        "engines": [step for step in report.steps if step.manifest.format == "engine"],
        **sections,
    }
    return page("report.html", report.name, [*drawn, *ladders.values()], values)


def _shared(report: Report) -> dict[str, object]:
    """What the page and Markdown show alike."""
    return {
        "report": report,
        "headline": sentences(report),
        "gate_tables": [gate_table(gate) for gate in report.gates],
        "deltas": deltas_table(report),
        "confidence": comparison_confidence(report),
        "percentiles": percentiles_table(report),
        "device_times": device_times_table(report.rows),
        "estimates": estimates_table(report.estimates),
        "estimates_notes": estimates_notes(report.estimates),
    }
