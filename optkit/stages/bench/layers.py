"""What the layers of a model cost in a runtime, beside the ceilings of the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core import discover
from optkit.core.errors import InputError, MissingError
from optkit.core.types import Artifact, Format
from optkit.measure.latency import Stopwatch
from optkit.runtimes._kernels import LayerTimes, Repeats
from optkit.runtimes.base import PACKAGE, SessionOptions, split_runtime

if TYPE_CHECKING:
    from optkit.measure.roofline import Ceilings


def ceilings(precisions: tuple[str, ...], threads: int, device: str, seconds: float) -> Ceilings:
    """The two ceilings of this machine, measured now, with as many threads; `device` is cpu or cuda."""
    from optkit.measure.roofline import measure_ceilings

    return measure_ceilings(precisions, threads, seconds, device)


def layer_costs(
    artifact: Artifact,
    runtime: str,
    options: SessionOptions,
    batch: int,
    limits: Ceilings | None,
    runs: int,
) -> dict[str, Any]:
    """Time, work and limit of every layer of a model in a runtime (`openvino:throughput`), as JSON.

    MissingError where the runtime does not tell the times of layers, InputError for an engine without its ONNX file.
    """
    import numpy as np

    name, variant = split_runtime(runtime)
    module = discover.load(PACKAGE, name, "runtime")
    if not hasattr(module, "layer_times"):
        raise MissingError(f"The runtime {name!r} does not tell the times of layers.")
    size = artifact.spec.preprocess.size
    pixels = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
    repeats = Repeats(pixels, runs, Stopwatch().seconds)
    times: LayerTimes = module.layer_times(
        artifact, replace(options, variant=variant, cuda_graph=False), repeats
    )
    return _rows(artifact, times, limits, batch)


def _rows(artifact: Artifact, times: LayerTimes, limits: Ceilings | None, batch: int) -> dict[str, Any]:
    from optkit.measure.layer_costs import layer_rows

    size = artifact.spec.preprocess.size
    if artifact.format == Format.TORCH:
        from optkit.measure.cost import module_cost
        from optkit.models.build import rebuild

        cost = module_cost(rebuild(artifact.spec).eval(), size)
        nodes = {kernel.name: kernel.origins or () for kernel in times.kernels}
    else:
        from optkit.graph.onnx_file import read_onnx
        from optkit.measure.kernel_origins import kernel_nodes
        from optkit.measure.onnx_cost import onnx_cost

        model = read_onnx(_onnx_file(artifact))
        cost, nodes = onnx_cost(model, size), kernel_nodes(model, times.kernels)
    return layer_rows(cost, times.kernels, nodes, times.rest_ms, limits, batch)


def _onnx_file(artifact: Artifact) -> Path:
    """The graph: an engine's export leaves it beside the engine."""
    if artifact.format == Format.ONNX:
        return artifact.file
    beside = artifact.path / Format.ONNX.filename
    if not beside.is_file():
        raise InputError(
            "The layers of an engine are known by its ONNX file.",
            why=f"There is no {beside.name} beside {artifact.file.name}.",
            hint="Bench the artifact folder that its export made.",
        )
    return beside
