"""Distillation losses, one file each: `loss(student, teacher, labels, temperature) -> scalar tensor`.

They live here and not in a stage because distillation and the recovery after pruning share them.
"""
