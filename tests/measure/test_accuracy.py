from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn import metrics as reference

from optkit.core.errors import InputError
from optkit.measure.accuracy import Logits, measure_accuracy, ranked
from optkit.measure.classes import map_classes

NAMES = tuple(f"class {index}" for index in range(8))


def probabilities(answer: np.ndarray, classes: int) -> np.ndarray:
    return Logits(classes).of(answer).softmax(dim=1).numpy()


@dataclass
class Batch:
    pixels: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def in_batches(logits: np.ndarray, labels: np.ndarray, size: int = 7):
    """The logits travel as pixels, so that the model is the identity."""
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield Batch(logits[part], labels[part], np.arange(len(labels))[part])


def measure(logits, labels, names=NAMES, data_names=None):
    mapping = map_classes(data_names or names, names)
    return measure_accuracy(lambda x: x, in_batches(logits, labels), names, mapping, lambda n: None)


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 200)
    logits = rng.normal(size=(200, 8)).astype(np.float32) * 2
    logits[np.arange(200), labels] += 4
    return logits, labels


def test_agrees_with_scikit_learn(answers):
    logits, labels = answers
    found = measure(logits, labels)
    guesses = logits.argmax(axis=1)
    p = probabilities(logits, 8)
    assert found.n == 200
    assert found.top1 == pytest.approx(reference.accuracy_score(labels, guesses))
    assert found.top5 == pytest.approx(reference.top_k_accuracy_score(labels, logits, k=5))
    assert found.loss == pytest.approx(reference.log_loss(labels, p), abs=1e-5)
    scores = reference.precision_recall_fscore_support(labels, guesses, average="macro")
    assert (found.precision, found.recall, found.f1) == pytest.approx(scores[:3])
    assert found.confusion == reference.confusion_matrix(labels, guesses).tolist()
    assert found.predictions == guesses.tolist()
    assert found.labels == labels.tolist()
    assert found.indices == list(range(200))
    assert found.top1_interval[0] < found.top1 < found.top1_interval[1]
    assert 0.5 < found.top1 < 1  # neither trivial
    json.dumps(found.metrics(), allow_nan=False)


def test_calibration_error_of_known_confidence():
    logits = np.zeros((100, 2), np.float32)
    logits[:, 0] = np.log(9)  # 90 % sure of class 0
    labels = np.array([0] * 60 + [1] * 40)
    assert measure(logits, labels, ("a", "b")).ece == pytest.approx(0.3, abs=1e-5)


def test_per_class_names_what_a_class_is_taken_for():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]]
    found = measure(logits, np.array([0, 0, 0, 1, 2]), ("a", "b", "c"))
    row = found.per_class[0]
    assert row["recall"] == pytest.approx(1 / 3)
    assert (row["n"], row["precision"], row["confused_with"]) == (3, 1.0, "b")
    assert found.per_class[2]["confused_with"] is None
    assert found.top5 is None  # of three classes it would say nothing


def test_classes_without_images_do_not_count_in_the_means():
    found = measure(np.eye(8, dtype=np.float32)[[0, 1]] * 5, np.array([0, 1]), data_names=NAMES[:2])
    assert (found.top1, found.f1) == (1.0, 1.0)
    assert found.per_class[7]["recall"] is None


def test_data_in_another_order_is_matched_by_name():
    logits = np.eye(3, dtype=np.float32) * 5  # the images show a, b, c
    found = measure(logits, np.array([1, 2, 0]), ("a", "b", "c"), data_names=("c", "a", "b"))
    assert found.top1 == 1.0
    assert found.labels == [0, 1, 2]


def test_softmax_at_the_end_of_a_model_is_undone(answers):
    logits, labels = answers
    plain = measure(logits, labels)
    soft = measure(probabilities(logits, 8).astype(np.float32), labels)
    assert soft.loss == pytest.approx(plain.loss, rel=1e-3)
    assert soft.ece == pytest.approx(plain.ece, abs=1e-3)


def test_whether_there_is_a_softmax_is_decided_once():
    """The last batch holds one image, whose logits look like probabilities."""
    logits = np.array([[4.0, 0.0]] * 7 + [[0.9, 0.1]], np.float32)
    found = measure(logits, np.zeros(8, int), ("a", "b"))
    assert found.answers.losses[-1] == pytest.approx(np.log(1 + np.exp(-0.8)))
    ends_with_softmax = np.array([[0.9, 0.1]] * 7 + [[0.99, 0.02]], np.float32)  # the last one is rounded
    found = measure(ends_with_softmax, np.zeros(8, int), ("a", "b"))
    assert found.answers.losses[-1] == pytest.approx(np.log(1 + 0.02 / 0.99), rel=1e-4)


def test_ties_are_broken_in_one_way():
    """Of equal logits the class of the lowest index counts, in every figure."""
    logits = np.zeros((60, 40), np.float32)
    logits[:, 7:] = 1
    labels = np.full(60, 7)
    names = tuple(map(str, range(40)))
    found = measure(logits, labels, names)
    assert found.predictions == [7] * 60
    assert found.confusion[7][7] == 60
    assert (found.top1, found.top5, found.per_class[7]["recall"]) == (1.0, 1.0, 1.0)
    assert measure(logits, np.full(60, 12), names).top5 == 0.0
    assert ranked(probabilities(logits, 40))[0, :5].tolist() == [7, 8, 9, 10, 11]


def test_nan_is_an_error_and_not_an_accuracy():
    logits = np.zeros((3, 8), np.float32)
    logits[1, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        measure(logits, np.zeros(3, int))


def test_other_number_of_classes_is_an_error():
    with pytest.raises(InputError, match="8 classes"):
        measure(np.zeros((3, 9), np.float32), np.zeros(3, int))


def test_no_images_is_an_error():
    with pytest.raises(InputError, match="no image"):
        measure(np.zeros((0, 8), np.float32), np.zeros(0, int))
