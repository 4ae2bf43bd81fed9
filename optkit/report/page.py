"""The page that every report is written on: its frame, scripts, and how values become words."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from optkit.report import quantisation_text, text
from optkit.report.datacard import class_bars
from optkit.report.flips import alt, as_picture, class_table, strips
from optkit.report.flips import sentence as flips_sentence
from optkit.report.gate import gate_sentence
from optkit.report.gate_schema import Gate
from optkit.report.layers import dearest, layers_notes, layers_sentence, layers_table, unlisted
from optkit.report.plots import Plot
from optkit.report.quantisation import operator_bars, reasons
from optkit.report.schema import Step
from optkit.report.tables import is_sortable, numbered, order_of

# What the sections of the page show of `details`, by stage; None: of any stage.
IN_SECTIONS: dict[str | None, tuple[str, ...]] = {
    None: ("rows", "data", "lr_finder", "estimates", "basis", "word"),
    "evaluate": ("class_names", "per_class", "confusions", "mistakes"),
    "explain": ("maps",),
    "gate": tuple(Gate.model_fields),
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
    "numbered": numbered,
    "order_of": order_of,
    "gate_sentence": gate_sentence,
    "flips_sentence": flips_sentence,
    "layers_sentence": layers_sentence,
}


def page(template: str, title: str, drawn: Sequence[Plot], values: dict[str, Any]) -> str:
    """A template on the page that all share, with its figures; plotly.js comes along when there is any."""
    own_script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    scripts = [_plotly_js(), own_script] if drawn else [own_script]
    frame = {
        "title": title,
        "figures": {plot.id: plot.figure for plot in drawn},
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "scripts": [Markup(script) for script in scripts],
        "script_hashes": [_csp_hash(script) for script in scripts],
    }
    return environment(escape_html=True).get_template(template).render(**frame, **values)


@cache  # compiling the templates takes longer than filling them
def environment(escape_html: bool) -> Environment:
    """Templates with the filters that both HTML and Markdown use; in Markdown `md` keeps text as text."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(FILTERS)
    found.filters |= {"md": _escape_markdown, "breakable": _breakable}
    found.tests["table"] = _is_table
    found.tests["sortable"] = is_sortable
    found.globals |= {
        "facts_of": _facts_of,
        "class_bars": class_bars,
        "operator_bars": operator_bars,
        "class_table": class_table,
        "flip_strips": strips,
        "flip_alt": alt,
        "as_picture": as_picture,
        "dearest": dearest,
        "layers_notes": layers_notes,
        "layers_table": layers_table,
        "reasons": reasons,
        "unlisted": unlisted,
    }
    return found


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # only a report with a figure needs its five megabytes

    script: str = get_plotlyjs()
    return script


@cache
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
    escaped = re.sub(r"([\\`*_\[\]|<>~&!#])", r"\\\1", " ".join(str(value).split()))
    return escaped.replace("@", "&#64;")  # no backslash keeps an `@name` from calling that person


def _breakable(path: str) -> Markup:
    """Escaped, and a line may end after a slash."""
    return Markup("/<wbr>").join(path.split("/"))
