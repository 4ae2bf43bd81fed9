"""First-order Taylor expansion of the loss (Molchanov et al., arXiv 1906.10771, equation 8)."""

from __future__ import annotations

import torch_pruning as tp

NEEDS_GRADIENTS = True


def importance() -> tp.importance.Importance:
    """A channel matters as much as the loss would change without it: |weight · gradient|, over its group."""
    return tp.importance.GroupTaylorImportance()
