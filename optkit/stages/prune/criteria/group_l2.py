"""L2 norm over all weights that a channel couples (DepGraph, arXiv 2301.12900, section 3.4)."""

from __future__ import annotations

import torch_pruning as tp

NEEDS_GRADIENTS = False


def importance() -> tp.importance.Importance:
    """A channel matters as much as its weights are large, in every layer it passes through."""
    return tp.importance.GroupMagnitudeImportance(p=2)
