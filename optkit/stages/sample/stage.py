"""Choose calibration images and write down which they are."""

from __future__ import annotations

from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.calibration import choose_calibration
from optkit.data.load import load_data
from optkit.stages.sample.config import Config


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Write `calibration.json`."""
    dataset = load_data(config.data, context.reporter)
    chosen = choose_calibration(dataset, config.images, config.seed, config.data.path, context.reporter)
    chosen.write(context.workdir)
    return Output(
        format=Format.IMAGES,
        details={"calibration": {**chosen.facts(), "per_class": chosen.record().per_class}},
    )
