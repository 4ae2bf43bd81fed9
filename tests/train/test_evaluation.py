"""Nothing to measure or to learn from is the user's error, not a division by zero."""

from __future__ import annotations

import pytest
from torch import nn

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.train.config import TrainConfig
from optkit.train.evaluation import evaluate_module
from optkit.train.head import compute_features
from optkit.train.loop import make_fabric


def test_no_image_that_can_be_decoded() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(InputError, match="No validation image"):
        evaluate_module(module, [], 3, SilentReporter())
    with pytest.raises(InputError, match="No training image"):
        compute_features(module, [], 3, make_fabric(TrainConfig(), 32, 0), SilentReporter())
