"""OpenVINO on the CPU; reads ONNX files."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from optkit.core import discover, machine
from optkit.core.errors import InputError
from optkit.core.foreign import cause, openvino_core, silence_openvino
from optkit.core.types import Artifact, Format, Precision
from optkit.runtimes._kernels import WARM_UP, KernelTime, LayerTimes, Repeats
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import numpy as np
    import openvino
    from numpy.typing import NDArray

    from optkit.runtimes.base import Run

FORMATS = (Format.ONNX,)
IMPORTS = ("openvino",)
VARIANTS = {
    "latency": "all threads work on one request",
    "throughput": "the threads are divided among several requests at once; a single one takes longer",
}
MATRIX_LAYERS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
PRECISIONS = {"f32": "fp32", "f16": "fp16", "i8": "int8", "u8": "int8"}


def unavailable(variant: str = "") -> str | None:
    """Whether the package is there."""
    return None if discover.installed("openvino") else "openvino is not installed: pip install 'optkit[cpu]'"


def _core() -> openvino.Core:
    silence_openvino()
    import openvino

    return openvino_core(openvino)


class OpenVinoSession:
    """One input, one output."""

    def __init__(self, compiled: openvino.CompiledModel, path: str, facts: dict[str, Any]) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._path = path
        self.facts = facts
        self._run: Run | None = self.stream()

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._run is None:
            raise ValueError("the session is closed")
        return self._run(pixels)

    def stream(self) -> Run:
        """An own request: the runtime works on several at once, each of one caller."""
        if self._compiled is None:
            raise ValueError("the session is closed")
        import numpy as np
        import openvino

        request = self._compiled.create_infer_request()
        dtype = self._compiled.inputs[0].get_element_type().to_dtype()

        def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            image = openvino.Tensor(np.ascontiguousarray(pixels, dtype), shared_memory=True)
            try:
                request.set_input_tensor(image)  # quicker than as an argument of `infer`
                answer = request.infer(share_outputs=True)
            except RuntimeError as error:
                raise _refused(self._path, error, f"It was given a batch of {len(pixels)}.") from None
            logits: NDArray[np.float32] = answer[0].astype(
                "float32"
            )  # a copy: the request reuses its own buffer
            return logits

        return run

    def close(self) -> None:
        self._run = self._compiled = None


def _refused(path: str, error: Exception, hint: str) -> InputError:
    return InputError(f"OpenVINO refuses {path!r}.", why=cause(error), hint=hint)


def _executed(compiled: openvino.CompiledModel) -> dict[str, int]:
    """In which precision the convolutions and matrix products really run: {"fp32": 49}."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        if node.rt_info["layerType"].astype(str) in MATRIX_LAYERS:
            precision = node.rt_info["runtimePrecision"].astype(str)
            counts[PRECISIONS.get(precision, precision)] += 1
    return dict(counts)


def _settings(artifact: Artifact, variant: str, threads: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"PERFORMANCE_HINT": variant.upper(), "INFERENCE_NUM_THREADS": threads}
    if artifact.precision not in (Precision.FP16, Precision.BF16):
        # Left alone, OpenVINO runs float layers in bf16 where the CPU can: no longer what the file says.
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    return settings


def _compile(path: str, settings: dict[str, Any]) -> openvino.CompiledModel:
    core = _core()
    try:
        return core.compile_model(core.read_model(path), "CPU", settings)
    except RuntimeError as error:
        hint = "It may be damaged, made for another target, or of a newer opset."
        raise _refused(path, error, hint) from None


def open_session(artifact: Artifact, options: SessionOptions) -> OpenVinoSession:
    """Compile an ONNX file; InputError when OpenVINO refuses it."""
    path = str(artifact.file)
    threads = options.threads or machine.facts()["cores"]
    variant = options.variant or next(iter(VARIANTS))
    compiled = _compile(path, _settings(artifact, variant, threads))
    batch = compiled.inputs[0].get_partial_shape()[0]
    executed = _executed(compiled)
    # Of a model compiled for latency the property says how many requests keep the CPU busy; one is the quickest.
    streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if variant == "throughput" else 1
    facts = {
        "device": "cpu",
        "precision": "+".join(sorted(executed)) or artifact.precision.value,
        "executed_layers": executed,
        "threads": threads,
        "hint": variant,
        "streams": streams,
        "fixed_batch": batch.get_length() if batch.is_static else None,
        "version": _core().get_versions("CPU")["CPU"].build_number,
    }
    return OpenVinoSession(compiled, path, facts)


def layer_times(artifact: Artifact, options: SessionOptions, repeats: Repeats) -> LayerTimes:
    """Mean times of the layers of an ONNX file as OpenVINO executes them, one request at a time, by its counters.

    With `repeats.runs` at least 2.
    """
    threads = options.threads or machine.facts()["cores"]
    variant = options.variant or next(iter(VARIANTS))
    settings = {**_settings(artifact, variant, threads), "PERF_COUNT": "YES"}
    compiled = _compile(str(artifact.file), settings)
    request = compiled.create_infer_request()
    readings: list[dict[str, openvino.ProfilingInfo]] = []

    def read() -> None:
        readings.append({layer.node_name: layer for layer in request.profiling_info})

    try:
        totals = repeats.time(lambda: request.infer([repeats.pixels], share_inputs=True), read)
    except RuntimeError as error:
        hint = f"It was given a batch of {len(repeats.pixels)}."
        raise _refused(str(artifact.file), error, hint) from None
    executed = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
    kernels = [
        KernelTime(name, layer.node_type, ms, *_origins(executed.get(name)))
        for name, layer in readings[-1].items()
        if layer.status == layer.Status.EXECUTED  # the first reading may miss one that is quick
        for ms in [_mean_ms(readings[0][name], layer, len(readings))]
    ]
    return LayerTimes(kernels, statistics.mean(totals[1:]) - sum(kernel.ms for kernel in kernels))


def _mean_ms(first: openvino.ProfilingInfo, last: openvino.ProfilingInfo, runs: int) -> float:
    """Of the runs after the first counted one: OpenVINO tells the mean of all since the model was compiled."""
    times = [layer.real_time.total_seconds() * 1000 for layer in (first, last)]
    before, all_of_them = WARM_UP + 1, WARM_UP + runs
    return max(0.0, (all_of_them * times[1] - before * times[0]) / (runs - 1))


def _origins(node: openvino.Node | None) -> tuple[tuple[str, ...], str]:
    """The nodes that were fused into one that is executed, and the precision that it computes in."""
    if node is None:
        return (), ""
    names, precision = (node.rt_info[key].astype(str) for key in ("originalLayersNames", "runtimePrecision"))
    return tuple(filter(None, names.split(","))), PRECISIONS.get(precision, precision)
