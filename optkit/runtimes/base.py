"""The protocol of a runtime, and how stages open a model with one.

A runtime module has

* `FORMATS`: the artifact formats it executes,
* `VARIANTS`: its ways to execute them, each with one line about it; the first is the default. Empty: one way,
* `unavailable(variant="") -> str | None`: why it cannot run on this machine (with the remedy), None when it can,
* `open_session(artifact, options) -> Session`,
* `IMPORTS`: the packages that opening a session imports, which takes most of the time of opening a small model.

People name a runtime `openvino`, or with a variant `openvino:throughput`. Nothing heavy is imported before a
session is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optkit.core import discover
from optkit.core.errors import MissingError, UsageError, closest
from optkit.core.types import Artifact, Format

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

PACKAGE = "optkit.runtimes"
DEFAULTS = {Format.TORCH: "pytorch", Format.ONNX: "onnxruntime", Format.ENGINE: "tensorrt"}


@dataclass(frozen=True)
class SessionOptions:
    """How to open a session. `load_module` rebuilds the torch module of a TORCH artifact (eval mode)."""

    load_module: Callable[[Artifact], torch.nn.Module]
    threads: int = 0  # 0: every core this process may use
    needs_answers: bool = True  # False: a runtime that computes nothing will do, to measure the measuring
    variant: str = ""  # the runtime's default
    cuda_graph: bool = False  # on a GPU: replay the recorded kernels of a batch instead of launching each


class Session(Protocol):
    """An opened model.

    `facts` states what really runs: provider, threads, executed precision; `streams`, how many callers at once
    the runtime wants for the highest throughput; where the file limits the batch, `fixed_batch` or `max_batch`; where
    each batch size is compiled anew, `compiled_batches`, those that are.
    """

    facts: dict[str, Any]

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, classes) of a float32 batch (n, 3, size, size); any n where the model allows it."""
        ...

    def stream(self) -> Run:
        """An own caller like `run`, that may run in its own thread at the same time as others."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Profiled(Protocol):
    """A session that can time its parts by the device's own clock."""

    def profile(
        self,
        pixels: NDArray[np.float32],
        repeats: int,
        cuda_graph: bool,
        transfers: bool = True,
        spin_wait: bool = False,
        clock_ns: Callable[[], int] | None = None,
    ) -> dict[str, list[float]]:
        """Milliseconds, run by run: `h2d` (copy in), `compute`, `d2h` (copy out).

        Without `transfers` pixels and logits stay on the device, and only `compute` is there. With `spin_wait` the
        host waits in a loop instead of sleeping. Given the host's clock, `enqueue` says how long launching took.
        """
        ...


class Runtime(Protocol):
    """What a runtime module offers."""

    FORMATS: tuple[Format, ...]
    VARIANTS: dict[str, str]
    IMPORTS: tuple[str, ...]

    def unavailable(self, variant: str = "") -> str | None: ...

    def open_session(self, artifact: Artifact, options: SessionOptions) -> Session: ...


def split_runtime(name: str) -> tuple[str, str]:
    """`openvino:throughput` → (`openvino`, `throughput`); the variant is empty where none is named."""
    module, _, variant = name.partition(":")
    return module, variant


def check_runtime(name: str) -> None:
    """UsageError unless `name` is a runtime, or one with a variant that it has."""
    find_runtime(name)


