"""A report → one HTML file that needs no network, Markdown for a pull request, and JSON."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from optkit.core.store import write_atomically
from optkit.report import curves, plots, quantisation_text, text
from optkit.report.datacard import class_bars
from optkit.report.ladder import ladder_plots
from optkit.report.lineage import lineage
from optkit.report.pictures import Album
from optkit.report.quantisation import operator_bars, reasons
from optkit.report.schema import Report, Step

# What the sections of the page show of `details`, by stage; None: of any stage.
IN_SECTIONS: dict[str | None, tuple[str, ...]] = {
    None: ("rows", "data", "lr_finder"),
    "evaluate": ("class_names", "per_class", "confusions", "mistakes"),
    "explain": ("maps",),
    "scale": ("base", "chosen", "candidates", "trials"),
}
TEMPLATES = Path(__file__).parent / "templates"
FILTERS = {
    "figure": text.figure,
    "count": text.count,
    "size": text.size,
    "percent": text.percent,
    "interval": text.interval,
    "short_name": text.short_name,
    "decibels": text.decibels,
    "decibel_change": text.decibel_change,
    "asked_for": quantisation_text.asked_for,
    "loss_in_points": quantisation_text.loss_in_points,
    "loss_interval": quantisation_text.loss_interval,
    "operator_count": quantisation_text.operator_count,
    "peak_lines": quantisation_text.peak_lines,
    "simulation_note": quantisation_text.simulation_note,
    "speed_line": quantisation_text.speed_line,
    "float_prefix_line": quantisation_text.float_prefix_line,
    "ladder_note": quantisation_text.ladder_note,
    "judged_on": quantisation_text.judged_on,
    "points": text.points,
    "points_interval": text.points_interval,
    "duration": text.duration,
    "verdict": text.verdict,
    "speed_change": text.speed_change,
    "size_change": text.size_change,
    "accuracy_change": text.accuracy_change,
    "runtimes": text.runtimes,
}


def render(report: Report, folder: Path) -> dict[str, Path]:
    """Write `report.html`, `report.md` and `report.json` into `folder`; returns their paths by ending."""
    contents = {"html": to_html(report), "md": to_markdown(report), "json": to_json(report)}
    paths = {ending: folder / f"report.{ending}" for ending in contents}
    for ending, content in contents.items():
        write_atomically(paths[ending], content)
    return paths


def to_json(report: Report) -> str:
    """The report dumped; what JSON cannot hold (NaN, infinities) becomes null."""
    return report.model_dump_json(indent=2) + "\n"


def to_markdown(report: Report) -> str:
    """Headline, table and warnings."""
    environment = _environment(escape_html=False)
    environment.filters["md"] = _escape_markdown
    return environment.get_template("report.md").render(
        report=report, headline=" ".join(text.headline(report))
    )


def to_html(report: Report) -> str:
    """The whole page as one string, with scripts and styles inside."""
    pareto, training, ladders = (
        plots.pareto_plots(report),
        curves.training_plots(report),
        ladder_plots(report),
    )
    figures = {plot.id: plot.figure for plot in (*pareto, *training, *ladders.values())}
    own_script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    scripts = [_plotly_js(), own_script] if figures else [own_script]
    return (
        _environment(escape_html=True)
        .get_template("report.html")
        .render(
            report=report,
            headline=text.headline(report),
            best=text.headline_row(report),
            pareto=pareto,
            training=training,
            figures=figures,
            album=Album(Path(report.folder)),
            scaled=[step for step in report.steps if step.manifest.stage == "scale"],
            lineage=lineage(report.steps),
            ladders=ladders,
            engines=[step for step in report.steps if step.manifest.format == "engine"],
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            scripts=[Markup(script) for script in scripts],
            script_hashes=[_csp_hash(script) for script in scripts],
        )
    )


def _environment(escape_html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.tests["table"] = _is_table
    environment.globals |= {
        "facts_of": _facts_of,
        "class_bars": class_bars,
        "operator_bars": operator_bars,
        "reasons": reasons,
    }
    return environment


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # only a report with a figure needs its five megabytes

    script: str = get_plotlyjs()
    return script


def _csp_hash(script: str) -> str:
    """The page runs the scripts with these digests and no other: text that slips in as one stays text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _is_table(value: Any) -> bool:
    """Whether `value` is a list of mappings: drawn as a table."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, dict) for row in value)


def _facts_of(step: Step) -> dict[str, Any]:
    """A step's metrics and details, without those that a section of the page shows."""
    shown = IN_SECTIONS[None] + IN_SECTIONS.get(step.manifest.stage, ())
    details = {name: value for name, value in step.manifest.details.items() if name not in shown}
    return {**step.manifest.metrics, **details}


def _escape_markdown(value: object) -> str:
    """Text that stays text in Markdown, in a table too."""
    return re.sub(r"([\\`*_\[\]|<>~&!#])", r"\\\1", " ".join(str(value).split()))
