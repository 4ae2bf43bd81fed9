"""Confusion matrices stay readable from two classes to a thousand."""

from __future__ import annotations

from optkit.report.confusion import MAX_CLASSES, MAX_PAIRS, confused_pairs, count_confusion, heat_map


def test_a_small_matrix_is_kept_whole() -> None:
    counts = count_confusion([[8, 2, 0], [0, 10, 0], [0, 0, 0]])
    found = heat_map(counts, ["cat", "dog", "never seen"])
    assert found is not None
    assert found.names == ("cat", "dog")
    assert found.counts == ((8, 2), (0, 10))
    assert (found.others, found.left_out) == ((0, 0), 0)


def test_of_many_classes_the_most_confused_are_shown() -> None:
    classes = 1000
    matrix = [[0] * classes for _ in range(classes)]
    for label in range(classes):
        matrix[label][label] = 40
        matrix[label][(label + 1) % classes] = 1
    matrix[700][3] = 9
    counts = count_confusion(matrix)
    names = [f"class {index}" for index in range(classes)]
    found = heat_map(counts, names)
    assert found is not None
    assert len(found.names) <= MAX_CLASSES
    assert found.left_out == classes - len(found.names)
    row = found.names.index("class 700")
    assert found.counts[row][found.names.index("class 3")] == 9
    assert sum(found.counts[row]) + found.others[row] == 50, "no image of a class is lost"
    pairs = confused_pairs(counts, names)
    assert len(pairs) == MAX_PAIRS
    assert (pairs[0].label, pairs[0].prediction, pairs[0].n, pairs[0].share) == (
        "class 700",
        "class 3",
        9,
        0.18,
    )


def test_many_classes_without_a_mistake() -> None:
    found = heat_map(count_confusion([[int(i == j) for i in range(30)] for j in range(30)]), [])
    assert found is not None
    assert len(found.names) == MAX_CLASSES
    assert found.names[0] == "0", "a class without a name is its index"


def test_what_is_no_matrix() -> None:
    for value in (None, 3, [3], [["x", None]], []):
        assert heat_map(count_confusion(value), []) is None