def runtimes_for(format: Format, wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that execute a format; its default one where none does."""
    found = [name for name in wanted if format in find_runtime(name)[0].FORMATS]
    return found or [DEFAULTS[format]]


def computes(name: str) -> bool:
    """Whether its answers and times are the model's."""
    return bool(getattr(find_runtime(name)[0], "COMPUTES", True))


def runtime_names() -> list[str]:
    """Every runtime, with every variant that it has."""
    found: list[str] = []
    for module in discover.names(PACKAGE):
        variants = find_runtime(module)[0].VARIANTS
        found += [f"{module}:{variant}" for variant in variants] or [module]
    return found


def why_unavailable(name: str) -> str | None:
    """Why a runtime, named with or without a variant, cannot run here; None when it can."""
    runtime, variant = find_runtime(name)
    return runtime.unavailable(variant)


def import_packages(name: str) -> None:
    """Import what a session of that runtime will need; what is not installed is told when one is opened."""
    for package in filter(discover.installed, find_runtime(name)[0].IMPORTS):
        importlib.import_module(package)


def find_runtime(name: str) -> tuple[Runtime, str]:
    """The runtime module and the variant that `name` says; UsageError where there is none of that name."""
    module, variant = split_runtime(name)
    runtime: Runtime = discover.load(PACKAGE, module, "runtime")
    if ":" not in name or variant in runtime.VARIANTS:
        return runtime, variant
    hint = closest(variant, runtime.VARIANTS) if runtime.VARIANTS else f"It has no variants: {module}"
    raise UsageError(f"The runtime {module!r} has no variant {variant!r}.", hint=hint)


def open_artifact(artifact: Artifact, name: str | None, options: SessionOptions) -> Session:
    """Open a model with the runtime `name`, or its format's default one; `options.variant` is set by the name.

    UsageError when that runtime does not execute the format, MissingError when it cannot run here.
    """
    runtime, variant = check_opens(artifact, name or DEFAULTS[artifact.format], options.needs_answers)
    return runtime.open_session(artifact, replace(options, variant=variant))


def check_opens(artifact: Artifact, name: str, needs_answers: bool) -> tuple[Runtime, str]:
    """The runtime module and the variant called `name`, which can execute this model here, as far as can be told
    without opening it; raises as `open_artifact` does."""
    runtime, variant = find_runtime(name)
    if artifact.format not in runtime.FORMATS:
        raise UsageError(
            f"The runtime {name!r} does not execute {artifact.format.value} models.",
            hint=f"{DEFAULTS[artifact.format]!r} does.",
        )
    if needs_answers and not getattr(runtime, "COMPUTES", True):
        raise UsageError(
            f"The runtime {name!r} computes nothing: its answers are not the model's.",
            hint=f"Use {DEFAULTS[artifact.format]!r}.",
        )
    if reason := runtime.unavailable(variant):
        raise MissingError(
            f"It cannot be executed here: {describe(artifact)}.",
            why=f"{name}: {reason}.",
            hint=_instead(artifact),
        )
    return runtime, variant


def describe(artifact: Artifact) -> str:
    """What a model is: kind, version and target of an engine, precision, preprocessing."""
    spec, pre = artifact.spec, artifact.spec.preprocess
    kind = _engine_text(artifact) if artifact.format == Format.ENGINE else f"{artifact.format.value} model"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    fit = "squashed" if pre.crop_mode == "squash" else f"cropped to {pre.crop_pct:g}"
    return (
        f"{kind}; {spec.arch} with {spec.num_classes} classes, precision {artifact.precision.value}; "
        f"input {pre.size} px, {pre.interpolation}, {fit}, mean {mean}, std {std}"
    )


def _engine_text(artifact: Artifact) -> str:
    from optkit.runtimes.tensorrt import engine_file

    return engine_file.summary(artifact.manifest.details.get("engine") or engine_file.describe(artifact.file))


def _instead(artifact: Artifact) -> str:
    """What to do with a model that cannot run here: an engine's export leaves its ONNX file beside it."""
    if artifact.format != Format.ENGINE:
        return "`optkit doctor` says what this machine has."
    sibling = artifact.path / Format.ONNX.filename
    found = sibling if sibling.is_file() else "THE_ONNX_FILE_IT_WAS_BUILT_FROM"
    return f"Its ONNX file runs here: optkit bench {found}"


def any_batch(session: Session) -> Run:
    """`session.run` for any number of images, also where `facts["fixed_batch"]` says that the file fixes it.

    The images are run in pieces of that size, the last one filled up with zeros; where each batch size is compiled
    anew, fewer images than a size in `facts["compiled_batches"]` are filled up too. For answers, not for timing.
    """
    fixed, compiled = session.facts.get("fixed_batch"), session.facts.get("compiled_batches")
    if not fixed and compiled is None:
        return session.run
    import numpy as np

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        size = fixed or min((one for one in compiled or () if one >= len(pixels)), default=len(pixels))
        missing = -len(pixels) % size
        filled = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.float32)])
        pieces = [session.run(filled[start : start + size]) for start in range(0, len(filled), size)]
        return np.concatenate(pieces)[: len(pixels)]

    return run
