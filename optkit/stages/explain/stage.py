"""Explain: where in images a model finds its evidence, and whether a second one looks there too."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter, Task
from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.base import ImageSet
from optkit.data.files import NO_IMAGES_HINT, find_files
from optkit.data.images import is_image, open_rgb
from optkit.data.load import load_data
from optkit.data.loading import batches, calibration_subset, normalise, resize_and_crop
from optkit.measure.accuracy import Run, map_classes
from optkit.measure.map_agreement import MapAgreement, compare_maps, mean_interval
from optkit.measure.saliency import Maps, feature_layer, grad_cam, named_layer, occlusion
from optkit.measure.statistics import wilson
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import Session, SessionOptions, any_batch, open_artifact
from optkit.stages.explain.choose import Predictions, half_wrong, predict
from optkit.stages.explain.config import Config
from optkit.stages.explain.draw import draw

BATCH = 16
PICTURE = "maps/{:02d}.png"
POOL = 32  # images looked through for every one that is shown, to find mistakes among them

SPARE = 2  # the same for images without labels: some may turn out corrupt


@dataclass(frozen=True)
class Subject:
    """An opened model. `module` is the very network that `session` runs, None where gradients are not needed;
    `layer` is what Grad-CAM looks at."""

    artifact: Artifact
    session: Session
    module: nn.Module | None
    layer: str | None

    @property
    def ask(self) -> Run:
        return any_batch(self.session)

    def predictions(self, images: ImageSet, reporter: Reporter) -> Predictions:
        spec = self.artifact.spec
        return predict(self.ask, batches(images, spec.preprocess, BATCH, reporter), spec.class_names)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Choose images by the first model's answers, and draw every model's map of each."""
    artifacts = [*inputs["model"].values(), *inputs.get("other", {}).values()]
    _check_models(config, artifacts, context.reporter)
    images = _images(config, artifacts, context.reporter)
    with ExitStack() as stack:
        subjects = []
        for artifact in artifacts:
            subjects.append(_open(artifact, config))
            stack.callback(subjects[-1].session.close)
        chosen, labels = _choose(subjects[0], images, config, context.reporter)
        answers = [subject.predictions(chosen, context.reporter) for subject in subjects]
        targets = answers[0].classes if config.target == "predicted" else labels
        photos = [_photos(subject, chosen) for subject in subjects]
        with context.reporter.track("Explaining", len(subjects) * len(chosen)) as task:
            maps = [_maps(*pair, targets, config, task) for pair in zip(subjects, photos, strict=True)]
    for index in range(len(chosen)):
        draw(
            [one[index] for one in photos],
            [one[index] for one in maps],
            context.workdir / PICTURE.format(index),
        )
    agreements = [compare_maps(*pair) for pair in zip(*maps, strict=True)] if len(maps) > 1 else []
    return Output(
        format=Format.RESULT,
        metrics={"n": len(chosen)} | _metrics(agreements, answers, config.seed, context.reporter),
        details={
            "method": config.method,
            "target": config.target,
            "layers": [subject.layer for subject in subjects],
            "maps": _rows(chosen, labels, answers, agreements),
            "facts": [subject.session.facts for subject in subjects],
        },
    )


def _check_models(config: Config, artifacts: list[Artifact], reporter: Reporter) -> None:
    formats = {artifact.format for artifact in artifacts} - {Format.TORCH}
    if config.method == "gradcam" and formats:
        raise UsageError(
            "Grad-CAM needs gradients, and only checkpoints have them.",
            why=f"Given: {' and '.join(artifact.format.value for artifact in artifacts)}.",
            hint="Use --method occlusion, which works on every model; two are compared by the same method.",
        )
    if len({frozenset(artifact.spec.class_names) for artifact in artifacts}) > 1:
        raise UsageError(
            "The two models have different classes.",
            why=f"{_some(artifacts[0])}, and {_some(artifacts[1])}.",
            hint="Compare two models of the same classes.",
        )
    crops = {
        (artifact.spec.preprocess.crop_pct, artifact.spec.preprocess.crop_mode) for artifact in artifacts
    }
    if len(crops) > 1:
        reporter.warn(
            "The models crop the images differently, so that their maps cover different parts: "
            "the agreement is lower than it would be on the same part."
        )


def _some(artifact: Artifact) -> str:
    names = artifact.spec.class_names
    return f"{len(names)} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"


