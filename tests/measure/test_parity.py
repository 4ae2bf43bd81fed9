from __future__ import annotations

import numpy as np
import pytest

from optkit.measure.parity import compare_logits


def test_known_noise_gives_known_decibels():
    reference = np.full((4, 10), 2.0, np.float32)
    reference[:, 3] = 5.0
    found = compare_logits(reference, reference * 1.1)
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-3)  # 10·log10(1 / 0.1²)
    assert found.max_abs == pytest.approx(0.5, abs=1e-5)
    assert found.max_relative == pytest.approx(0.1, abs=1e-5)
    assert found.agreement == 1.0


def test_agreement_is_the_share_of_equal_winners():
    reference = np.eye(4, dtype=np.float32)
    other = reference.copy()
    other[0] = [0, 1, 0, 0]
    assert compare_logits(reference, other).agreement == 0.75


def test_equal_logits_are_finite():
    logits = np.ones((2, 3), np.float32)
    found = compare_logits(logits, logits)
    assert found.max_abs == 0
    assert found.sqnr_db == 200.0


def test_shapes_must_match():
    with pytest.raises(ValueError, match="shapes"):
        compare_logits(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
