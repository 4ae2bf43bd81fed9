"""Stratified samples."""

from __future__ import annotations

import numpy as np

from optkit.data.sampling import stratified_order, stratified_subset
from tests.data.pictures import image_set


def test_every_class_gives_the_same_share() -> None:
    images = image_set(80, 8)
    found = stratified_subset(images, 16, seed=0)
    assert np.bincount(found.labels).tolist() == [2] * 8
    assert stratified_subset(images, 16, seed=0).ids == found.ids
    assert stratified_subset(images, 16, seed=1).ids != found.ids
    assert stratified_subset(images, 1000, seed=0) is images


def test_a_rare_class_is_in_every_sample() -> None:
    images = image_set(80, 8)
    rare = images.subset(np.flatnonzero((images.labels > 0) | (np.arange(80) < 1)))
    for seed in range(20):
        assert set(stratified_subset(rare, 8, seed).labels.tolist()) == set(range(8))


def test_a_larger_sample_holds_the_smaller_one() -> None:
    images = image_set(80, 8)
    assert sorted(stratified_order(images, 0)) == list(range(80))
    assert set(stratified_subset(images, 10, 0).ids) < set(stratified_subset(images, 30, 0).ids)
