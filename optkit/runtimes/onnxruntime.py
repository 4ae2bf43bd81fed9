"""ONNX Runtime and its execution providers."""

from __future__ import annotations

import importlib.util
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core import discover, machine
from optkit.core.errors import InputError, MissingError
from optkit.core.foreign import cause, onnxruntime_refusals
from optkit.core.types import Artifact, Format, Precision
from optkit.runtimes import _onnxruntime_profile
from optkit.runtimes._kernels import LayerTimes, Repeats
from optkit.runtimes._onnxruntime_cuda import CudaOrtSession
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    from optkit.runtimes.base import Run

FORMATS = (Format.ONNX,)
IMPORTS = ("onnxruntime",)
VARIANTS = {
    "auto": "CUDA where the package offers it and there is a GPU, else the CPU",
    "cpu": "ONNX Runtime's own kernels",
    "cuda": "CUDA and cuDNN",
    "tensorrt": "TensorRT for the parts of the graph that it takes, CUDA for the rest",
    "openvino": "OpenVINO on the CPU for the parts of the graph that it takes",
}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# Every one of these packages is the module `onnxruntime`: only one of them can be installed.
BUILDS = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}
ON_GPU = {PROVIDERS["cuda"]: "cuda", PROVIDERS["tensorrt"]: "cuda"}


def unavailable(variant: str = "") -> str | None:
    """Whether the package is there, with the variant's provider, and the GPU that the provider needs."""
    if not discover.installed("onnxruntime"):
        return "onnxruntime is not installed: pip install 'optkit[cpu]' (or 'optkit[gpu]' for CUDA)"
    build = BUILDS.get(variant)
    if build is None:
        return None
    if not _built_in(variant):
        return (
            f"the installed build of onnxruntime has no {PROVIDERS[variant]}: "
            f"pip uninstall onnxruntime, then pip install {build}"
        )
    if build == "onnxruntime-gpu" and not machine.gpus():
        return "there is no CUDA device here (nvidia-smi names none): run it on a machine with an NVIDIA GPU"
    return None


