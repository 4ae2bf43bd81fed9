"""Cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721, section 4.1), for whole residual stages.

A tensor has one INT8 step for all channels, as large as its widest channel wants it. Widening the narrow channels
makes the step smaller for them, at no cost for what makes them: weights have a scale per output channel. The layers
that sum over the channels pay, as their weights spread over a wider range: `alpha` weighs one against the other, as
in SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4).
"""

from __future__ import annotations

import numpy as np
import onnx

from optkit.graph.qdq import QdqPlan
from optkit.graph.qdq_view import GraphView
from optkit.graph.rescale import Array, channel_groups, column_magnitudes, rescale
from optkit.stages.quantize.channel_ranges import ChannelRange

MAX_FACTOR = 1e4  # a channel that is nearly dead on the calibration images may not be so on others


def channels_to_observe(view: GraphView, planned: QdqPlan) -> dict[str, int]:
    """The quantised tensors whose channels can be rescaled, with their number of channels; may be empty."""
    observed = set(planned.observed())
    return {
        name: group.channels for group in channel_groups(view) for name in group.tensors if name in observed
    }


def equalise(model: onnx.ModelProto, ranges: dict[str, ChannelRange], alpha: float) -> onnx.ModelProto:
    """A copy that computes the same with channels of more equal range; names stay, so a plan stays valid.

    `alpha` 1 equalises activations wholly, 0 weights. Ranges of whole tensors must be observed again.
    """
    view = GraphView(model)
    factors = {}
    for group in channel_groups(view):
        observed = [ranges[name] for name in group.tensors if name in ranges]
        if observed:
            factors[group] = _factors(_reach(observed), column_magnitudes(view, group), alpha)
    return rescale(model, factors)


def _reach(observed: list[ChannelRange]) -> Array:
    """(channels,) share of a tensor's range that a channel takes, where it takes most.

    Below and above zero apart and over all tensors of the group, so that dividing by it widens no range.
    """
    tiny = np.finfo(np.float32).tiny
    ends = [end.astype(np.float64) for entry in observed for end in (-entry.low, entry.high)]
    shares: Array = np.max([end / max(end.max(), tiny) for end in ends], axis=0)
    return shares


def _factors(reach: Array, columns: Array, alpha: float) -> Array:
    """Factors around 1; dead channels take 1, and where only depthwise layers read, nobody pays."""
    live = reach > 0
    if not live.any():
        return np.ones_like(reach)
    if not columns.any():
        alpha = 1.0
    columns = np.where(columns > 0, columns, 1.0)
    logarithms = (1 - alpha) * np.log(columns[live]) - alpha * np.log(reach[live])
    factors = np.ones_like(reach)
    factors[live] = np.exp(logarithms - logarithms.mean())
    return factors.clip(1 / MAX_FACTOR, MAX_FACTOR)
