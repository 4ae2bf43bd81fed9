"""Explain: where in images a model finds its evidence, and whether a second one looks there too."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.progress import Reporter, Task
from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.base import ImageSet
from optkit.data.files import find_images
from optkit.data.load import load_data
from optkit.data.loading import batches, normalise, read_input
from optkit.data.sampling import stratified_subset
from optkit.data.unlabelled import unlabelled_images
from optkit.measure.accuracy import Run
from optkit.measure.classes import map_classes
from optkit.measure.map_agreement import MapAgreement, compare_maps, mean_interval
from optkit.measure.saliency import Maps, feature_layer, grad_cam, named_layer, occlusion
from optkit.measure.statistics import wilson
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import Session, SessionOptions, any_batch, open_artifact
from optkit.stages.explain.choose import Predictions, at_random, half_wrong, predict
from optkit.stages.explain.config import Config
from optkit.stages.explain.draw import draw

BATCH = 16
PICTURE = "maps/{:02d}.png"
PATCHES = 8
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
        chosen = _choose(subjects, images, config, context.reporter)
        answers = [subject.predictions(chosen.images, context.reporter) for subject in subjects]
        targets = answers[0].classes if config.target == "predicted" else chosen.labels
        photos = [_photos(subject, chosen.images) for subject in subjects]
        with context.reporter.track("Explaining", len(subjects) * len(chosen.images)) as task:
            maps = [_maps(*pair, targets, config, task) for pair in zip(subjects, photos, strict=True)]
    for index in range(chosen.shown):
        draw(
            [one[index] for one in photos],
            [one[index] for one in maps],
            context.workdir / PICTURE.format(index),
        )
    agreements = [compare_maps(*pair) for pair in zip(*maps, strict=True)] if len(maps) > 1 else []
    return Output(
        format=Format.RESULT,
        metrics={"n": chosen.shown} | _metrics(chosen.sample, agreements, answers, context.reporter),
        details={
            "method": config.method,
            "target": config.target,
            "layers": [subject.layer for subject in subjects],
            "maps": _rows(chosen, answers, agreements),
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
    """The images to choose from."""
    if config.data is not None:
        trained = [images for artifact in artifacts for images in artifact.spec.trained_on]
        return load_data(config.data, reporter).evaluation_images(trained, reporter)
    return unlabelled_images(find_images(config.images))


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


@dataclass(frozen=True)
class Chosen:
    """The images to explain and the names of their classes, "" for none. The first `shown` become pictures;
    two models are compared on `sample` (places in `images`), which no answer had a part in choosing."""

    images: ImageSet
    labels: list[str]
    shown: int
    sample: list[int]


def _choose(subjects: list[Subject], images: ImageSet, config: Config, reporter: Reporter) -> Chosen:
    """The images to show, by the first model's answers, and those to compare two models on."""
    first, count = subjects[0], config.count
    names = first.artifact.spec.class_names
    pool = stratified_subset(images, (SPARE if config.images else POOL) * count, config.seed)
    answers = first.predictions(pool, reporter)
    if config.images:
        labels, wrong = [""] * len(answers.classes), np.zeros(len(answers.classes), bool)
    else:
        mapping = map_classes(images.class_names, names)
        labels = [names[label] for label in mapping.classes[pool.labels[answers.indices]]]
        wrong = np.array(labels) != np.array(answers.classes)
    shown = half_wrong(wrong, count, config.seed).tolist()
    sample = at_random(len(wrong), count, config.seed).tolist() if len(subjects) > 1 else []
    places = list(dict.fromkeys([*shown, *sample]))
    return Chosen(
        images=pool.subset(answers.indices[places]),
        labels=[labels[place] for place in places],
        shown=len(shown),
        sample=[places.index(place) for place in sample],
    )


def _photos(subject: Subject, images: ImageSet) -> list[NDArray[np.uint8]]:
    """What the model sees of each image, before normalisation."""
    preprocess = subject.artifact.spec.preprocess
    return [read_input(images, index, preprocess) for index in range(len(images))]


def _maps(
    subject: Subject, photos: list[NDArray[np.uint8]], targets: list[str], config: Config, task: Task
) -> Maps:
    """The model's map of each photo for the class that is named in `targets`."""
    spec = subject.artifact.spec
    pixels = normalise(photos, spec.preprocess)
    classes = np.array([spec.class_names.index(name) for name in targets])
    if subject.module is None or subject.layer is None:
        patches = config.patches or PATCHES
        return occlusion(subject.ask, spec.num_classes, pixels, classes, patches, task.advance)
    maps = grad_cam(subject.module, subject.layer, pixels, classes)
    task.advance(len(photos))
    return maps


def _metrics(
    sample: list[int], agreements: list[MapAgreement], answers: list[Predictions], reporter: Reporter
) -> dict[str, Any]:
    """Means over the images of `sample` with their intervals; empty for one model."""
    if not sample:
        return {}
    agreements = [agreements[index] for index in sample]
    flat = sum(agreement.iou is None for agreement in agreements)
    if flat:
        reporter.warn(
            f"{flat} of {len(agreements)} images have a flat map and do not count in the agreement."
        )
    found: dict[str, Any] = {"agreement_n": len(sample)}
    for name, lowest in (("pearson", -1), ("spearman", -1), ("iou", 0)):
        values = [value for one in agreements if (value := getattr(one, name)) is not None]
        found[name] = float(np.mean(values)) if values else None
        found[f"{name}_interval"] = mean_interval(values, lowest)
    same = sum(answers[0].classes[index] == answers[1].classes[index] for index in sample)
    found["prediction_agreement"] = same / len(sample)
    found["prediction_agreement_interval"] = list(wilson(same, len(sample)))
    return found


def _rows(chosen: Chosen, answers: list[Predictions], agreements: list[MapAgreement]) -> list[dict[str, Any]]:
    """What the report writes beside each picture; `label` is null for images without labels."""
    rows = []
    for index in range(chosen.shown):
        name, label = chosen.images.ids[index], chosen.labels[index] or None
        row: dict[str, Any] = {"file": name, "image": PICTURE.format(index), "label": label}
        for suffix, answer in zip(("", "_other"), answers, strict=False):
            row[f"prediction{suffix}"] = answer.classes[index]
            row[f"p{suffix}"] = float(answer.p[index])
        rows.append(row | (asdict(agreements[index]) if agreements else {}))
    return rows
