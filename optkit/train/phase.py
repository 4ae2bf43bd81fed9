"""What a phase of training is, and what all phases of one training share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.progress import Reporter
from optkit.train.checkpoints import Checkpoints, Progress
from optkit.train.config import TrainConfig
from optkit.train.objectives import Objective
from optkit.train.regularisation import Mixer
from optkit.train.stand_ins import plain_state

STATE = "state"  # the checkpoint that a killed training goes on from
BEST = "best"


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    `batches(epoch, start)` yields what has `.views` and `.labels`, from step `start` on; `steps` is their number
    in a whole epoch. `evaluate()` measures the validation images; `is_shared`: the processes split every batch,
    else each of them does the whole work. After the `is_final` phase the finished network is measured anyhow.
    """

    index: int
    name: str
    epochs: int
    lr: float
    steps: int
    batches: Callable[[int, int], Iterable[Any]]
    objective: Objective
    evaluate: Callable[[], dict[str, float]]
    mixer: Mixer | None = None
    is_shared: bool = True
    is_final: bool = False


@dataclass
class Run:
    """What all phases of a training share. `network` is the whole network, of which a phase may train a part."""

    network: nn.Module
    options: TrainConfig
    fabric: Fabric
    reporter: Reporter
    checkpoints: Checkpoints
    progress: Progress
    seed: int

    def save(self, states: dict[str, Any]) -> None:
        """Write the checkpoint that a killed training goes on from."""
        if self.fabric.is_global_zero:
            state = {"progress": asdict(self.progress), "network": plain_state(self.network), **states}
            self.checkpoints.save(STATE, state)


class Diverged(UsageError):
    """The loss is no longer a number. `phase` counts from 1, None when there is one learning rate only."""

    def __init__(self, lr: float, epoch: int, loss: float, phase: int | None = None) -> None:
        option = "--lr" if phase is None else f"in phase {phase} an lr of"
        super().__init__(
            f"Training diverged in epoch {epoch}: the loss is {loss}.",
            why=f"The learning rate {lr:g} is too large for this network.",
            hint=f"Try {option} {lr / 10:g}.",
        )
