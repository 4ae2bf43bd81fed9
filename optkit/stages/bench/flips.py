"""Images on which a model and the baseline disagree about the truth: how many of each class, and which."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.data.base import ImageSet
from optkit.measure.accuracy import Accuracy
from optkit.measure.statistics import paired_difference
from optkit.stages.bench.candidate import Candidate

MAX_IMAGES = 24  # shown of each model
THUMBNAIL_PX = 160


def flips(
    candidate: Candidate, baseline: Candidate, images: ImageSet, workdir: Path
) -> dict[str, Any] | None:
    """What changed from the baseline; thumbnails are written into `workdir`. None where one was not measured."""
    now, before = candidate.accuracy, baseline.accuracy
    if now is None or before is None or now.indices != before.indices:
        return None
    was, is_now = np.asarray(before.right), np.asarray(now.right)
    found = asdict(paired_difference(before.right, now.right))
    return {
        "name": candidate.name,
        "key": candidate.artifact.key,
        "runtime": candidate.runtime,
        "reference": baseline.name,
        **{name: found[name] for name in ("n", "lost", "won", "p_value", "drop")},
        "interval": list(found["interval"]),
        "by_class": _by_class(images, now.indices, was, is_now),
        "images": _shown(candidate, baseline, images, workdir),
    }


def _by_class(
    images: ImageSet, indices: list[int], was: NDArray[np.bool_], is_now: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Classes in which something changed, the most losses first."""
    labels, classes = images.labels[np.array(indices)], len(images.class_names)
    n, lost, won = (
        np.bincount(labels[chosen], minlength=classes)
        for chosen in (np.ones(len(labels), bool), was & ~is_now, ~was & is_now)
    )
    rows = [
        {
            "class": images.class_names[index],
            "n": int(n[index]),
            "lost": int(lost[index]),
            "won": int(won[index]),
        }
        for index in np.flatnonzero(lost + won)
    ]
    return sorted(rows, key=lambda row: (-row["lost"], -row["won"], row["class"]))


def _shown(
    candidate: Candidate, baseline: Candidate, images: ImageSet, workdir: Path
) -> list[dict[str, Any]]:
    """Losses before gains, and those that the model is surest of first."""
    now, before = _of(candidate), _of(baseline)
    was, is_now = np.asarray(before.right), np.asarray(now.right)
    changed = np.flatnonzero(was != is_now)
    order = np.lexsort((-now.answers.confidences[changed], is_now[changed]))
    folder = workdir / "flips"
    rows = []
    for place in changed[order][:MAX_IMAGES]:
        index = now.indices[place]
        folder.mkdir(exist_ok=True)
        path = folder / f"{len(list(folder.iterdir())):03d}.jpg"
        thumbnail = images.open_image(index)
        thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        thumbnail.save(path, quality=85)
        rows.append(
            {
                "file": images.ids[index],
                "label": images.class_names[images.labels[index]],
                "before": _class(baseline, images, place),
                "after": _class(candidate, images, place),
                "p_before": float(before.answers.confidences[place]),
                "p_after": float(now.answers.confidences[place]),
                "image": path.relative_to(workdir).as_posix(),
            }
        )
    return rows


def _of(candidate: Candidate) -> Accuracy:
    if candidate.accuracy is None:
        raise ValueError(f"the accuracy of {candidate.name!r} is not known")
    return candidate.accuracy


def _class(candidate: Candidate, images: ImageSet, place: int) -> str:
    answer = candidate.answers[place]
    return answer if isinstance(answer, str) else images.class_names[answer]
