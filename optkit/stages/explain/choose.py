"""Which images are worth a look: some that the model gets right, and some that it gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.data.loading import Batch
from optkit.measure.accuracy import Logits, Run, ranked


@dataclass(frozen=True)
class Predictions:
    """Answers for some images: places in the image set, most likely classes and their probabilities."""

    indices: NDArray[np.int64]
    classes: list[str]
    p: NDArray[np.float64]


def predict(run: Run, batches: Iterable[Batch], names: Sequence[str]) -> Predictions:
    """Ask the model about every image; InputError when none could be read."""
    indices: list[int] = []
    answers, logits = [], Logits(len(names))
    for batch in batches:
        indices += batch.indices.tolist()
        answers.append(logits.of(run(batch.pixels)).softmax(dim=1).numpy())
    if not answers:
        raise InputError("None of the images can be read.", hint="Check the files.")
    p = np.concatenate(answers)
    return Predictions(np.array(indices), [names[index] for index in ranked(p)[:, 0]], p.max(axis=1))


def half_wrong(wrong: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.int64]:
    """`count` places, drawn at random: half of them wrong where there are as many, mistakes first."""
    order = np.random.default_rng(seed).permutation(len(wrong))
    mistakes, others = order[wrong[order]], order[~wrong[order]]
    few = max(min(count // 2, len(mistakes)), count - len(others))
    return np.concatenate([mistakes[:few], others[: count - few]])[:count]


def at_random(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` of `total` places, whatever was answered; in the order of `half_wrong`, so that many are in both."""
    return np.random.default_rng(seed).permutation(total)[:count]
