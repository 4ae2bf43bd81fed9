"""Optimisers and learning-rate schedules, through timm's factories."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from optkit.core.errors import MissingError, UsageError, closest
from optkit.train.config import TrainConfig


def check_optimizer(options: TrainConfig) -> None:
    """UsageError for an optimiser that timm does not know, MissingError for one whose package is absent."""
    if options.optimizer not in list_optimizers():
        raise UsageError(
            f"Unknown optimizer {options.optimizer!r}.",
            hint=closest(options.optimizer, [*list_optimizers()]),
        )
    make_optimizer(nn.Linear(2, 2), options, lr=1e-3)


def make_optimizer(module: nn.Module, options: TrainConfig, lr: float) -> Optimizer:
    """Over what learns; norms and biases do not decay, and with `layer_decay` early layers learn more slowly.

    A head on its own has no early layers.
    """
    is_network = hasattr(module, "group_matcher")
    try:
        optimizer: Optimizer = create_optimizer_v2(
            module,
            opt=options.optimizer,
            lr=lr,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            layer_decay=options.layer_decay if is_network else None,
        )
    except ValueError as error:  # momentum 0 with Nesterov's
        raise UsageError(
            f"The optimizer {options.optimizer!r} does not take these options.",
            why=str(error),
            hint="Change --momentum, or choose another: adamw, adam, momentum, rmsprop, lion.",
        ) from None
    except (AssertionError, ImportError, TypeError, RuntimeError) as error:
        raise MissingError(
            f"The optimizer {options.optimizer!r} cannot be made here.",
            why=" ".join(str(error).split()) or "Its package or a GPU is missing.",
            hint="Choose another: adamw, adam, sgd, momentum, rmsprop, lion.",
        ) from None
    return optimizer


class Schedule:
    """The learning rate of every step. `update(step)` before a step, `end_epoch(score)` after an epoch.

    torch's schedulers hold state; timm's are functions of the step and know the groups' `lr_scale`.
    """

    def __init__(
        self, optimizer: Optimizer, options: TrainConfig, lr: float, epochs: int, steps: int
    ) -> None:
        self._optimizer = optimizer
        self._rising = options.warmup * epochs * steps
        self._plateau = self._one_cycle = self._timm = None
        self._peaks = scaled = [lr * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        if options.schedule == "one-cycle":
            # A share of 0 or 1 has no room for one of the two slopes.
            rising = min(max(options.warmup, 0.05), 0.95)
            self._one_cycle = OneCycleLR(
                optimizer, scaled, total_steps=epochs * steps + 2, pct_start=rising, cycle_momentum=False
            )
        elif options.schedule == "plateau":
            self._set(scaled)
            self._plateau = ReduceLROnPlateau(
                optimizer, "max", options.decay_rate, patience=1, min_lr=options.min_lr, eps=0
            )
        else:
            is_exponential = options.schedule == "exponential"  # timm's step, every epoch
            self._timm, _ = create_scheduler_v2(
                optimizer,
                sched="step" if is_exponential else options.schedule,
                num_epochs=epochs,
                decay_epochs=1 if is_exponential else options.decay_epochs,
                decay_rate=options.decay_rate,
                min_lr=options.min_lr,
                warmup_lr=lr / 100,
                warmup_epochs=options.warmup * epochs,  # type: ignore[arg-type]  # counted in steps below
                step_on_epochs=False,
                updates_per_epoch=steps,
            )

    @property
    def lr(self) -> float:
        """The largest learning rate of the groups: the one that depth does not scale down."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def update(self, step: int) -> None:
        """Set the learning rate of step number `step` of the phase."""
        if self._timm is not None:
            self._timm.step_update(step)
        elif self._one_cycle is not None and step:
            self._one_cycle.step()
        elif self._plateau is not None and step < self._rising:
            self._set([peak * (step + 1) / self._rising for peak in self._peaks])
        elif self._plateau is not None and step < self._rising + 1:
            self._set(self._peaks)

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def end_epoch(self, score: float | None) -> None:
        """Tell how good the validation was: only 'plateau' listens."""
        if self._plateau is not None and score is not None:
            self._plateau.step(score)

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        stateful = self._plateau or self._one_cycle
        return stateful.state_dict() if stateful else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        stateful = self._plateau or self._one_cycle
        if stateful:
            stateful.load_state_dict(state)
