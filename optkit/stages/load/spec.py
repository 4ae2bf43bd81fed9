"""The spec of a model file: what the options say, else the file."""

from __future__ import annotations

from pathlib import Path

from optkit.core.errors import UsageError
from optkit.core.progress import Reporter
from optkit.core.types import ModelSpec, Preprocess
from optkit.stages.load.config import Config


def input_size(config: Config, stated: int | None, fixed: int | None, source: Path) -> int:
    """The size asked for or stated, which a graph of fixed size must have."""
    size = config.size or fixed or stated
    if size is None:
        raise UsageError(
            f"{str(source)!r} does not say its input size.",
            why="The graph takes any height and width.",
            hint="Give the size it was trained at: --size 224",
        )
    if fixed and size != fixed:
        raise UsageError(f"{str(source)!r} takes {fixed}×{fixed} pixels, not {size}.", hint=f"--size {fixed}")
    return size


def complete(
    config: Config,
    known: ModelSpec | None,
    arch: str,
    num_classes: int,
    size: int,
    reporter: Reporter,
    own: Preprocess | None = None,
) -> ModelSpec:
    """The spec: what the options say, else the file, else `own` or ImageNet's habits, with a warning."""
    fields = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    given = {name: value for name in fields if (value := getattr(config, name)) is not None}
    base = (known.preprocess if known else own) or Preprocess(size=size)
    preprocess = base.model_copy(update={**given, "size": size})
    if known is None and (assumed := [name for name in fields if name not in given]):
        values = ", ".join(f"{name} {getattr(preprocess, name)}" for name in assumed)
        reporter.warn(
            f"{Path(config.path).name} does not say how its input is made. ASSUMED: {values}. "
            "If the model was trained otherwise its accuracy here is wrong: "
            "give --mean --std --interpolation --crop-pct --crop-mode."
        )
    names = config.class_names or (known.class_names if known else tuple(str(i) for i in range(num_classes)))
    if len(names) != num_classes:
        raise UsageError(
            f"--class-names gives {len(names)} names, and the model has {num_classes} classes.",
            hint="Name every class, in the order of the outputs.",
        )
    if known:
        return known.model_copy(update={"preprocess": preprocess, "class_names": tuple(names)})
    return ModelSpec(arch=arch, num_classes=num_classes, class_names=tuple(names), preprocess=preprocess)
