"""The stored results of parts as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]
FILES = ("file", "runtime", "runs in", "SQNR dB", "agreement", "top-1", "drop, points", "ms")
FILES += ("× FP32", "× FP32 there", "× U8S8", "made in s", "peak MB")
LADDER = ("rung", "kept", "held-out dB", "validation dB", "drop, points", "s", "note")
SERIES = (
    "tool",
    "s",
    "s of the work alone",
    "peak MB",
    "above the loaded model, MB",
    "10 times the photos: s",
    "MB",
)
DEMANDS = ("point", "asked", "measured (95 %)", "met", "note")


def markdown(results: dict[str, Json]) -> str:
    """Every part's files, calibrators and ladders, its verdict, then all demands; `results` are by part."""
    blocks = []
    for name, part in results.items():
        blocks.append(f"## {name}")
        if part.get("error"):
            blocks.append(f"FAILED: {part['error']}")
        if part["rows"]:
            blocks.append(_table(FILES, [_file_row(row) for row in part["rows"]]))
        if "loaded_mb" in part["facts"]:
            blocks.append(_table(SERIES, _series_rows(part["facts"])))
        for row in part["rows"]:
            if ladder := row["found"].get("ladder"):
                blocks.append(f"Ladder of {row['name']}:")
                blocks.append(_table(LADDER, [_rung_row(rung) for rung in ladder]))
        if part["verdict"]:
            blocks.append(f"**{part['verdict']}**")
    demands = sorted((one for part in results.values() for one in part["demands"]), key=_point)
    met = sum(one["met"] for one in demands)
    blocks += ["## Demands", _table(DEMANDS, [_demand_row(one) for one in demands])]
    return "\n\n".join([*blocks, f"{met} of {len(demands)} demands are met."])


def _point(demand: Json) -> int:
    point: int = demand["point"]
    return point


def _demand_row(one: Json) -> list[str]:
    if one["measured"] is None:
        met = "not measured"
    elif not one["met"]:
        met = "NO"
    else:
        met = "yes" if one["certain"] else "yes, though not for all of the interval"
    asked = f"{one['what']} {one['sense']} {one['limit']:g} {one['unit']}".strip()
    return [str(one["point"]), asked, _figure(one["measured"], one["interval"]), met, one["note"]]


def _file_row(row: Json) -> list[str]:
    answers = row["answers"] or dict.fromkeys(("sqnr_db", "agreement", "top1", "drop_points"))
    if row["error"]:
        return [row["name"], row["runtime"], f"FAILED: … {row['error'][-120:]}", *[""] * (len(FILES) - 3)]
    figures = [answers[name] for name in ("sqnr_db", "agreement", "top1", "drop_points")]
    figures += [row[name] for name in ("latency_ms", "to_fp32", "to_fp32_there", "to_u8s8")]
    cells = ["" if one is None else _figure(one["value"], one["interval"]) for one in figures]
    return [
        row["name"],
        row["runtime"],
        row["executed"] or "",
        *cells,
        _plain(row["made_in_seconds"]),
        _plain(row["peak_mb"]),
    ]


def _rung_row(rung: Json) -> list[str]:
    checked = rung["validation"] or {}
    figures = (rung["sqnr_db"], checked.get("sqnr_db"), rung["drop"], rung["seconds"])
    return [rung["rung"], "yes" if rung["kept"] else "no", *map(_plain, figures), rung["note"]]


def _series_rows(facts: Json) -> list[list[str]]:
    rows = []
    for name, one in facts.items():
        if name != "loaded_mb":
            runs = (one["seconds"], one["work_seconds"], one["peak_mb"], one["above_mb"])
            many = (one["many_seconds"], one["many_mb"])
            rows.append([name, *(_mean(values) for values in runs), *map(_plain, many)])
    return rows


def _mean(values: list[float]) -> str:
    return _plain(sum(values) / len(values)) if values else ""


def _figure(value: float | None, interval: Iterable[float] | None) -> str:
    if value is None:
        return "–"
    if interval is None:
        return f"{value:.4g}"
    low, high = interval
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(heads: Iterable[str], rows: list[list[str]]) -> str:
    names = list(heads)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
