from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from optkit.measure.answers import FIGURES, Answers, joined


def answers_of(logits: np.ndarray, labels: np.ndarray) -> Answers:
    p = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    losses = -np.log(p[np.arange(len(labels)), labels])
    return Answers(labels, p.argmax(axis=1), p.max(axis=1), losses)


def figures(answers: Answers) -> dict[str, float]:
    return dict(zip(FIGURES, answers.figures(np.ones(len(answers.labels), np.int64)), strict=True))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """500 images of 6 unequal classes, about three quarters of them right."""
    rng = np.random.default_rng(0)
    labels = rng.choice(6, 500, p=[0.4, 0.2, 0.2, 0.1, 0.06, 0.04])
    logits = rng.normal(size=(500, 6)) * 1.5
    logits[np.arange(500), labels] += 3
    return logits, labels


def test_a_case_known_by_hand():
    """Truth a a a b b, answers a a b b a; sure of it by 0.9 0.6 0.8 0.7 0.5 (each in a bin of its own)."""
    p = np.array([0.9, 0.6, 0.8, 0.7, 0.5])
    true_p = np.array([0.9, 0.6, 0.2, 0.7, 0.5])
    found = figures(Answers(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]), p, -np.log(true_p)))
    assert found["precision"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["recall"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.8 + 0.3 + 0.5) / 5)
    assert found["loss"] == pytest.approx(-math.log(0.9 * 0.6 * 0.2 * 0.7 * 0.5) / 5)


def test_equals_torchmetrics_and_scikit_learn(drawn):
    logits, labels = drawn
    answers = answers_of(logits, labels)
    found = figures(answers)
    truth, guesses = torch.from_numpy(labels), torch.from_numpy(answers.predictions)
    for name, metric in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        assert found[name] == pytest.approx(float(metric(guesses, truth, 6, average="macro")), abs=1e-6)
    scores = reference.precision_recall_fscore_support(labels, answers.predictions, average="macro")
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(scores[:3], abs=1e-12)
    p = torch.from_numpy(logits).softmax(dim=1)
    assert found["ece"] == pytest.approx(
        float(multiclass_calibration_error(p, truth, 6, n_bins=15)), abs=1e-6
    )
    assert found["loss"] == pytest.approx(reference.log_loss(labels, p.numpy()), abs=1e-9)


def test_full_confidence_is_in_the_last_bin():
    """Two sure answers, one wrong, beside two at 0.97, both right: one bin of mean 0.985 and three of four."""
    p = np.array([1.0, 1.0, 0.97, 0.97])
    found = figures(Answers(np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1]), p, np.zeros(4)))
    assert found["ece"] == pytest.approx(0.985 - 0.75)


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_the_calibration_error_is_torchmetrics(drawn, temperature):
    logits, labels = drawn
    answers = answers_of(logits / temperature, labels)
    reference_error = multiclass_calibration_error(
        torch.from_numpy(logits / temperature).softmax(dim=1), torch.from_numpy(labels), 6, n_bins=15
    )
    assert answers.confidences.max() < 1
    assert figures(answers)["ece"] == pytest.approx(float(reference_error), abs=1e-6)


def test_weights_count_an_image_several_times(drawn):
    answers = answers_of(*drawn)
    weights = np.random.default_rng(1).integers(0, 3, 500)
    repeated = np.repeat(np.arange(500), weights)
    columns = (answers.labels, answers.predictions, answers.confidences, answers.losses)
    longer = Answers(*(column[repeated] for column in columns))
    assert answers.figures(weights) == pytest.approx(longer.figures(np.ones(len(repeated), np.int64)))


def test_joined_batches_are_the_whole(drawn):
    logits, labels = drawn
    parts = joined([answers_of(logits[:200], labels[:200]), answers_of(logits[200:], labels[200:])])
    assert figures(parts) == figures(answers_of(logits, labels))


@pytest.mark.parametrize("n", [12, 500])
def test_intervals_contain_the_value_and_follow_the_seed(drawn, n):
    logits, labels = drawn
    answers = answers_of(logits[:n], labels[:n])
    values, intervals = figures(answers), dict(zip(FIGURES, answers.intervals(0), strict=True))
    for name, (low, high) in intervals.items():
        assert 0 <= low < values[name] < high, name
        assert name == "loss" or high <= 1
    assert answers.intervals(0) == answers.intervals(0) != answers.intervals(1)


def test_intervals_cover_the_truth(drawn):
    """Of samples of 200 from a known population, about 95 in 100 intervals hold the population's figure."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20_000)
    logits = rng.normal(size=(20_000, 3)) * 2
    logits[np.arange(20_000), labels] += 2
    whole = figures(answers_of(logits, labels))
    hits = dict.fromkeys(FIGURES, 0)
    for seed in range(40):
        chosen = rng.choice(20_000, 200, replace=False)
        intervals = answers_of(logits[chosen], labels[chosen]).intervals(seed)
        for name, (low, high) in zip(FIGURES, intervals, strict=True):
            hits[name] += low <= whole[name] <= high
    assert all(found >= 34 for found in hits.values()), hits


@pytest.mark.parametrize("n", [100, 1000])
def test_the_interval_of_a_perfect_calibration_holds_zero(n):
    """Every answer is right as often as its confidence says; a sample alone shows an error all the same."""
    rng = np.random.default_rng(0)
    hits, errors = 0, []
    for seed in range(40):
        confidences = rng.uniform(0.5, 1, n)
        right = rng.random(n) < confidences
        answers = Answers(np.where(right, 1, 0), np.ones(n, np.int64), confidences, -np.log(confidences))
        low, high = answers.intervals(seed)[FIGURES.index("ece")]
        errors.append(figures(answers)["ece"])
        hits += low == 0
        assert low <= errors[-1] <= high
    assert min(errors) > 0
    assert hits >= 33  # 38 are expected


def test_no_mistake_in_few_images_is_no_certainty():
    logits = np.eye(2)[[0] * 10 + [1] * 10] * 3
    balanced = answers_of(logits, logits.argmax(axis=1)).intervals(0)
    assert balanced[0] == [pytest.approx(20 / (20 + 1.959964**2)), 1.0]
    assert balanced[0] == balanced[1] == balanced[2]
    logits = np.eye(2)[[0] * 19 + [1]] * 3
    lopsided = answers_of(logits, logits.argmax(axis=1)).intervals(0)
    assert lopsided[1][0] < balanced[1][0]  # one image says little of its class
