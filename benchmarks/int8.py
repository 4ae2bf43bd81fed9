"""INT8 beside other tools: accuracy, speed, time and memory of optkit quantize, and which demands are met.

    python benchmarks/int8.py --data imagenet_val_subset --b0 b0.onnx --b0-data cats_dogs

--data holds calib.csv and val.csv (path,label; label: class 0 … 999) of ImageNet photos; the network is
EfficientNet-Lite0 with the weights of its pip package. Peers get the same calibration photos, decoded, each in
an environment of its own that is made on first use. Files are compared on val.csv, in one process: SQNR of the
logits against FP32 in ONNX Runtime, agreement, top-1, and latency at batch 1 in turns. Intervals are 95 %.

Parts: lite0 (CPU targets and peers), tensorrt, calibration (time and memory), b0 (a network with squeeze and
excitation and SiLU) and stress (the same with its bottleneck channels rescaled). Seconds and megabytes are those
of whole commands, with their imports. Every demand is judged by its figure, and said to be uncertain where the
interval reaches beyond it. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from int8_parts import files
from int8_parts.case import Options, Row
from int8_parts.evaluate import Figure
from int8_parts.parts import PARTS, Part
from int8_parts.peers import REQUIREMENTS
from rich.console import Console
from rich.table import Table

from optkit.core import machine
from optkit.core.types import Artifact

OF_B0 = ("b0", "stress")
ENVIRONMENTS = Path.home() / ".cache" / "optkit" / "benchmarks"


def options_of(description: str | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with calib.csv and val.csv; for all parts but b0's")
    parser.add_argument(
        "--b0",
        type=Path,
        help="FP32 ONNX file; without metadata of ours it takes whole photos, squashed, normalised as timm does",
    )
    parser.add_argument(
        "--b0-data", type=Path, help="folder of its photos: train/ and val/ with class folders"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=[], help="parts to run")
    parser.add_argument("--rounds", type=int, default=9, help="of latency, and of calibration")
    parser.add_argument("--seconds", type=float, default=2.0, help="of latency for each file and round")
    parser.add_argument("--threads", type=int, default=2, help="cores that everything runs on")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where the peers are installed"
    )
    parser.add_argument("--work", type=Path, help="folder to keep all files in; default: none is kept")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "int8.json")
    args = parser.parse_args()
    if args.b0 and not args.b0_data:
        parser.error("--b0 needs --b0-data")
    given = [name for name in PARTS if (args.b0 if name in OF_B0 else args.data)]
    if missing := [name for name in args.only if name not in given]:
        parser.error(f"{missing[0]} needs {'--b0 and --b0-data' if missing[0] in OF_B0 else '--data'}")
    args.only = [name for name in given if name in (args.only or given)]
    if not args.only:
        parser.error("give --data, or --b0 and --b0-data")
    return args


def use_cores(count: int) -> None:
    """This process, and what it starts, on so many cores."""
    torch.set_num_threads(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Part]:
    """The wanted parts, one after the other."""
    console = Console(stderr=True)
    options = Options(
        folder, args.environments.resolve(), args.rounds, args.seconds, args.threads, console.print
    )
    networks: dict[bool, tuple[Artifact, files.Images]] = {}
    found = {}
    for name in args.only:
        if (of_b0 := name in OF_B0) not in networks:
            networks[of_b0] = _network(args, of_b0, folder)
        found[name] = PARTS[name](*networks[of_b0], options)
        for one in found[name].demands:
            console.print(one.line(), markup=False, highlight=False, soft_wrap=True)
    return found


def _network(args: argparse.Namespace, of_b0: bool, folder: Path) -> tuple[Artifact, files.Images]:
    if of_b0:
        data = args.b0_data.resolve()
        return files.take_file(args.b0, data, folder / "b0-fp32"), files.Images(data)
    data = args.data.resolve()
    return files.make_lite0(folder / "lite0-fp32"), files.Images(data / "calib.csv", data / "val.csv")


def table_of(name: str, rows: list[Row]) -> Table:
    """The files of a part."""
    heads = (
        "file",
        "runtime",
        "SQNR dB",
        "agreement",
        "top-1",
        "drop, points",
        "/ FP32",
        "/ U8S8",
        "s",
        "MB",
    )
    table = Table(*heads, title=f"{name} (95 % intervals)")
    for row in rows:
        if row.error:
            table.add_row(row.name, row.runtime, row.error[:60])
            continue
        answers = row.answers
        figures = (
            [answers.sqnr_db, answers.agreement, answers.top1, answers.drop_points] if answers else [None] * 4
        )
        single = [None if value is None else f"{value:.0f}" for value in (row.made_in_seconds, row.peak_mb)]
        cells = [_text(figure) for figure in (*figures, row.to_fp32, row.to_u8s8)]
        table.add_row(row.name, row.runtime, *cells, *(cell or "" for cell in single))
    return table


def _text(figure: Figure | None) -> str:
    if figure is None:
        return ""
    low, high = figure.interval
    return f"{figure.value:.3g} ({low:.3g} to {high:.3g})"


def show(found: dict[str, Part]) -> None:
    """Tables of files, then every demand with its verdict."""
    console = Console()
    for name, part in found.items():
        if part.rows:
            console.print(table_of(name, part.rows))
    demands = [one for part in found.values() for one in part.demands]
    for one in sorted(demands, key=lambda one: one.point):
        console.print(one.line(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{sum(one.met for one in demands)} of {len(demands)} demands are met.", highlight=False)


def result_of(args: argparse.Namespace, found: dict[str, Part]) -> dict[str, Any]:
    """By part, so that parts can be measured one at a time: those of earlier runs stay."""
    options = {name: getattr(args, name) for name in ("rounds", "seconds", "threads")}
    common = {"options": options, "machine": machine.facts(), "packages": machine.packages()}
    parts = json.loads(args.out.read_text(encoding="utf-8"))["parts"] if args.out.is_file() else {}
    for name, part in found.items():
        parts[name] = {
            **common,
            "demands": [asdict(one) for one in part.demands],
            "rows": [row.as_json() for row in part.rows],
            "facts": part.facts,
        }
    return {"peers": REQUIREMENTS, "parts": parts}


def main() -> None:
    """Measure, show and store; exit code 1 when a demand is not met."""
    args = options_of(__doc__)
    use_cores(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work.resolve() if args.work else Path(temporary)
        found = measure(args, folder)
    result = json.dumps(result_of(args, found), indent=2, allow_nan=False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(result + "\n", encoding="utf-8")
    if args.json:
        print(result)
    else:
        show(found)
    sys.exit(not all(one.met for part in found.values() for one in part.demands))


if __name__ == "__main__":
    main()
