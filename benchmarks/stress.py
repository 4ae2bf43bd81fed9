"""The stress variant of a network: the same function, with activation ranges that per-tensor INT8 cannot serve."""

from __future__ import annotations

import numpy as np
import onnx

from optkit.graph.qdq_view import GraphView
from optkit.graph.rescale import channel_groups, rescale


def stress(model: onnx.ModelProto, seed: int, max_ratio: float = 100.0) -> onnx.ModelProto:
    """A copy of a prepared model that computes the same, with the channels of its linear bottlenecks spread.

    In each group of bottlenecks that a residual stage joins, factors are log-uniform and the largest is
    `max_ratio` times the smallest. ValueError for a model without linear bottlenecks.
    """
    groups = [group for group in channel_groups(GraphView(model)) if group.linear]
    if not groups:
        raise ValueError("the model has no linear bottleneck whose channels can be rescaled")
    rng = np.random.default_rng(seed)
    factors = {}
    for group in groups:
        shares = rng.uniform(size=group.channels)
        shares = (shares - shares.min()) / np.ptp(shares)  # both ends occur
        factors[group] = max_ratio ** (shares - 0.5)
    return rescale(model, factors)
