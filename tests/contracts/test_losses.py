"""Every distillation loss, found by its file, is a distillation loss."""

from __future__ import annotations

import pytest
import torch

from optkit.core import discover


@pytest.mark.parametrize("name", discover.names("optkit.train.losses"))
def test_every_distillation_loss(name: str) -> None:
    """Zero at the teacher, larger away from it, with a gradient that leads there."""
    loss = discover.load("optkit.train.losses", name, "distillation loss").loss
    torch.manual_seed(0)
    teacher = torch.randn(16, 5) * 3
    labels = teacher.argmax(1)
    assert loss(teacher.clone(), teacher, labels, 2.0).item() == pytest.approx(0, abs=1e-5)
    student = torch.zeros(16, 5, requires_grad=True)
    start = loss(student, teacher, labels, 2.0)
    assert start.item() > 0.01
    start.backward()
    closer = (student - 0.5 * student.grad).detach()
    assert loss(closer, teacher, labels, 2.0) < start
