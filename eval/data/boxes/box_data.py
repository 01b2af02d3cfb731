"""A detection task: two splits in canonical order, with boxes that have been checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.boxes.objects import Objects
from eval.data.task_data import Split, TaskData, take
from eval.settings.protocols import Kind


@dataclass(frozen=True)
class BoxSplit(Split):
    """One part in canonical order. Its ``labels`` are hashes of the boxes as they are stored."""

    BY_IMAGE = (*Split.BY_IMAGE, "sizes")

    objects: tuple[Objects, ...] = ()  # [N] checked: inside the image, of positive area
    sizes: NDArray[np.int64] | None = None  # [N, 2] height, width, upright


@dataclass(frozen=True)
class DetectionData(TaskData):
    """A detection task with its data found."""

    train: BoxSplit
    test: BoxSplit
    voc: bool = False  # annotated as PASCAL VOC: scored by its rules beside COCO's

    @property
    def kind(self) -> Kind:
        return "detection"


def take_boxes(split: BoxSplit, index: NDArray[np.int64]) -> BoxSplit:
    """Some images of a part; ``index`` counts its canonical rows, ascending."""
    objects = tuple(split.objects[i] for i in index.tolist())
    return dataclasses.replace(take(split, index), objects=objects)


def limited(task: DetectionData, limit: int) -> DetectionData:
    """At most ``limit`` images of each part: in canonical order, those with boxes before those
    without. Raises UserError where no box is left that counts."""

    def cut(split: BoxSplit) -> BoxSplit:
        bare = np.asarray([len(found) == 0 for found in split.objects], bool)
        return take_boxes(split, np.sort(np.argsort(bare, kind="stable")[:limit]))

    train, test = cut(task.train), cut(task.test)
    if not any((~found.crowd).any() for found in train.objects):
        raise BadInput(f"{task.name} with --limit {limit}: no image of train has a box to train on")
    if not any((~found.ignore).any() for found in test.objects):
        raise BadInput(f"{task.name} with --limit {limit}: no image of test has a box that counts")
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    note = f"limited to {limit} images a split"
    return dataclasses.replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))