def _built_in(variant: str) -> bool:
    """Whether the package has the provider's library; asking the package itself would import it."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec else None) or []
    pattern = f"capi/*onnxruntime_providers_{variant}.*"
    return any(any(Path(folder).glob(pattern)) for folder in folders)


DAMAGED = "It may be damaged, made for another target, or of a newer opset."
CPU = PROVIDERS["cpu"]
X86 = ("x86_64", "AMD64")
# Precisions that its CPU provider does not run.
CPU_HINTS = {
    Precision.BF16: "On a CPU it has no BF16 kernels: use --runtimes openvino, or build an engine for a GPU.",
    Precision.FP8: "On a CPU its graph optimiser fails on Q/DQ in FP8: build an engine, "
    "`optkit export --format tensorrt --target SM89`.",
}
INPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def _refusals() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return onnxruntime_refusals(errors)


def _refused(path: str, error: Exception, hint: str) -> InputError:
    why = " ".join(str(error).split())[:300]
    return InputError(f"ONNX Runtime refuses {path!r}.", why=why, hint=hint)


class OrtSession:
    """A float image input and one output; `facts["fixed_batch"]` is the batch of a file that fixes it."""

    def __init__(self, session: onnxruntime.InferenceSession, path: str, facts: dict[str, Any]) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._path = path
        self._input = session.get_inputs()[0]
        self._output = session.get_outputs()[0].name
        if self._input.type not in INPUT_TYPES:
            raise InputError(
                f"The input of {path!r} is {self._input.type}.",
                why="optkit feeds normalised float images.",
                hint="Export the model with a float32 or float16 input.",
            )
        self._dtype = INPUT_TYPES[self._input.type]
        self._refusals = _refusals()
        self.facts = facts

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._session is None:
            raise ValueError("the session is closed")
        feed = {self._input.name: pixels.astype(self._dtype, copy=False)}
        try:
            logits: NDArray[Any] = self._session.run([self._output], feed)[0]
        except self._refusals as error:
            raise _refused(self._path, error, f"Its input is {self._input.shape}.") from None
        return logits.astype("float32", copy=False)

    def stream(self) -> Run:
        """The session itself: it takes calls of several threads at once."""
        return self.run

    def close(self) -> None:
        self._session = None


def _options(threads: int, profile: Path | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal only: errors come as exceptions
    # Threads spin within a run, as by default, but not after it: they would slow down whatever else is
    # measured in the same process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _executed(stored: Precision, provider: str) -> Precision:
    """What a file of this precision is computed in: on x86 the CPU provider casts FP16 to FP32 and back."""
    in_fp32 = stored is Precision.FP16 and provider == CPU and platform.machine() in X86
    return Precision.FP32 if in_fp32 else stored


def _wanted(variant: str) -> list[str]:
    """Providers in the order in which they may take nodes; the CPU takes what is left."""
    import onnxruntime

    if variant in PROVIDERS:
        with_cuda = [PROVIDERS["cuda"]] if variant == "tensorrt" else []
        return list(dict.fromkeys([PROVIDERS[variant], *with_cuda, CPU]))
    offered = onnxruntime.get_available_providers()
    return [name for name in (PROVIDERS["cuda"], CPU) if name in offered]


def _settings(provider: str, threads: int, cuda: dict[str, str]) -> dict[str, str]:
    """Options of a provider."""
    if provider != PROVIDERS["openvino"]:
        return cuda if provider == PROVIDERS["cuda"] else {}
    # Else it takes every core, and computes float layers in bf16 where the CPU can.
    config = {"CPU": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}
    return {"device_type": "CPU", "load_config": json.dumps(config)}


def _start(
    artifact: Artifact,
    variant: str,
    threads: int,
    profile: Path | None = None,
    cuda: dict[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    """InputError when ONNX Runtime refuses the file, MissingError when it does not take the variant's provider.

    `profile`: how the names of the files begin that its profiler writes; `cuda`: options of the CUDA provider.
    """
    import onnxruntime

    path, wanted = str(artifact.file), _wanted(variant)
    named = variant in PROVIDERS
    try:
        session = onnxruntime.InferenceSession(
            path,
            _options(threads, profile),
            providers=[(name, _settings(name, threads, cuda or {})) for name in wanted],
            # Left alone, it prints that a provider failed and goes on without it.
            enable_fallback=not named,
        )
    except _refusals() as error:
        hint = CPU_HINTS.get(artifact.precision, DAMAGED) if wanted == [CPU] else DAMAGED
        raise _refused(path, error, hint) from None
    except RuntimeError as error:  # a provider whose libraries do not load
        raise _not_taken(wanted[0], cause(error)) from None
    session.disable_fallback()
    if named and (taken := session.get_providers()[0]) != PROVIDERS[variant]:
        raise _not_taken(wanted[0], f"It fell back to {taken}, as where libraries are absent or too old.")
    return session


def _not_taken(provider: str, why: str) -> MissingError:
    return MissingError(
        f"ONNX Runtime did not take {provider}.",
        why=why,
        hint="Look at its requirements (CUDA, cuDNN, TensorRT, driver), and see `optkit doctor`.",
    )


def open_session(artifact: Artifact, options: SessionOptions) -> OrtSession | CudaOrtSession:
    """Open an ONNX file with all graph optimisations; InputError when ONNX Runtime refuses it."""
    threads = options.threads or machine.facts()["cores"]
    session = _start(artifact, options.variant, threads)
    path, facts = str(artifact.file), _facts(session, artifact.precision, threads)
    opened = OrtSession(session, path, facts)
    if facts["provider"] != PROVIDERS["cuda"] or not _torch_has_cuda():
        return opened
    facts["cuda_graph"], shape = options.cuda_graph, session.get_inputs()[0].shape
    opened.close()
    return CudaOrtSession(
        lambda settings: _start(artifact, options.variant, threads, cuda=settings),
        artifact.spec.num_classes,
        facts,
        _refusals(),
        lambda error: _refused(path, error, f"Its input is {shape}."),
    )


def _facts(session: onnxruntime.InferenceSession, stored: Precision, threads: int) -> dict[str, Any]:
    import onnxruntime

    batch = session.get_inputs()[0].shape[0]
    provider = session.get_providers()[0]  # what was taken, not what was asked for
    facts = {
        "device": ON_GPU.get(provider, "cpu"),
        "provider": provider,
        "precision": _executed(stored, provider).value,
        "threads": threads,
        "streams": 1,
        "fixed_batch": batch if isinstance(batch, int) else None,
        "version": onnxruntime.__version__,
    }
    if facts["device"] == "cuda":
        facts["tf32"] = True  # the provider's default for float32 matrix products
    return facts


def _torch_has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def layer_times(artifact: Artifact, options: SessionOptions, repeats: Repeats) -> LayerTimes:
    """Times of the kernels of an ONNX file, by ONNX Runtime's profiler; MissingError where that cannot tell them."""
    threads = options.threads or machine.facts()["cores"]
    if (provider := _wanted(options.variant)[0]) in ON_GPU:
        raise MissingError(
            "ONNX Runtime does not tell the times of layers on a GPU.",
            why=f"With {provider} its profiler tells how long launching them took.",
            hint="Build an engine: TensorRT tells them.",
        )
    try:
        return _onnxruntime_profile.profile(
            lambda prefix: _start(artifact, options.variant, threads, prefix), repeats
        )
    except _refusals() as error:
        hint = f"It was given a batch of {len(repeats.pixels)}."
        raise _refused(str(artifact.file), error, hint) from None


def model_layer_times(model: bytes, threads: int, repeats: Repeats) -> LayerTimes:
    """The same of a serialised ONNX model, on the CPU."""
    import onnxruntime

    return _onnxruntime_profile.profile(
        lambda prefix: onnxruntime.InferenceSession(model, _options(threads, prefix), providers=[CPU]),
        repeats,
    )
