"""A model goes on remembering what its ancestors were trained on."""

from __future__ import annotations

from pathlib import Path

from tests.stages.support import TINY, run_steps


def test_further_training_adds_to_what_a_model_was_trained_on(tmp_path: Path) -> None:
    train = {"epochs": 1, "batch_size": 16}
    other = {"path": "synthetic", "val_fraction": 0.5}
    prune = {
        "stage": "prune",
        "model": "student",
        "ratio": 0.2,
        "round_to": 8,
        "min_width": 8,
        "train": train,
    }
    made = run_steps(
        tmp_path,
        {
            "teacher": {"stage": "finetune", **TINY, "train": train},
            "student": {
                "stage": "distill",
                "teacher": "teacher",
                "student": "teacher",
                "data": other,
                "train": train,
            },
            "pruned": prune,
            "score": {"stage": "evaluate", "model": "pruned", "data": other},
        },
    )
    first, both = made["teacher"].spec.trained_on, made["student"].spec.trained_on
    assert len(first) == 1
    assert len(both) == 2
    assert both[0] == first[0]
    assert made["pruned"].spec.trained_on == both  # trained on the teacher's images again
    assert made["score"].manifest.metrics["n"] == 80  # the smaller share: 0.2 of 400, not 0.5
