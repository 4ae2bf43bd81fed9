"""Nothing to measure or to learn from is the user's error, not a division by zero."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from torch import nn

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.train.config import TrainConfig
from optkit.train.engine import make_fabric
from optkit.train.evaluation import evaluate_module
from optkit.train.features import compute_features


def test_no_image_that_can_be_decoded() -> None:
    module, fabric = nn.Linear(2, 2), make_fabric(TrainConfig(), 32, 0)
    with pytest.raises(InputError, match="No validation image"):
        evaluate_module(module, [], 3, fabric, SilentReporter(), nullcontext)
    with pytest.raises(InputError, match="No image can be decoded"):
        compute_features(module, [], 3, fabric, SilentReporter())