def _images(config: Config, artifacts: list[Artifact], reporter: Reporter) -> ImageSet:
    """The images to choose from; files without labels all get the class 0 of no name."""
    if config.data is not None and not config.images:
        trained = [images for artifact in artifacts for images in artifact.spec.trained_on]
        return load_data(config.data, reporter).evaluation_images(trained, reporter)
    files = [file for file in find_files(config.images) if is_image(file)]
    if not files:
        raise InputError(f"{', '.join(config.images)!r} holds no image.", hint=NO_IMAGES_HINT)
    names = tuple(str(file) for file in files)
    return ImageSet(("",), names, np.zeros(len(files), np.int64), lambda i: open_rgb(files[i]), names)


def _open(artifact: Artifact, config: Config) -> Subject:
    """Open the model, once; for Grad-CAM the session and the gradients share the module."""
    if config.method == "occlusion":
        options = SessionOptions(load_module=load_module, threads=config.threads)
        return Subject(artifact, open_artifact(artifact, config.runtime, options), None, None)
    module = load_module(artifact)
    options = SessionOptions(load_module=lambda _: module, threads=config.threads)
    session = open_artifact(artifact, config.runtime, options)
    size = artifact.spec.preprocess.size
    layer = config.layer or feature_layer(module, np.zeros((1, 3, size, size), np.float32))
    named_layer(module, layer)
    return Subject(artifact, session, module, layer)


def _choose(
    first: Subject, images: ImageSet, config: Config, reporter: Reporter
) -> tuple[ImageSet, list[str]]:
    """The images to show, by the first model's answers, and the names of their classes; "" for none."""
    names = first.artifact.spec.class_names
    pool = calibration_subset(images, (SPARE if config.images else POOL) * config.count, config.seed)
    answers = first.predictions(pool, reporter)
    if config.images:
        labels, wrong = [""] * len(answers.classes), np.zeros(len(answers.classes), bool)
    else:
        mapping = map_classes(images.class_names, names)
        labels = [names[label] for label in mapping.classes[pool.labels[answers.indices]]]
        wrong = np.array(labels) != np.array(answers.classes)
    places = half_wrong(wrong, config.count, config.seed)
    return pool.subset(answers.indices[places]), [labels[place] for place in places]


def _photos(subject: Subject, images: ImageSet) -> list[NDArray[np.uint8]]:
    """What the model sees of each image, before normalisation."""
    preprocess = subject.artifact.spec.preprocess
    return [resize_and_crop(images.open_image(index), preprocess) for index in range(len(images))]


def _maps(
    subject: Subject, photos: list[NDArray[np.uint8]], targets: list[str], config: Config, task: Task
) -> Maps:
    """The model's map of each photo for the class that is named in `targets`."""
    spec = subject.artifact.spec
    pixels = normalise(np.stack(photos), spec.preprocess)
    classes = np.array([spec.class_names.index(name) for name in targets])
    if subject.module is None or subject.layer is None:
        return occlusion(subject.ask, spec.num_classes, pixels, classes, config.patches, task.advance)
    maps = grad_cam(subject.module, subject.layer, pixels, classes)
    task.advance(len(photos))
    return maps


def _metrics(
    agreements: list[MapAgreement], answers: list[Predictions], seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Means over the images with their intervals; empty for one model."""
    if not agreements:
        return {}
    flat = sum(agreement.iou is None for agreement in agreements)
    if flat:
        reporter.warn(
            f"{flat} of {len(agreements)} images have a flat map and do not count in the agreement."
        )
    found: dict[str, Any] = {}
    for name in ("pearson", "spearman", "iou"):
        values = [value for one in agreements if (value := getattr(one, name)) is not None]
        found[name] = float(np.mean(values)) if values else None
        found[f"{name}_interval"] = mean_interval(values, seed)
    same = sum(one == other for one, other in zip(*(one.classes for one in answers), strict=True))
    found["prediction_agreement"] = same / len(agreements)
    found["prediction_agreement_interval"] = list(wilson(same, len(agreements)))
    return found


def _rows(
    images: ImageSet, labels: list[str], answers: list[Predictions], agreements: list[MapAgreement]
) -> list[dict[str, Any]]:
    """What the report writes beside each picture; `label` is null for images without labels."""
    rows = []
    for index, (name, label) in enumerate(zip(images.ids, labels, strict=True)):
        row: dict[str, Any] = {"file": name, "image": PICTURE.format(index), "label": label or None}
        for suffix, answer in zip(("", "_other"), answers, strict=False):
            row[f"prediction{suffix}"] = answer.classes[index]
            row[f"p{suffix}"] = float(answer.p[index])
        rows.append(row | (asdict(agreements[index]) if agreements else {}))
    return rows
