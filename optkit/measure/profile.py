"""Where ONNX Runtime spends its time: milliseconds per node, by its own profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

WARM_UP = 5
CONVOLUTIONS = frozenset({"Conv", "FusedConv"})


def profile(
    model: onnx.ModelProto, pixels: NDArray[np.float32], runs: int = 30, threads: int = 1
) -> dict[str, float]:
    """Median ms that one batch spends in every node of `model`, whose nodes must be named.

    A kernel counts for one node, a convolution with what is fused into it for the convolution; the other nodes
    are absent. What the optimiser adds itself, as changes of layout, is summed under the operator's name.
    """
    kernels = _kernels(model, pixels, runs, threads)[WARM_UP:]
    origins = _origins(model, {event["name"]: event["args"]["op_name"] for run in kernels for event in run})
    total: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(kernels))
    for index, run in enumerate(kernels):
        for event in run:
            total[origins[event["name"]]][index] += event["dur"] / 1000
    return {name: statistics.median(times) for name, times in total.items()}


def _kernels(
    model: onnx.ModelProto, pixels: NDArray[np.float32], runs: int, threads: int
) -> list[list[dict[str, Any]]]:
    """The profiler's events of every kernel, run by run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = {session.get_inputs()[0].name: pixels}
        for _ in range(WARM_UP + runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    found: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event["name"] == "model_run":  # written when a run has ended
            found.append([])
        elif event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            found[-1].append(event | {"name": event["name"].removesuffix("_kernel_time")})
    return found[:-1]


def _origins(model: onnx.ModelProto, kernels: dict[str, str]) -> dict[str, str]:
    """The node that a kernel counts for, from its name and its operator.

    Kernels are called as a node or as the tensor that they make, with something appended: `conv_token_7`,
    `relu_output_nchwc`, `mul/QuickGeluFusion/`.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = makers | {node.name: node for node in model.graph.node}
    by_length = sorted(nodes, key=len, reverse=True)
    named = {kernel: next((name for name in by_length if kernel.startswith(name)), "") for kernel in kernels}
    with_kernel = {nodes[name].name for name in named.values() if name}
    origins = {}
    for kernel, op in kernels.items():
        node = nodes.get(named[kernel])
        if node is not None and op in CONVOLUTIONS and node.op_type != "Conv":
            node = _fused_convolution(node, makers, with_kernel) or node
        origins[kernel] = op if node is None else node.name
    return origins


def _fused_convolution(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], with_kernel: set[str]
) -> onnx.NodeProto | None:
    """The nearest convolution before `node` that has no kernel of its own."""
    waiting, seen = [node], {node.name}
    for at in waiting:  # breadth first
        if at.op_type == "Conv":
            if at.name not in with_kernel:
                return at
            continue
        before = [makers[name] for name in at.input if name in makers and makers[name].name not in seen]
        seen.update(maker.name for maker in before)
        waiting += before
    return None
