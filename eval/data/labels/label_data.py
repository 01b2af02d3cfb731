"""A multi-label task: two splits in canonical order, with which labels each image has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, TooFew
from eval.data.task_data import Split, TaskData, stratified_part, take
from eval.settings.protocols import Kind


@dataclass(frozen=True)
class LabelSplit(Split):
    """One part in canonical order. Its ``labels`` are hashes of the sets of labels."""

    BY_IMAGE = (*Split.BY_IMAGE, "several")

    several: NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros((0, 0), bool))


@dataclass(frozen=True)
class MultiLabelData(TaskData):
    """A multi-label task with its data found; ``classes`` are the labels."""

    train: LabelSplit
    test: LabelSplit

    @property
    def kind(self) -> Kind:
        return "multilabel"


def labels_of(task: TaskData) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[N, C] of train and of test: which labels each image has; of a set with one label an image
    that one."""
    if isinstance(task, MultiLabelData):
        return task.train.several, task.test.several
    one = np.eye(len(task.classes), dtype=bool)
    return one[task.train.labels], one[task.test.labels]


def having(part: Split, label: int) -> NDArray[np.int64]:
    """The canonical rows of the images that have a label, alone or among others."""
    has = part.several[:, label] if isinstance(part, LabelSplit) else part.labels == label
    return np.flatnonzero(has)


def images_by_label(part: Split, classes: int) -> NDArray[np.int64]:
    """[C] how many images have each label."""
    if isinstance(part, LabelSplit):
        return part.several.sum(0)
    return np.bincount(part.labels, minlength=classes)


def held_out_labels(task: MultiLabelData, share: float, seed: int) -> NDArray[np.bool_]:
    """[N_train] True for about ``share`` of train, to choose settings on; copies of one image stay
    together, and where the data have a validation part, it is that.

    Raises TooFew where nothing is left on one of the sides.
    """
    if task.validation is not None:
        held = np.isin(task.train.keys, task.validation)
        if held.any() and not held.all():
            return held
    nothing = np.zeros(len(task.train), np.int64)
    held = stratified_part(nothing, task.train.keys, share, seed)
    if held.all() or not held.any():
        raise TooFew(
            f"task {task.name!r}: of {len(held):,} training images no part can be held out to "
            "choose settings on; take more"
        )
    return held


def limited(task: MultiLabelData, limit: int) -> MultiLabelData:
    """At most ``limit`` images of each part, the first in canonical order. Raises UserError where
    no label is left that some images have and others have not."""
    train, test = (
        take(split, np.arange(min(limit, len(split)))) for split in (task.train, task.test)
    )
    for part in (train, test):
        if not (part.several.any(0) & ~part.several.all(0)).any():
            raise BadInput(
                f"{task.name} with --limit {limit}: no label of {part.name} is on some images and "
                "not on others"
            )
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    note = f"limited to {limit} images a split"
    return dataclasses.replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))
