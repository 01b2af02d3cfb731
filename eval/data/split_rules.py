"""Who is in train and who in test: rules, and a name for their outcome.

Pure: arrays in, arrays out. The study's rule is that of its code (transfer_broad @8b6d6fc,
data_loader/helper.py and utils_data.py): one RandomState(0) runs through the classes in the order
in which they first appear; each class's images are shuffled, the first int(0.7 n) train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
    """[N] True for train, at most 70 % of each class, and no group on both sides.

    Groups are taken whole, the rarest class first (of those that a group's images have), in an
    order that depends on the groups' names and the seed alone: neither on the order of the rows
    nor on where they lie. The rule of declared splits, which are frozen.
    """
    table = _by_group(labels, groups, seed)
    have = np.zeros_like(table.target)
    side = np.zeros(len(table.counts), bool)
    for label, row in table.order:
        if have[label] + table.counts[row, label] <= table.target[label]:
            side[row] = True
            have += table.counts[row]
    return side[table.group_of]


def near_share(
    labels: Sequence[int] | NDArray[np.int64], groups: Sequence[str], seed: int = 0
) -> NDArray[np.bool_]:
    """[N] True for train, of each class as near to 70 % as whole groups in `by_groups`' order come.

    A group is taken where it brings the count of its rarest class nearer: with `by_groups`, which
    never goes beyond 70 %, a group that is most of a class goes to test. A class of two groups or
    more has one on each side, as far as the other classes in them allow it.
    """
    table = _by_group(labels, groups, seed)
    have = np.zeros_like(table.target)
    side = np.zeros(len(table.counts), bool)
    for label, row in table.order:
        short = table.target[label] - have[label]
        if abs(short - table.counts[row, label]) <= abs(short):
            side[row] = True
            have += table.counts[row]
    for wanted in (False, True):  # train last: what it lacks cannot be learned
        _give_each_class(wanted, side, table)
    return side[table.group_of]


class _ByGroup(NamedTuple):
    """Images in G groups, which are numbered in an order that their names and the seed give."""

    group_of: NDArray[np.int64]  # [N]
    counts: NDArray[np.int64]  # [G, C]
    target: NDArray[np.int64]  # [C] how many should train
    order: list[tuple[int, int]]  # a group's rarest class, the group; rare classes first


def _by_group(
    labels: Sequence[int] | NDArray[np.int64], groups: Sequence[str], seed: int
) -> _ByGroup:
    array = np.asarray(labels, np.int64)
    key = {name: hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in {*groups}}
    index = {name: i for i, name in enumerate(sorted(key, key=lambda name: key[name]))}
    group_of = np.fromiter((index[name] for name in groups), np.int64, len(array))
    counts = np.zeros((len(index), int(array.max(initial=-1)) + 1), np.int64)
    np.add.at(counts, (group_of, array), 1)
    total = counts.sum(0)
    rare = np.argsort(np.argsort(total, kind="stable"), kind="stable")
    rarest = [min(np.flatnonzero(row).tolist(), key=lambda label: rare[label]) for row in counts]
    order = sorted(enumerate(rarest), key=lambda pair: (rare[pair[1]], pair[0]))
    target = np.rint(TRAIN_SHARE * total).astype(np.int64)
    return _ByGroup(group_of, counts, target, [(label, row) for row, label in order])


def _give_each_class(wanted: bool, side: NDArray[np.bool_], table: _ByGroup) -> None:
    """Move a group to the ``wanted`` side for each class that has two or more and none there: the
    one that takes no other class's last away and leaves the shares the nearest."""
    has = table.counts > 0
    several = has.sum(0) >= 2

    def price(row: int) -> tuple[int, int]:
        last = several & has[row] & (has[side != wanted].sum(0) == 1)
        moved = side.copy()
        moved[row] = wanted
        distance = np.abs(table.counts[moved].sum(0) - table.target).sum()
        return int(last.sum()), int(distance)

    for label in np.flatnonzero(several):
        rows = np.flatnonzero(has[:, label])
        if not (side[rows] == wanted).any():
            side[min(rows.tolist(), key=price)] = wanted


def members(parts: Iterable[tuple[str, str]]) -> str:
    """Hex digest of who is where: (part, official name) of every image, in any order.

    Names go without folders and suffix where they alone are different, as copies on the Hub give
    them; the caller chooses.
    """
    digest = hashlib.sha256()
    for part, name in sorted(parts):
        digest.update(f"{part}\t{name}\n".encode())
    return digest.hexdigest()
