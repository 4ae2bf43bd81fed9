"""The learning-rate range test: Smith, Cyclical learning rates (arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from optkit.core.errors import UsageError
from optkit.train.freezing import set_train_mode
from optkit.train.loop import PhaseRun
from optkit.train.phase import Diverged, Phase, Run
from optkit.train.stand_ins import remove_stand_ins

LOWEST, HIGHEST, STEPS, SETTLING = 1e-6, 1.0, 100, 10
SMOOTHING, EXPLODED = 0.9, 4.0  # share of the past in the mean loss; multiple of the best at which to stop


def find_lr(module: nn.Module, phase: Phase, run: Run) -> dict[str, Any]:
    """`lr` and smoothed `loss` of every step, and the `suggestion`: where the loss falls most steeply.

    Trains for at most 100 steps, as `phase` will, while the learning rate grows from 1e-6 to 1, and puts the
    weights back.
    """
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    trial = PhaseRun(module, replace(phase, lr=LOWEST), run)
    set_train_mode(module)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    try:
        with run.reporter.track("learning-rate range test", STEPS) as task:
            for step, batch in zip(range(STEPS), _endless(phase), strict=False):
                rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
                for group in trial.optimizer.param_groups:
                    group["lr"] = rate * group.get("lr_scale", 1.0)
                loss, _, images = trial.step(batch, [run.seed, phase.index, 0, step])
                mean = SMOOTHING * mean + (1 - SMOOTHING) * loss / images
                smoothed = mean / (1 - SMOOTHING ** (step + 1))
                if smoothed > EXPLODED * min([*losses, smoothed]):
                    break
                rates.append(rate)
                losses.append(smoothed)
                task.advance(1, f"lr {rate:.1e} loss {smoothed:.3f}")
    except Diverged:
        pass  # the rates have become too large, as they must at some point
    finally:
        remove_stand_ins(module)
    module.load_state_dict(before)
    return {"lr": rates, "loss": losses, "suggestion": steepest(rates, losses)}


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest per factor of the rate; UsageError where it never falls."""
    later = slice(SETTLING, None)  # the first means are of so few steps that they jump
    slopes = np.gradient(losses[later], np.log(rates[later])) if len(rates) > SETTLING + 2 else np.zeros(1)
    if slopes.min() >= 0:
        raise UsageError("The range test found no learning rate at which the loss falls.", hint="Give --lr.")
    return float(rates[later][int(slopes.argmin())])


def _endless(phase: Phase) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        yield from phase.batches(epoch, 0)
        epoch += 1
