"""Facts about the machine, for manifests, engine keys and `optkit doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from optkit.core import discover

PACKAGES = (
    "optkit",
    "torch",
    "torchvision",
    "timm",
    "torch-pruning",
    "lightning-fabric",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "numpy",
)


def process_rank() -> int:
    """Number of this process among those that run the same command together, 0 when it is alone.

    torchrun, SLURM and Lightning tell it by these variables.
    """
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 0)


def version(package: str) -> str | None:
    """Installed version of a distribution, None when absent."""
    from importlib import metadata  # slow to import, and --help needs no versions

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def packages() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    return {name: found for name in PACKAGES if (found := version(name))}


def _cpu_facts() -> tuple[str, list[str]]:
    path = Path("/proc/cpuinfo")
    model, flags = platform.processor() or platform.machine(), []
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
            flags = [flag for flag in wanted if flag in value.split()]
            break
    return model, flags


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


@cache
def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as `nvidia-smi` names them: name, driver, memory, compute capability. Empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    fields = ("name", "driver_version", "memory.total", "compute_cap")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [
        dict(zip(fields, (cell.strip() for cell in line.split(",")), strict=False))
        for line in answer.splitlines()
        if line.strip()
    ]


def compute_capability() -> str | None:
    """What the first GPU is for a compiler (`SM89`), None without one."""
    found = gpus()
    return "SM" + found[0]["compute_cap"].replace(".", "") if found and "compute_cap" in found[0] else None


def tensorrt() -> tuple[str, str] | None:
    """Module and version of the TensorRT that would be used: `tensorrt`, else `tensorrt_rtx`, else None."""
    for module, package in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")):
        if discover.installed(module):
            return module, version(package) or "of unknown version"
    return None


@cache
def facts() -> dict[str, Any]:
    """What the machine is: written into every manifest."""
    model, flags = _cpu_facts()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_features": flags,
        "memory_bytes": _memory_bytes(),
        "gpus": gpus(),
    }


def environment() -> dict[str, str]:
    """What a measured time depends on: processors, and versions of packages other than optkit."""
    found = facts()
    here = {"cpu": f"{found['cores']} × {found['cpu']}"}
    here |= {f"gpu{index}": gpu.get("name", "") for index, gpu in enumerate(found["gpus"])}
    return here | {name: version for name, version in packages().items() if name != "optkit"}
