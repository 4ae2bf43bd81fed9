"""What single steps found out, read from their manifests: evaluations and explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optkit.core.errors import InputError, first_problem
from optkit.report.confusion import Counts, confused_pairs, count_confusion, heat_map
from optkit.report.evaluation_schema import ClassResult, Evaluation, Explanation, Figure, Picture
from optkit.report.numbers import is_number
from optkit.report.schema import Step

FIGURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "precision": "macro precision",
    "recall": "macro recall",
    "f1": "macro F1",
    "ece": "calibration error",
    "loss": "loss",
}
AGREEMENT = {
    "pearson": "correlation of the maps (Pearson)",
    "spearman": "correlation of their ranks (Spearman)",
    "iou": "overlap of their highest fifths (IoU)",
    "prediction_agreement": "same prediction",
}
NO_SHARES = ("loss", "pearson", "spearman")
CLASSES = TypeAdapter(tuple[ClassResult, ...])
PICTURES = TypeAdapter(tuple[Picture, ...])


def evaluations(steps: Sequence[Step]) -> list[Evaluation]:
    """One for every `evaluate` step."""
    return [_evaluation(step, steps) for step in steps if step.manifest.stage == "evaluate"]


def _evaluation(step: Step, steps: Sequence[Step]) -> Evaluation:
    manifest, details = step.manifest, step.manifest.details
    (key, *_) = [*manifest.inputs.get("model", []), ""]
    confusion = _confusion(details)
    names = _class_names(details)
    try:
        classes = CLASSES.validate_python(details.get("per_class") or ())
        return Evaluation(
            step=step.name,
            model=model_name(key, steps),
            model_key=key,
            split=manifest.config.get("split") or "",
            runtime=details.get("runtime") or "",
            n=manifest.metrics.get("n"),
            figures=tuple(_figures(manifest.metrics, FIGURES)),
            classes=tuple(row for row in classes if row.n != 0 or row.precision),
            heat_map=heat_map(confusion, names),
            confused=confused_pairs(confusion, names),
            mistakes=PICTURES.validate_python(details.get("mistakes") or ()),
        )
    except ValidationError as error:
        raise unreadable(step, error) from None


def _figures(metrics: dict[str, Any], wanted: dict[str, str]) -> list[Figure]:
    return [
        Figure(
            name=name,
            words=words,
            value=metrics[name],
            interval=metrics.get(f"{name}_interval"),
            is_share=name not in NO_SHARES,
        )
        for name, words in wanted.items()
        if is_number(metrics.get(name))
    ]


def _class_names(details: dict[str, Any]) -> list[str]:
    names = details.get("class_names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _confusion(details: dict[str, Any]) -> Counts:
    """From the matrix, or from the answers: with many classes the matrix is not kept."""
    labels, predictions = details.get("labels"), details.get("predictions")
    if details.get("confusion"):
        return count_confusion(details["confusion"])
    if not isinstance(labels, list) or not isinstance(predictions, list):
        return Counts()
    pairs = zip(labels, predictions, strict=False)
    return Counts(pair for pair in pairs if all(isinstance(index, int) for index in pair))


def model_name(key: str, steps: Sequence[Step]) -> str:
    """The step that made the artifact with this key; of one from elsewhere, the start of the key."""
    return next((step.name for step in steps if step.manifest.key == key), key[:8] or "model")


def explanations(steps: Sequence[Step]) -> list[Explanation]:
    """One for every `explain` step that has maps."""
    found = []
    for step in steps:
        manifest = step.manifest
        if manifest.stage != "explain" or not manifest.details.get("maps"):
            continue
        keys = [key for role in manifest.inputs.values() for key in role]
        try:
            explanation = Explanation(
                step=step.name,
                models=tuple(model_name(key, steps) for key in keys),
                maps=PICTURES.validate_python(manifest.details["maps"]),
                agreement=tuple(_figures(manifest.metrics, AGREEMENT)),
                agreement_n=manifest.metrics.get("agreement_n"),
            )
        except ValidationError as error:
            raise unreadable(step, error) from None
        found.append(explanation)
    return found


def unreadable(step: Step, error: ValidationError, what: str = "details") -> InputError:
    """The error of a manifest that another version wrote."""
    return InputError(
        f"The {what} of step {step.name!r} cannot be read.",
        why=first_problem(error),
        hint="They were written by another version; run the step again.",
    )
