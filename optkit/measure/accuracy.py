"""Accuracy of anything that turns a batch of images into logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from optkit.core.errors import InputError
from optkit.measure.answers import FIGURES, Answers, joined
from optkit.measure.classes import ClassMapping
from optkit.measure.statistics import wilson

MAX_CONFUSION = 100  # classes up to which the whole matrix is kept
SOFTMAX_TOLERANCE = 1e-3  # of the sum of a row: FP16 rounds it
SEVERAL = 4  # images whose answers show whether the model ends with a softmax

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class LabelledBatch(Protocol):
    """`pixels` (n, 3, size, size), `labels` (n,) data classes, `indices` (n,) into the image set."""

    @property
    def pixels(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def indices(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Accuracy:
    """What was answered for `n` images; `indices[i]` is the place of the i-th answer in the image set.

    Precision, recall and F1 are means over the classes that the images show. `top5` is None for models of
    five classes or fewer, `confusion` (rows: truth) beyond 100 classes.
    """

    n: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    loss: float
    precision: float
    recall: float
    f1: float
    ece: float
    per_class: list[dict[str, Any]]
    confusion: list[list[int]] | None
    answers: Answers
    indices: list[int]

    @property
    def predictions(self) -> list[int]:
        """The most likely class of each image."""
        found: list[int] = self.answers.predictions.tolist()
        return found

    @property
    def labels(self) -> list[int]:
        """The true class of each image, as the model's index."""
        found: list[int] = self.answers.labels.tolist()
        return found

    @property
    def right(self) -> list[bool]:
        """Whether each image was classified correctly."""
        found: list[bool] = self.answers.right.tolist()
        return found

    def metrics(self, seed: int = 0) -> dict[str, Any]:
        """The single figures, and `<name>_interval`, 95 %: Wilson for shares of images, else bootstrap."""
        names = ("top1", "top5", "n", "loss", "f1", "precision", "recall", "ece")
        top5 = None if self.top5 is None else list(wilson(round(self.top5 * self.n), self.n))
        intervals = {
            "top1": list(self.top1_interval),
            "top5": top5,
            **dict(zip(FIGURES, self.answers.intervals(seed), strict=True)),
        }
        return {name: getattr(self, name) for name in names} | {
            f"{name}_interval": bounds for name, bounds in intervals.items()
        }

    def confusions(self, count: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes as (true class, predicted class, images)."""
        wrong = zip(
            self.answers.labels[~self.answers.right],
            self.answers.predictions[~self.answers.right],
            strict=True,
        )
        found = Counter((int(label), int(guess)) for label, guess in wrong)
        return [(*pair, n) for pair, n in found.most_common(count)]


def measure_accuracy(
    run: Run,
    batches: Iterable[LabelledBatch],
    class_names: Sequence[str],
    mapping: ClassMapping,
    progress: Callable[[int], None],
) -> Accuracy:
    """Run every batch; InputError when the logits are not finite or not of the model's classes.

    `progress` gets the number of images of every batch.
    """
    tally, logits = _Tally(len(class_names)), Logits(len(class_names))
    for batch in batches:
        target = torch.from_numpy(mapping.classes[batch.labels])
        tally.add(logits.of(run(batch.pixels), len(target)), target, batch.indices)
        progress(len(batch.labels))
    if not tally.indices:
        raise InputError("There is no image to measure accuracy on.", hint="Check the validation images.")
    return tally.accuracy(class_names)


class _Tally:
    """What the answers add up to, batch by batch."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.answers: list[Answers] = []
        self.indices: list[int] = []
        self.top5_hits = 0
        # One process measures alone, also where others wait that it trained with.
        self.confusion = MulticlassConfusionMatrix(classes, sync_on_compute=False)

    def add(self, logits: torch.Tensor, target: torch.Tensor, indices: NDArray[np.int64]) -> None:
        """Logits (n, classes) of images whose classes are `target` (n,)."""
        order = torch.from_numpy(ranked(logits.numpy())[:, :5])
        guesses, p = order[:, 0], logits.softmax(dim=1)
        self.confusion.update(guesses, target)
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        self.top5_hits += int((order == target[:, None]).any(dim=1).sum())
        confidence = p.max(dim=1).values
        self.answers.append(Answers(target.numpy(), guesses.numpy(), confidence.numpy(), loss.numpy()))
        self.indices += indices.tolist()

    def accuracy(self, class_names: Sequence[str]) -> Accuracy:
        """The figures; at least one image was added."""
        answers = joined(self.answers)
        n, hits = len(answers.labels), int(answers.right.sum())
        figures = answers.figures(np.ones(n, np.int64))
        confusion = self.confusion.compute().numpy()
        return Accuracy(
            n=n,
            top1=hits / n,
            top1_interval=wilson(hits, n),
            top5=self.top5_hits / n if self.classes > 5 else None,
            **dict(zip(FIGURES, figures.tolist(), strict=True)),
            per_class=_per_class(confusion, class_names),
            confusion=confusion.tolist() if self.classes <= MAX_CONFUSION else None,
            answers=answers,
            indices=self.indices,
        )


def ranked(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The classes of each row (n, classes), the most likely first; of equal ones, that of the lowest index."""
    order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
    return order


class Logits:
    """Makes logits of one model's answers; a softmax that the model ends with is undone.

    Whether it does is decided once, by the first answers for several images: the logits of a single one may
    look like it by chance, and rounding may hide it.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._decided: bool | None = None

    def of(self, answer: NDArray[np.float32], n: int | None = None) -> torch.Tensor:
        """Finite logits (n, classes), float64, of the answer for `n` images; InputError when it is not one."""
        logits = _checked(answer, len(answer) if n is None else n, self._classes)
        is_softmax = _is_softmax(logits) if self._decided is None else self._decided
        if len(logits) >= SEVERAL:
            self._decided = is_softmax
        return logits.clamp_min(1e-12).log() if is_softmax else logits


def _is_softmax(answer: torch.Tensor) -> bool:
    sums = answer.sum(dim=1)
    return bool(answer.shape[1] > 1 and (answer >= 0).all() and (sums - 1).abs().max() < SOFTMAX_TOLERANCE)


def _checked(answer: NDArray[np.float32], n: int, classes: int) -> torch.Tensor:
    """The answer as float64 (n, classes)."""
    if answer.shape != (n, classes):
        raise InputError(
            f"The model answers {answer.shape} for {n} images, and it should have {classes} classes.",
            hint="Its class names and the file do not belong together.",
        )
    logits = torch.from_numpy(answer).double()
    if not logits.isfinite().all():
        raise InputError(
            "The model answers NaN or infinity.",
            why="Usually a training that diverged, an overflow in FP16, or a scale of zero in INT8.",
            hint="Check the step that made it.",
        )
    return logits


def _per_class(confusion: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """Recall, precision and F1 of every class; recall is None for a class without images."""
    rows = []
    for index, name in enumerate(names):
        hits, n = int(confusion[index, index]), int(confusion[index].sum())
        guessed = int(confusion[:, index].sum())
        others = confusion[index].copy()
        others[index] = 0
        rows.append(
            {
                "class": name,
                "n": n,
                "recall": hits / n if n else None,
                "precision": hits / guessed if guessed else 0.0,
                "f1": 2 * hits / (n + guessed) if n + guessed else 0.0,
                "confused_with": names[int(others.argmax())] if others.any() else None,
            }
        )
    return rows
