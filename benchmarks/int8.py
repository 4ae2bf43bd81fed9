"""INT8 beside other tools: accuracy, speed, time and memory of optkit quantize, and which demands are met.

    python benchmarks/int8.py --data imagenet_val_subset --b0 b0.onnx --b0-data cats_dogs

--data holds calib.csv and val.csv (path,label; label: class 0 … 999) of ImageNet photos; the network is
EfficientNet-Lite0 with the weights of its pip package. Peers get the same calibration photos, decoded, each in
an environment of its own that is made on first use. Files are compared on validation photos: SQNR of the logits
against FP32 in ONNX Runtime, agreement, top-1, and latency at batch 1 in turns. Intervals are 95 %.

Parts: lite0 (ONNX Runtime, beside the peers), tensorrt, calibration (time and memory), b0 (a network with squeeze
and excitation and SiLU) and stress (the same with its bottleneck channels rescaled). Each runs in a process of its
own and writes int8-<part>.json. Seconds and megabytes are those of whole commands, with their imports. A demand is
judged by its figure; the table says where the interval reaches beyond it. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from int8_parts import files
from int8_parts.case import Options
from int8_parts.parts import PARTS, Part
from int8_parts.peers import REQUIREMENTS, environment
from int8_parts.tables import markdown

from optkit.core import machine
from optkit.core.types import Artifact

OF_B0 = ("b0", "stress")
NOT_MET = 3  # exit code; that of a traceback is 1
ENVIRONMENTS = Path.home() / ".cache" / "optkit" / "benchmarks"


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    parser.add_argument("--show", action="store_true", help="measure nothing: print the stored results")
    parser.add_argument("--rounds", type=int, default=8, help="of latency")
    parser.add_argument("--calibration-rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of latency for each file and round")
    parser.add_argument("--threads", type=int, default=2, help="cores that everything runs on")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where the peers are installed"
    )
    parser.add_argument("--work", type=Path, help="folder to keep all files in; default: none is kept")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of results"
    )
    args = parser.parse_args(words)
    if args.show:
        args.only = args.only or list(PARTS)
        return args
    if args.b0 and not args.b0_data:
        parser.error("--b0 needs --b0-data")
    given = [name for name in PARTS if (args.b0 if name in OF_B0 else args.data)]
    if missing := [name for name in args.only if name not in given]:
        parser.error(f"{missing[0]} needs {'--b0 and --b0-data' if missing[0] in OF_B0 else '--data'}")
    args.only = [name for name in given if name in (args.only or given)]
    if not args.only:
        parser.error("give --data, or --b0 and --b0-data")
    if min(args.rounds, args.calibration_rounds) < 2:
        parser.error("an interval needs 2 rounds at least")
    return args


def use_cores(count: int) -> None:
    """This process, and what it starts, on so many cores."""
    torch.set_num_threads(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def report(text: str) -> None:
    """Progress, with the time of day."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One part, in this process."""
    options = Options(
        folder=args.work.resolve(),
        environments=args.environments.resolve(),
        rounds=args.rounds,
        calibration_rounds=args.calibration_rounds,
        seconds=args.seconds,
        threads=args.threads,
        report=report,
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    part = PARTS[name](*_network(args, name in OF_B0), options)
    return result_of(part, args, load)


def _network(args: argparse.Namespace, of_b0: bool) -> tuple[Artifact, files.Images]:
    folder = args.work.resolve()
    if of_b0:
        data = args.b0_data.resolve()
        return files.take_file(args.b0, data, folder / "b0-fp32"), files.Images(data)
    data = args.data.resolve()
    return files.make_lite0(folder / "lite0-fp32"), files.Images(data / "calib.csv", data / "val.csv")


def result_of(part: Part, args: argparse.Namespace, load: float | None) -> dict[str, Any]:
    """What is stored; `load` is that of the machine before the part began. No folder of the machine is named."""
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": {
            name: getattr(args, name) for name in ("rounds", "calibration_rounds", "seconds", "threads")
        },
        "machine": machine.facts(),
        "load_before": load,
        "packages": machine.packages(),
        "peers": {tool: list(wanted) for tool, wanted in REQUIREMENTS.items()},
        "demands": [asdict(one) for one in part.demands],
        "rows": [row.as_json() for row in part.rows],
        "facts": part.facts,
        "verdict": part.verdict,
    }
    text = json.dumps(result)
    for folder in (args.work.resolve(), Path(__file__).resolve().parents[1], Path.home()):
        text = text.replace(str(folder), "…")
    shortened: dict[str, Any] = json.loads(text)
    return shortened


def in_own_process(name: str, args: argparse.Namespace) -> str:
    """Run one part, whose process writes its result; why it could not, or nothing."""
    words = ["--only", name]
    for option in ("data", "b0", "b0_data", "environments", "work", "out"):
        if (path := getattr(args, option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(path.resolve())]
    for option in ("rounds", "calibration_rounds", "seconds", "threads"):
        words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.DEVNULL, check=False)
    return "" if done.returncode in (0, NOT_MET) else f"its process ended with {done.returncode}"


def stored(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The results of the wanted parts that are there."""
    paths = {name: result_path(args.out, name) for name in args.only}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()}


def result_path(folder: Path, part: str) -> Path:
    """The file of a part's result."""
    return folder / f"int8-{part}.json"


def run_parts(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure the wanted parts: one here, several each in a process that cannot harm the others' figures."""
    if len(args.only) == 1:
        (name,) = args.only
        report(f"part {name} begins")
        result = measure(name, args)
        path = result_path(args.out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return {name: result}
    failures = {name: in_own_process(name, args) for name in args.only}
    empty = {"rows": [], "demands": [], "facts": {}, "verdict": ""}
    found = stored(args)
    return {name: {**empty, "error": why} if why else found[name] for name, why in failures.items()}


def main() -> None:
    """Measure, store and show; exit code 3 when a demand is not met, 1 when a part failed."""
    args = options_of(sys.argv[1:])
    if args.show:
        found = stored(args)
        if not found:
            print(
                f"{args.out} holds no results of these parts. Measure first, without --show.", file=sys.stderr
            )
            sys.exit(1)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it is about CPUs, and ONNX Runtime prefers a GPU
        use_cores(args.threads)
        for tool in REQUIREMENTS:
            environment(tool, args.environments.resolve())
        with tempfile.TemporaryDirectory() as temporary:
            args.work = args.work or Path(temporary)
            found = run_parts(args)
    print(markdown(found))
    if any(part.get("error") for part in found.values()):
        sys.exit(1)
    sys.exit(0 if all(one["met"] for part in found.values() for one in part["demands"]) else NOT_MET)


if __name__ == "__main__":
    main()
