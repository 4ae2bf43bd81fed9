"""Who may import whom, what stays light, who reads the clock, who writes manifests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optkit.core.types import Format
from tests.report.run_folder import RunFolder, bench_row, latency

ROOT = Path(__file__).resolve().parents[1] / "optkit"
SERVICES = {"data", "models", "train", "graph", "runtimes", "measure"}
ALLOWED = {
    "cli": {"pipeline", "recipe", "report", "core"},
    "pipeline": {"recipe", "core"},
    "recipe": {"core"},
    "report": {"core"},
    "stages": SERVICES | {"core"},
    **{service: {"core"} for service in SERVICES},
    "core": set(),
}
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "torch_pruning",
    "torchmetrics",
    "captum",
    "lightning_fabric",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "fsspec",
    "aiohttp",
    "pyarrow",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "numpy",
    "sklearn",
    "PIL",
    "simplejpeg",
    "plotly",
    "jinja2",
}
REPORT_MAY_USE = {"plotly", "jinja2"}
CORE_MAY_USE = {"pydantic"}
# Rooms reached by a name in a string instead of an import. `list` shows all plug-ins, and imports runtimes
# (light until a session is opened) to ask why they are unavailable; the pipeline imports the stages it runs;
# `lint` looks at one file and makes nothing, so it asks its service without a stage; before it reads
# a command, the command line lets the stage begin what takes long to start.
BY_NAME = {
    "pipeline.py": {"stages"},
    "cli/list.py": {"stages", "data", "train", "runtimes"},
    "cli/lint.py": {"graph"},
    "cli/__init__.py": {"stages"},
}


def room_of(path: str) -> str:
    """`stages/prune/stage.py` → `stages`, `recipe.py` → `recipe`."""
    return path.split("/")[0].removesuffix(".py")


def is_light(path: str) -> bool:
    """Files that may not import anything heavy when they are imported."""
    return (
        room_of(path) in {"cli", "recipe", "pipeline", "core", "report"}
        or path.endswith("/config.py")
        or (path.endswith("__init__.py") and path != "runtimes/tensorrt/__init__.py")
    )


def imports(tree: ast.AST, top_level_only: bool) -> Iterator[str]:
    """Dotted names of everything imported; `if TYPE_CHECKING` does not count."""
    nodes = list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            nodes += ast.iter_child_nodes(node)


def named_modules(tree: ast.AST) -> Iterator[str]:
    """Strings that are dotted names of our modules, as `discover` and `import_module` take them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = re.fullmatch(r"(optkit\.([a-z_]+)[a-z_.]*?)\.?", node.value)
            if name and name[2] in ALLOWED:
                yield name[1]


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` (below optkit/) does against the rules."""
    tree, room, found = ast.parse(source), room_of(path), []
    for name in (*imports(tree, top_level_only=False), *named_modules(tree)):
        parts = name.split(".")
        if parts[0] == "optkit" and len(parts) > 1:
            target = parts[1]
            if target not in ALLOWED.get(room, set()) | BY_NAME.get(path, set()) | {room, "__version__"}:
                found.append(f"{path}: {room} imports {name}")
            # `stages/base.py` is what several stages share.
            if room == "stages" and target == "stages" and parts[2] not in (path.split("/")[1], "base"):
                found.append(f"{path}: a stage imports another stage ({name})")
        elif room == "core" and parts[0] not in CORE_MAY_USE | set(sys.stdlib_module_names):
            found.append(f"{path}: core imports {name}")
    if is_light(path):
        allowed = REPORT_MAY_USE if room == "report" else set()
        heavy = [name for name in imports(tree, top_level_only=True) if name.split(".")[0] in HEAVY - allowed]
        found += [f"{path}: light file imports {name}" for name in heavy]
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }
    if path != "measure/latency.py" and any(name.startswith("perf_counter") for name in names):
        found.append(f"{path}: reads a clock for a result")
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    if "print" in called:
        found.append(f"{path}: prints")
    writes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "write" in ast.dump(node.func) and "MANIFEST" in ast.dump(node)
    ]
    if writes and path != "core/store.py":
        found.append(f"{path}: writes a manifest")
    return found


FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_rules_hold(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("cli/x.py", "from optkit.data.load import load_data", "cli imports"),
        ("report/x.py", "import optkit.measure.cost", "report imports"),
        ("report/x.py", "import numpy", "light file"),
        ("cli/x.py", "import jinja2", "light file"),
        ("cli/x.py", "discover.load('optkit.runtimes', 'null', 'runtime')", "cli imports"),
        ("pipeline.py", "import_module('optkit.train.loop')", "pipeline imports"),
        ("data/x.py", "import_module(f'optkit.stages.{name}')", "data imports"),
        ("stages/prune/stage.py", "ROOM = 'optkit.stages.quantize.calibrators'", "another stage"),
        ("data/x.py", "from optkit.models.build import build", "data imports"),
        ("stages/prune/stage.py", "from optkit.stages.distill.stage import run", "another stage"),
        ("core/x.py", "import yaml", "core imports"),
        ("stages/prune/config.py", "import torch", "light file"),
        ("pipeline.py", "from onnx import load", "light file"),
        ("stages/bench/stage.py", "import time\ntime.perf_counter()", "clock"),
        ("train/loop.py", "print('loss')", "prints"),
        ("stages/bench/stage.py", "write_atomically(folder / MANIFEST, text)", "manifest"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, complaint: str) -> None:
    assert any(complaint in found for found in violations(path, source))


def test_allowed_imports_pass() -> None:
    source = "from optkit.core.types import Artifact\nfrom optkit.data.load import load_data\nimport torch"
    assert violations("stages/prune/stage.py", source) == []
    assert violations("report/render.py", "from jinja2 import Environment") == []
    assert violations("cli/list.py", "discover.load('optkit.runtimes', name, 'runtime')") == []
    assert violations("stages/prune/stage.py", "CRITERIA = 'optkit.stages.prune.criteria'") == []


def heavy_imports(
    arguments: list[str], allowed: set[str], forbidden: frozenset[str] = frozenset()
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that fails when it imported anything heavy, or `forbidden`."""
    code = (
        "import sys\n"
        "from optkit.cli._app import execute\n"
        f"status = execute({arguments!r})\n"
        f"heavy = sorted({(HEAVY - allowed) | forbidden!r} & set(sys.modules))\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["finetune", "--help"], ["run", "recipes/quickstart.yaml", "--dry-run"]],
)
def test_commands_answer_without_heavy_packages(arguments: list[str]) -> None:
    """--help and --dry-run import neither torch nor anything else that is heavy."""
    done = heavy_imports(arguments, set())
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_list_of_commands_needs_the_command_line_alone() -> None:
    """What a bare --help imports is waited for at every start."""
    done = heavy_imports(["--help"], set(), frozenset({"pydantic", "optkit.pipeline", "optkit.report"}))
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_report_is_made_without_heavy_packages(tmp_path: Path) -> None:
    """From the manifests alone, on a machine that has none of the runtimes; with a figure."""
    run = RunFolder(tmp_path)
    key = run.add("m", "export", Format.ONNX, size=1)
    rows = [bench_row("m", key, latency_ms=latency(1.0), top1=0.9)]
    run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    done = heavy_imports(["report", str(run.path)], REPORT_MAY_USE)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pareto-1" in (run.path / "report.html").read_text()
