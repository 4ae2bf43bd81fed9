"""Arithmetic, processes and devices."""

from __future__ import annotations

import pytest
import torch

from optkit.core.errors import MissingError, UsageError
from optkit.train.config import TrainConfig
from optkit.train.engine import make_fabric


def test_auto_precision_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for features, size, expected in (
        (["avx512_bf16"], 224, "bf16-mixed"),
        (["avx512_bf16"], 48, "32-true"),
        ([], 224, "32-true"),
    ):
        monkeypatch.setattr("optkit.core.machine.facts", lambda features=features: {"cpu_features": features})
        assert make_fabric(TrainConfig(), size, 0).strategy.precision.precision == expected


def test_half_precision_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="fp16 training needs a GPU"):
        make_fabric(TrainConfig(precision="fp16"), 32, 0)


def test_a_batch_must_be_divisible_by_the_processes() -> None:
    with pytest.raises(UsageError, match="cannot be shared by 3 processes"):
        make_fabric(TrainConfig(devices=3, batch_size=16, precision="fp32"), 32, 0)


def test_processes_are_devices_times_nodes() -> None:
    assert TrainConfig(devices=2, nodes=3).processes() == 6


def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MissingError, match="this machine has 1 GPU"):
        make_fabric(TrainConfig(devices=2), 32, 0)
