"""Who is in train and who in test: rules, and a name for their outcome.

Pure: arrays in, arrays out. The study's rule is that of its code (transfer_broad @8b6d6fc,
data_loader/helper.py and utils_data.py): one RandomState(0) runs through the classes in the order
in which they first appear; each class's images are shuffled, the first int(0.7 n) train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN_SHARE = 0.7


def per_class(labels: Sequence[int] | NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """[N] True for train, by the study's rule. ``labels`` stand in the official order."""
    array = np.asarray(labels, np.int64)
    random = np.random.RandomState(seed)
    train = np.zeros(len(array), bool)
    _, first = np.unique(array, return_index=True)
    for label in array[np.sort(first)]:
        images = np.flatnonzero(array == label)
        random.shuffle(images)
        train[images[: int(TRAIN_SHARE * len(images))]] = True
    return train


def by_groups(
    labels: Sequence[int] | NDArray[np.int64], groups: Sequence[str], seed: int = 0
) -> NDArray[np.bool_]:
    """[N] True for train, about 70 % of each class, and no group on both sides.

    Groups are taken whole, the rarest class first (of those that a group's images have), in an
    order that depends on the groups' names and the seed alone: neither on the order of the rows
    nor on where they lie.
    """
    array = np.asarray(labels, np.int64)
    index = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    group_of = np.fromiter((index[n] for n in groups), np.int64, len(array))
    classes = int(array.max(initial=-1)) + 1
    counts = np.zeros((len(index), classes), np.int64)
    np.add.at(counts, (group_of, array), 1)
    key = {g: hashlib.sha256(f"{seed}:{g}".encode()).digest() for g in index}
    order = sorted(index, key=lambda g: key[g])
    target = np.rint(TRAIN_SHARE * counts.sum(0)).astype(np.int64)
    have = np.zeros(classes, np.int64)
    side = np.zeros(len(index), bool)
    rare = np.argsort(np.argsort(counts.sum(0), kind="stable"), kind="stable")
    by_rarest: dict[int, list[int]] = {}
    for name in order:
        row = index[name]
        rarest = min(np.flatnonzero(counts[row]).tolist(), key=lambda c: rare[c])
        by_rarest.setdefault(rarest, []).append(row)
    for label in sorted(by_rarest, key=lambda c: rare[c]):
        for row in by_rarest[label]:
            if have[label] + counts[row, label] <= target[label]:
                side[row] = True
                have += counts[row]
    return side[group_of]


def members(parts: Iterable[tuple[str, str]]) -> str:
    """Hex digest of who is where: (part, official name) of every image, in any order.

    Names go without folders and suffix where they alone are different, as copies on the Hub give
    them; the caller chooses.
    """
    digest = hashlib.sha256()
    for part, name in sorted(parts):
        digest.update(f"{part}\t{name}\n".encode())
    return digest.hexdigest()
