"""Training images in groups that are left out one at a time, for the jackknife over them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from eval.data.task_data import TaskData

GROUPS = 10


def training_groups(task: TaskData, seed: int) -> NDArray[np.int64]:
    """[N] the group 0..9 of each training image, every class spread evenly over the groups.

    A class of fewer than ten images spreads over as many groups as it has images. Copies of an
    image within a class stay together: one of them would stand in for the other. The draw depends
    on the split hash and the seed, so every model leaves out the same images.
    """
    labels, keys = task.train.labels, task.train.keys
    groups = np.empty(len(labels), np.int64)
    first = 0  # where the next class begins, so that the groups of small classes are equal too
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        _, copy_of = np.unique(keys[rows], return_inverse=True)
        different = int(copy_of.max()) + 1
        text = f"{task.split_hash}:{seed}:group:{label}"
        words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")
        order = np.random.RandomState(words.tolist()).permutation(different)
        groups[rows] = (first + order[copy_of.reshape(-1)]) % GROUPS
        first += different
    return groups
