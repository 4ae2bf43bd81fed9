"""Does the exported file answer as the network does, at every batch size it promises?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Format, Manifest, ModelSpec
from optkit.measure.parity import compare_logits
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import Session, SessionOptions

RUNTIME = "onnxruntime"
TOLERANCE = 1e-3  # float32 kernels of two libraries differ by about 1e-5 on a deep network
CELLS = (1, 3, 8)  # how coarse the structures in a test image are


def structured_images(count: int, size: int, seed: int) -> NDArray[np.float32]:
    """Normalised images (count, 3, size, size) of standard deviation 1 with structure at several scales.

    White noise would not do: averaged over a network's receptive fields, all of it looks alike.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((count, 3, size, size))
    for cells in CELLS:
        index = np.arange(size) * cells // size
        pixels += rng.standard_normal((count, 3, cells, cells))[:, :, index][:, :, :, index]
    return np.asarray(pixels / np.sqrt(1 + len(CELLS)), np.float32)


def check_parity(
    module: torch.nn.Module, path: Path, spec: ModelSpec, max_batch: int, seed: int, reporter: Reporter
) -> dict[str, dict[str, float]]:
    """Compare the ONNX file with `module` at batch 1, 2 and `max_batch`; InputError when they differ.

    The error of a batch is the largest difference of two logits over the spread of the logits between images,
    so that small logits make no easy test.
    """
    runtime = discover.load("optkit.runtimes", RUNTIME, "runtime")
    if reason := runtime.unavailable():
        reporter.warn(f"The ONNX file was not compared with the network: {reason}.")
        return {}
    images = structured_images(max(max_batch, 2), spec.preprocess.size, seed)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    scale = _scale(expected, reporter)
    session: Session = runtime.open_session(_handle(path, spec), SessionOptions(load_module))
    found = {}
    for batch in sorted({1, 2, max_batch}):
        found[str(batch)] = _compare(expected[:batch], session.run(images[:batch]), scale, batch)
    session.close()
    return found


def _handle(path: Path, spec: ModelSpec) -> Artifact:
    manifest = Manifest(stage="export", key="", format=Format.ONNX, spec=spec)
    return Artifact(key="", path=path.parent, manifest=manifest)


def _scale(expected: NDArray[np.float32], reporter: Reporter) -> float:
    """How far a class's logits lie apart between images, at least a thousandth of the largest logit."""
    spread, largest = float(np.ptp(expected, axis=0).max()), float(np.abs(expected).max())
    if spread < 1e-3 * max(largest, 1.0):
        reporter.warn(
            f"The comparison of the ONNX file with the network says little: between test images the logits "
            f"differ by no more than {spread:.1e} (largest: {largest:.1e}). Are these trained weights?"
        )
    return max(spread, 1e-3 * largest, float(np.finfo(np.float32).tiny))


def _compare(
    expected: NDArray[np.float32], logits: NDArray[np.float32], scale: float, batch: int
) -> dict[str, Any]:
    if logits.shape != expected.shape:
        why = f"The output's shape is {logits.shape}, expected {expected.shape}."
    elif not np.isfinite(logits).all():
        why = "There are logits that are not finite."
    else:
        error = float(np.abs(expected - logits).max()) / scale
        if error <= TOLERANCE:
            parity = compare_logits(expected, logits)
            return {"max_rel_error": error, "agreement": parity.agreement, "sqnr_db": parity.sqnr_db}
        why = f"The largest difference is {error:.2g} of the logits' spread; {TOLERANCE} is allowed."
    raise InputError(
        f"The exported ONNX file does not answer as the network does at batch {batch}.",
        why=why,
        hint="Nothing was written. The exporter mistranslates this network: try another --opset.",
    )
