"""The protocol of a runtime, and how stages open a model with one.

A runtime module has

* `FORMATS`: the artifact formats it executes,
* `unavailable() -> str | None`: why it cannot run on this machine (with the remedy), None when it can;
  imports nothing heavy,
* `open_session(artifact, options) -> Session`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import MissingError, UsageError
from optkit.core.types import Artifact, Format

if TYPE_CHECKING:
    import torch

PACKAGE = "optkit.runtimes"
DEFAULTS = {Format.TORCH: "pytorch", Format.ONNX: "onnxruntime", Format.ENGINE: "tensorrt"}


@dataclass(frozen=True)
class SessionOptions:
    """How to open a session. `load_module` rebuilds the torch module of a TORCH artifact (eval mode)."""

    load_module: Callable[[Artifact], torch.nn.Module]
    threads: int = 0  # 0: every core this process may use
    needs_answers: bool = True  # False: a runtime that computes nothing will do, to measure the measuring


class Session(Protocol):
    """An opened model. `facts` states what really runs: provider, threads, executed precision; where the file
    limits the batch, `fixed_batch` or `max_batch`.
    """

    facts: dict[str, Any]

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, classes) of a float32 batch (n, 3, size, size); any n where the model allows it."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Profiled(Protocol):
    """A session that can time its parts by the device's own clock, in milliseconds, run by run."""

    def profile(
        self, pixels: NDArray[np.float32], repeats: int, cuda_graph: bool
    ) -> dict[str, list[float]]: ...


class Runtime(Protocol):
    """What a runtime module offers."""

    FORMATS: tuple[Format, ...]

    def unavailable(self) -> str | None: ...

    def open_session(self, artifact: Artifact, options: SessionOptions) -> Session: ...


def open_artifact(artifact: Artifact, name: str | None, options: SessionOptions) -> Session:
    """Open a model with the runtime `name`, or its format's default one.

    UsageError when that runtime does not execute the format, MissingError when it cannot run here.
    """
    name = name or DEFAULTS[artifact.format]
    runtime: Runtime = discover.load(PACKAGE, name, "runtime")
    if artifact.format not in runtime.FORMATS:
        raise UsageError(
            f"The runtime {name!r} does not execute {artifact.format.value} models.",
            hint=f"{DEFAULTS[artifact.format]!r} does.",
        )
    if options.needs_answers and not getattr(runtime, "COMPUTES", True):
        raise UsageError(
            f"The runtime {name!r} computes nothing: its answers are not the model's.",
            hint=f"Use {DEFAULTS[artifact.format]!r}.",
        )
    if reason := runtime.unavailable():
        raise MissingError(
            f"It cannot be executed here: {describe(artifact)}.",
            why=f"{name}: {reason}.",
            hint=_instead(artifact),
        )
    return runtime.open_session(artifact, options)


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


def any_batch(session: Session) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """`session.run` for any number of images, also where `facts["fixed_batch"]` says that the file fixes it.

    The images are run in pieces of that size, the last one filled up with zeros. For answers, not for timing.
    """
    fixed = session.facts.get("fixed_batch")
    if not fixed:
        return session.run

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = -len(pixels) % fixed
        filled = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.float32)])
        pieces = [session.run(filled[start : start + fixed]) for start in range(0, len(filled), fixed)]
        return np.concatenate(pieces)[: len(pixels)]

    return run
