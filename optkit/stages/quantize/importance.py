"""How much the logits depend on activations.

What an error e of an activation does to the logits is estimated as Σ (∂r/∂x · e)², with r a random projection of
the logits, so that one backward pass per batch weighs every tensor. That is the diagonal of the Gauss-Newton matrix
of the logits' squared error; Li et al. 2021 (BRECQ, arXiv 2102.05426, section 3.3) take that of the loss of labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optkit.graph.torch_module import GraphModule, Values


def values_and_gradients(
    module: GraphModule, pixels: Tensor, tensors: list[str], generator: torch.Generator
) -> tuple[Values, Values]:
    """Activations by name, and the gradients there of a projection of the logits of `pixels` (n, 3, size, size)."""
    values = {module.input: pixels.contiguous(memory_format=torch.channels_last).requires_grad_()}
    module.run(values, range(len(module.steps)), frozenset({*tensors, module.output}))
    logits = values[module.output]
    signs = torch.randint(0, 2, logits.shape, generator=generator).float() * 2 - 1
    wanted = [values[name] for name in tensors]
    gradients = torch.autograd.grad((logits * signs).sum(), wanted)
    return {name: values[name].detach() for name in tensors}, dict(zip(tensors, gradients, strict=True))


def channel_importance(module: GraphModule, batches: list[Tensor], tensors: list[str], seed: int) -> Values:
    """The mean squared gradient in every channel of activations (n, channels, …), of mean 1 over the channels."""
    generator = torch.Generator().manual_seed(seed)
    sums: Values = {}
    for pixels in batches:
        _, gradients = values_and_gradients(module, pixels, tensors, generator)
        for name, gradient in gradients.items():
            others = [axis for axis in range(gradient.ndim) if axis != 1]
            total = gradient.square().mean(others, keepdim=True) * len(pixels)
            sums[name] = sums[name] + total if name in sums else total
    return {name: total / total.mean().clamp_min(torch.finfo().tiny) for name, total in sums.items()}
