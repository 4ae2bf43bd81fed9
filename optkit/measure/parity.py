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
    ref, other = reference.astype(np.float64), logits.astype(np.float64)
    difference = np.abs(ref - other)
    signal, noise = (ref**2).sum(axis=1), (difference**2).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    sqnr = 10 * np.log10(np.maximum(signal, tiny) / np.maximum(noise, tiny))
    return Parity(
        max_abs=float(difference.max()),
        max_relative=float(difference.max() / max(np.abs(ref).max(), tiny)),
        agreement=float((ref.argmax(axis=1) == other.argmax(axis=1)).mean()),
        sqnr_db=float(np.clip(sqnr, -MAX_SQNR_DB, MAX_SQNR_DB).mean()),
    )
