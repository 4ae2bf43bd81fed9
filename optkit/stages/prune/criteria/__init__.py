"""Pruning criteria, one file each: `importance() -> torch_pruning importance` and `NEEDS_GRADIENTS`."""
