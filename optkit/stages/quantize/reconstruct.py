"""Learn how the weights of a block are rounded, and its biases, so that the block's outputs stay.

A block is what lies between two points where the network is as narrow as one tensor. Its inputs are what the
quantised blocks before it make, its target is what the FP32 network makes there, every channel weighed by how much
the logits depend on it (Li et al. 2021, BRECQ, arXiv 2102.05426, sections 3.2 and 3.3). Gradients pass straight
through the rounding (Bengio et al. 2013, arXiv 1308.3432, section 4). AdaRound's relaxation (Nagel et al. 2020,
arXiv 2004.10568, section 3.3) won less in as many steps: with 5-bit weights in three small networks, channels not
weighed, 0 to 5 dB instead of 8 to 19.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from optkit.graph.qdq_view import GraphView
from optkit.graph.segments import single_value_points
from optkit.graph.torch_module import GraphModule, Step, Values
from optkit.graph.torch_operators import Unsupported
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.importance import channel_importance
from optkit.stages.quantize.refit import BATCH, HELD_OUT, affordable

LAYERS = 3  # with weights in a block, at least: those of an inverted bottleneck
STEPS = 40
LR = 0.03  # codes a step
BIAS_LR = 1e-3  # of the root mean square of a layer's biases: where all are 0 they stay


@dataclass(frozen=True)
class Block:
    """`steps[start:end]` of a module; `source` is the one tensor that it reads, `output` the one that it makes."""

    name: str
    start: int
    end: int
    source: str
    output: str


class Codes:
    """The weights of one layer in units of their scales, so that every channel learns at the same pace."""

    def __init__(self, module: GraphModule, step: Step) -> None:
        scales, axis = module.weight_grids[step.name]
        self.parameter = module.parameter(step.inputs[1])
        self.scales = scales.reshape([-1 if other == axis else 1 for other in range(self.parameter.ndim)])
        self.latent = (self.parameter.detach() / self.scales).requires_grad_()

    def weight(self) -> Tensor:
        """The rounded weight, with gradients as if it were not."""
        rounded = self.latent + (self.latent.round() - self.latent).detach()
        return rounded.clamp(-127, 127) * self.scales


class Reconstruction:
    """The FP32 network and `fitted`, the quantised one, on the way through both with all images.

    `pixels` are (n, 3, size, size); every fourth image decides whether a block is kept as it was learnt.
    """

    def __init__(self, candidate: Candidate, fitted: GraphModule, pixels: Tensor, seed: int) -> None:
        self.reference, self.fitted = GraphModule(candidate.model), fitted
        for step in fitted.steps:
            if step.name not in fitted.weight_grids:  # gradients that nobody asks for would be computed too
                for name in fitted.parameter_names.keys() & set(step.inputs):
                    fitted.parameter(name).requires_grad_(False)
        self.blocks = list(_blocks(GraphView(candidate.model), fitted))
        pixels = pixels[: affordable(self.reference, pixels[:1], copies=4)]
        held = torch.arange(len(pixels)) % HELD_OUT == HELD_OUT - 1
        self.held = held if held.any() else ~held  # a few images have to do for both
        self.fit = ~held
        self.exact = self.quantized = pixels.contiguous(memory_format=torch.channels_last)
        self.images, self.kept = len(pixels), 0
        self.generator = torch.Generator().manual_seed(seed)
        outputs = [block.output for block in self.blocks]
        self.importance = channel_importance(
            self.reference, list(pixels[self.fit].split(BATCH)), outputs, seed
        )

    def learn(self, block: Block) -> None:
        """Learn `block`, keep it or not, and let all images pass through it."""
        layers = [
            step
            for step in self.fitted.steps[block.start : block.end]
            if step.name in self.fitted.weight_grids
        ]
        target = self._outputs(self.reference, self.exact, block)
        outputs = self._outputs(self.fitted, self.quantized, block)
        errors = self._errors(outputs, target, block)
        if layers and errors[self.fit].mean() > 0:
            parameters = [self.fitted.parameter(step.inputs[1]) for step in layers] + self._biases(layers)
            before = [parameter.detach().clone() for parameter in parameters]
            self._fit(block, layers, target, float(errors[self.fit].mean()))
            learnt = self._outputs(self.fitted, self.quantized, block)
            if self._errors(learnt, target, block)[self.held].mean() < errors[self.held].mean():
                self.kept, outputs = self.kept + 1, learnt
            else:
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.data.copy_(value)
        self.exact, self.quantized = target, outputs

    def _biases(self, layers: list[Step]) -> list[Tensor]:
        """Those that learn: other third inputs are not biases of channels."""
        names = [name for step in layers for name in step.inputs[2:3] if name in self.fitted.parameter_names]
        return [one for one in map(self.fitted.parameter, names) if one.requires_grad]

    def _errors(self, outputs: Tensor, target: Tensor, block: Block) -> Tensor:
        """The mean squared error of every image, channels weighed by their importance."""
        return ((outputs - target).square() * self.importance[block.output]).flatten(1).mean(1)

    def _outputs(self, module: GraphModule, x: Tensor, block: Block) -> Tensor:
        with torch.no_grad():
            outputs = torch.cat([_run(module, part, block) for part in x.split(BATCH)])
        if len(outputs) != len(x):
            raise Unsupported("an image has several rows in a block's outputs")
        return outputs

    def _fit(self, block: Block, layers: list[Step], target: Tensor, first_error: float) -> None:
        """Adam on codes and biases; the error counts in units of `first_error`."""
        codes = {step.name: Codes(self.fitted, step) for step in layers}
        biases = self._biases(layers)
        groups = [{"params": [one.latent], "lr": LR} for one in codes.values()]
        groups += [
            {"params": [bias], "lr": BIAS_LR * float(bias.detach().square().mean().sqrt())} for bias in biases
        ]
        adam = torch.optim.Adam(groups)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        images = self.fit.nonzero().flatten()
        for _ in range(STEPS):
            chosen = images[torch.randint(len(images), (BATCH,), generator=self.generator)]
            self.fitted.learning = {name: one.weight() for name, one in codes.items()}
            found = _run(self.fitted, self.quantized[chosen], block)
            adam.zero_grad()
            (self._errors(found, target[chosen], block).mean() / first_error).backward()
            adam.step()
            decay.step()
        for one in codes.values():
            one.parameter.data.copy_(one.weight().detach())
        self.fitted.learning = {}


def _run(module: GraphModule, x: Tensor, block: Block) -> Tensor:
    values: Values = {block.source: x}
    module.run(values, range(block.start, block.end), frozenset({block.output}))
    return values[block.output]


def _blocks(view: GraphView, module: GraphModule) -> Iterator[Block]:
    """Blocks that begin with a layer with weights, as long as it takes to hold LAYERS quantised ones."""
    points = frozenset(single_value_points(view))
    start, source, layers = 0, module.input, 0
    for index, step in enumerate(module.steps):
        if index in points and layers >= LAYERS and view.weight_axis(view.nodes[index]) is not None:
            yield Block(step.name, start, index, source, step.inputs[0])
            start, source, layers = index, step.inputs[0], 0
        layers += step.name in module.weight_grids
    yield Block(module.steps[-1].name, start, len(module.steps), source, module.output)
