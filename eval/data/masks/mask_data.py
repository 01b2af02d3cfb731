"""A segmentation task: two splits in canonical order, with masks that have been checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, TooFew
from eval.data.masks.label_map import VOID, label_map
from eval.data.masks.stored import MaskSource
from eval.data.task_data import Split, TaskData, stratified_part, take
from eval.settings.protocols import Kind

LEAST_UNITS = 20  # that are drawn again for an interval


@dataclass(frozen=True)
class MaskSplit(Split):
    """One part in canonical order. Its ``labels`` are hashes of the masks as they are stored."""

    BY_IMAGE = (*Split.BY_IMAGE, "groups")

    masks: MaskSource | None = None  # of the same rows as ``source``
    void: tuple[int, ...] = (VOID,)
    groups: NDArray[np.int64] | None = None  # [N] which images belong together; None: each alone

    def label_maps(self, index: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(i, [H, W] class numbers, VOID where there is none) of some images, in the source's
        order: ``i`` counts canonical rows."""
        assert self.masks is not None  # of data that were loaded
        order = index[np.argsort(self.rows[index])]
        read = self.masks.masks(self.rows[order])
        for i, (row, data) in zip(order.tolist(), read, strict=True):
            yield i, label_map(data, self.void, self.masks.describe(row))

    def units(self) -> NDArray[np.int64]:
        """[N] the unit of each image that is drawn again as a whole for an interval, from 0.

        An image alone where nothing is grouped; else its group. Of fewer than 20 groups each is cut
        into stretches of neighbours (a drive is filmed in order), so that there are about 20:
        frames near each other are no independent images.
        """
        n = len(self)
        if self.groups is None:
            return np.arange(n)
        _, member = np.unique(self.groups, return_inverse=True)
        member = member.reshape(-1)
        if int(member.max(initial=0)) + 1 >= LEAST_UNITS:
            return member
        length = max(1, n // LEAST_UNITS)
        order = np.lexsort((self.rows, member))
        place = np.empty(n, np.int64)
        sizes = np.bincount(member)
        place[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        # as many stretches of about equal length as fit
        stretches = np.maximum(sizes // length, 1)
        stretch = place * stretches[member] // sizes[member]
        first = np.cumsum(stretches) - stretches
        return first[member] + stretch


@dataclass(frozen=True)
class SegmentationData(TaskData):
    """A segmentation task with its data found."""

    train: MaskSplit
    test: MaskSplit

    @property
    def kind(self) -> Kind:
        return "segmentation"


def held_out_masks(task: SegmentationData, share: float, seed: int) -> NDArray[np.bool_]:
    """[N_train] True for about ``share`` of train, to choose settings on: whole groups where there
    are some, else images; copies of one image stay together.

    Groups are drawn in a random order, and each is taken that brings the count closer to the share.
    Raises TooFew where nothing is left on one of the sides.
    """
    train = task.train
    if train.groups is not None and len(np.unique(train.groups)) > 1:
        names, member, sizes = np.unique(train.groups, return_inverse=True, return_counts=True)
        wanted = share * len(train)
        taken = np.zeros(len(names), np.bool_)
        for one in np.random.RandomState(seed).permutation(len(names)):
            now = float(sizes[taken].sum())
            taken[one] = abs(now + sizes[one] - wanted) < abs(now - wanted)
        if not taken.any():
            taken[sizes.argmin()] = True
        held = taken[member.reshape(-1)]
    else:
        held = stratified_part(np.zeros(len(train), np.int64), train.keys, share, seed)
    if held.all() or not held.any():
        raise TooFew(
            f"task {task.name!r}: of {len(train)} training images no part can be held out to "
            "choose settings on; take more"
        )
    return held


def limited(task: SegmentationData, limit: int) -> SegmentationData:
    """At most ``limit`` images of each part: the first ones in canonical order, which is as good as
    drawn."""
    train, test = (
        take(split, np.arange(min(limit, len(split)))) for split in (task.train, task.test)
    )
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    if len(train) < 2:
        raise BadInput(f"{task.name} with --limit {limit}: at least two training images are needed")
    note = f"limited to {limit} images a split"
    return dataclasses.replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))
