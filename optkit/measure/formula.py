"""The textbook's formulas for FLOPs and parameters of a layer, and why the exact count differs from them.

A convolution costs 2·H·W·C_in·C_out·K² FLOPs, H×W being its input (Molchanov et al., arXiv 1611.06440, appendix
A.1), and has C_in·C_out·K² + C_out parameters. A depthwise-separable one, that is, a K×K convolution of every
channel alone and a 1×1 convolution, costs 2·H·W·C_in·(K² + C_out) (MobileNets, arXiv 1704.04861, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerShape:
    """A convolution or a linear layer (kernel 1). `kernel` is K² (of any form), positions are H·W or tokens."""

    in_channels: int
    out_channels: int
    kernel: int
    groups: int
    in_positions: int
    out_positions: int
    has_bias: bool

    def formula_flops(self) -> int:
        """2·H·W·C_in·C_out·K²."""
        return 2 * self.in_positions * self.in_channels * self.out_channels * self.kernel

    def formula_params(self) -> int:
        """C_in·C_out·K² + C_out."""
        return self.in_channels * self.out_channels * self.kernel + self.out_channels

    def exact_flops(self) -> int:
        """2·H·W·(C_in/groups)·C_out·K², H×W being the output."""
        weights = self.in_channels * self.out_channels * self.kernel // self.groups
        return 2 * self.out_positions * weights

    def separable_flops(self) -> int:
        """2·H·W·C_in·(K² + C_out) for an ordinary K×K convolution, H×W being its output; others stay."""
        if self.kernel == 1 or self.groups > 1:
            return self.exact_flops()
        return 2 * self.out_positions * self.in_channels * (self.kernel + self.out_channels)

    def why(self) -> str:
        """Why the count of this layer is not what the formulas say; empty when it is."""
        found = []
        if self.in_positions != self.out_positions:
            found.append(f"stride, padding ×{self.out_positions / self.in_positions:.3g}")
        if self.groups > 1:
            kind = "depthwise" if self.groups == self.in_channels else "groups"
            found.append(f"{kind} ÷{self.groups}")
        if not self.has_bias:
            found.append("no bias")
        return ", ".join(found)

    def steps(self) -> list[tuple[int, int]]:
        """(FLOPs, parameters) by the formulas, then after each of `REASONS`."""
        flops, params = self.formula_flops(), self.formula_params()
        at_output = flops * self.out_positions // self.in_positions
        grouped = (params - self.out_channels) // self.groups + self.out_channels
        unbiased = grouped if self.has_bias else grouped - self.out_channels
        exact = self.exact_flops()
        return [(flops, params), (at_output, params), (exact, grouped), (exact, unbiased)]


FORMULA = "by the formulas"
REASONS = (
    "stride and padding: the output is not H×W",
    "grouped, depthwise: every output has C_in/groups inputs",
    "layers without a bias",
)
OTHERS = "normalisation's parameters, products outside of layers"
COUNTED = "counted"


def by_formula(shape: LayerShape | None) -> dict[str, Any]:
    """What the formulas say of one layer; all None where they do not apply."""
    if shape is None:
        return {"formula_flops": None, "formula_params": None, "why": "no formula for this layer"}
    return {
        "formula_flops": shape.formula_flops(),
        "formula_params": shape.formula_params(),
        "why": shape.why(),
    }


def explain(shapes: list[LayerShape], macs: int, params: int) -> list[dict[str, Any]]:
    """From the formulas to the exact count, reason by reason: {"reason", "flops", "params"}.

    The rows between the first and the last are differences; all but the last add up to the last.
    """
    sums = [
        [sum(parts) for parts in zip(*step, strict=True)]
        for step in zip(*map(LayerShape.steps, shapes), strict=True)
    ]
    sums = [*(sums or [[0, 0]] * (len(REASONS) + 1)), [2 * macs, params]]
    rows = [{"reason": FORMULA, "flops": sums[0][0], "params": sums[0][1]}]
    for reason, before, after in zip((*REASONS, OTHERS), sums, sums[1:], strict=False):
        rows.append({"reason": reason, "flops": after[0] - before[0], "params": after[1] - before[1]})
    return [*rows, {"reason": COUNTED, "flops": 2 * macs, "params": params}]


def with_separable(shapes: list[LayerShape], macs: int) -> int:
    """FLOPs of the network if every ordinary K×K convolution were depthwise-separable."""
    return 2 * macs + sum(shape.separable_flops() - shape.exact_flops() for shape in shapes)
