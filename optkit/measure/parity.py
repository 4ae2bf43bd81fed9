"""How far two sets of logits of the same images are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SQNR_DB = 200.0  # equal logits: infinity, which JSON lacks; float32 itself ends near 150 dB


@dataclass(frozen=True)
class Parity:
    """`sqnr_db`: mean over images of 10·log10(Σ ref² / Σ (ref − x)²); `max_relative`: the largest absolute
    difference over the largest reference logit; `agreement`: share of images with the same top-1."""

    max_abs: float
    max_relative: float
    agreement: float
    sqnr_db: float


def compare_logits(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Parity:
    """Compare two finite (n, classes) arrays, n at least 1."""
    if reference.shape != logits.shape or not reference.size:
        raise ValueError(f"need two equal, non-empty shapes, got {reference.shape} and {logits.shape}")
    largest, difference = np.abs(reference).max(), np.abs(reference.astype(np.float64) - logits).max()
    return Parity(
        max_abs=float(difference),
        max_relative=float(difference / max(largest, np.finfo(np.float64).tiny)),
        agreement=float((reference.argmax(axis=1) == logits.argmax(axis=1)).mean()),
        sqnr_db=float(image_sqnr(reference, logits).mean()),
    )


def image_sqnr(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The SQNR in dB of every image (n,), between ±MAX_SQNR_DB."""
    signal = (reference.astype(np.float64) ** 2).sum(axis=1)
    noise = ((reference.astype(np.float64) - logits) ** 2).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    decibels: NDArray[np.float64] = 10 * (
        np.log10(np.maximum(signal, tiny)) - np.log10(np.maximum(noise, tiny))
    )
    return np.clip(decibels, -MAX_SQNR_DB, MAX_SQNR_DB)
