"""How much accuracy INT8 may cost, and what it did cost on the validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core.progress import Reporter
from optkit.core.types import Preprocess
from optkit.data.base import ImageSet
from optkit.data.loading import batches
from optkit.graph.onnx_file import ClassifierIO
from optkit.measure.classes import map_classes
from optkit.measure.parity import compare_logits
from optkit.measure.statistics import paired_difference
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.execute import Pixels, run_model

BATCH = 16


@dataclass(frozen=True)
class Checked:
    """A file against FP32 on the validation images: `drop` of top-1 in points, with its 95 % interval.

    The drop is None when the images' classes are not those of the model.
    """

    sqnr_db: float
    agreement: float
    drop: float | None
    interval: tuple[float, float] | None

    def holds(self, config: Config) -> bool:
        """Whether every limit that was given is kept, as measured."""
        return (
            (config.max_drop is None or (self.drop is not None and self.drop <= config.max_drop))
            and (config.min_agreement is None or self.agreement >= config.min_agreement)
            and (config.min_sqnr is None or self.sqnr_db >= config.min_sqnr)
        )

    def details(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "sqnr_db": round(self.sqnr_db, 2),
            "agreement": self.agreement,
            "drop": self.drop,
            "drop_interval": self.interval and list(self.interval),
        }


def limits(config: Config) -> dict[str, float | None]:
    """The limits that were given."""
    return {name: getattr(config, name) for name in ("max_drop", "min_agreement", "min_sqnr")}


def checker(
    reference: onnx.ModelProto,
    io: ClassifierIO,
    images: ImageSet,
    class_names: tuple[str, ...] | None,
    preprocess: Preprocess,
    reporter: Reporter,
) -> Callable[[onnx.ModelProto], Checked]:
    """Compares files with `reference` on `images`, image by image.

    `class_names` are the model's, None when the images' labels are to be ignored. InputError when they do not fit.
    """
    classes = None if class_names is None else map_classes(images.class_names, class_names).classes
    labels: list[int] = []

    def logits(model: onnx.ModelProto) -> NDArray[np.float32]:
        labels.clear()
        with reporter.track("checking on validation images", len(images)) as task:

            def pixels() -> Iterator[Pixels]:
                for batch in batches(images, preprocess, io.batch or BATCH, reporter):
                    labels.extend(batch.labels.tolist())
                    yield batch.pixels
                    task.advance(len(batch.pixels))

            return run_model(model, io, pixels())

    expected = logits(reference)

    def check(model: onnx.ModelProto) -> Checked:
        answers = logits(model)
        parity = compare_logits(expected, answers)
        if classes is None:
            return Checked(parity.sqnr_db, parity.agreement, None, None)
        right = [found.argmax(axis=1) == classes[labels] for found in (expected, answers)]
        difference = paired_difference(right[0].tolist(), right[1].tolist())
        low, high = (100 * end for end in difference.interval)
        return Checked(parity.sqnr_db, parity.agreement, 100 * difference.drop, (low, high))

    return check
