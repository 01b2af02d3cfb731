"""Groups of training images: even, stratified, and the same for every model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from eval.data.groups import GROUPS, training_groups
from eval.data.sources import HASH_BYTES
from eval.data.task_data import Split, TaskData

NO_SOURCE: Any = None


def task(labels: list[int], seed: int = 0) -> TaskData:
    hashes = np.random.RandomState(seed).randint(0, 256, (len(labels), HASH_BYTES)).astype(np.uint8)
    train = Split("train", NO_SOURCE, np.array(labels), hashes, np.arange(len(labels)))
    test = dataclasses.replace(train, name="test")
    return TaskData("t", "", "", tuple("abcd"), train, test)


def test_every_class_is_spread_evenly_and_so_is_the_whole() -> None:
    labels = [0] * 57 + [1] * 23 + [2] * 4 + [3] * 6
    groups = training_groups(task(labels), 0)
    for label in range(4):
        counts = np.bincount(groups[np.array(labels) == label], minlength=GROUPS)
        assert counts.max() - counts.min() <= 1
    assert set(np.bincount(groups, minlength=GROUPS)) == {9}
    # A class of four images is in four groups.
    assert len(set(groups[80:84].tolist())) == 4


def test_the_draw_depends_on_seed_and_images_alone() -> None:
    labels = [0] * 30 + [1] * 30
    first = training_groups(task(labels), 0)
    assert (first == training_groups(task(labels), 0)).all()
    assert (first != training_groups(task(labels), 1)).any()
    assert (first != training_groups(task(labels, seed=1), 0)).any()


def test_copies_of_an_image_are_left_out_together() -> None:
    found = task([0] * 40 + [1] * 40)
    found.train.hashes[[3, 17, 25]] = found.train.hashes[3]
    groups = training_groups(found, 0)
    assert len(set(groups[[3, 17, 25]].tolist())) == 1
