"""--limit: a few images of each split, for a first look."""

from __future__ import annotations

import dataclasses

import numpy as np

from eval.common.errors import BadInput
from eval.data.boxes import box_data
from eval.data.instances import instance_data
from eval.data.labels import label_data
from eval.data.masks import mask_data
from eval.data.task_data import Split, TaskData, check_split, take


def limited(task: TaskData, limit: int) -> TaskData:
    """At most ``limit`` images of each split, one class after the other, in canonical order; of a
    detection task those with boxes first. Raises UserError where too little is left."""
    if limit < 1:
        raise BadInput(f"--limit must be at least 1, got {limit}")
    if isinstance(task, box_data.DetectionData):
        return box_data.limited(task, limit)
    if isinstance(task, mask_data.SegmentationData):
        return mask_data.limited(task, limit)
    if isinstance(task, label_data.MultiLabelData):
        return label_data.limited(task, limit)
    if isinstance(task, instance_data.InstanceData):
        return instance_data.limited(task, limit)

    def cut(split: Split) -> Split:
        place = np.zeros(len(split), np.int64)  # an image's place within its class
        for label in np.unique(split.labels):
            rows = np.flatnonzero(split.labels == label)
            place[rows] = np.arange(len(rows))
        keep = np.lexsort((split.labels, place))[:limit]
        return take(split, np.sort(keep))

    train, test = cut(task.train), cut(task.test)
    for split in (train, test):
        check_split(split, f"{task.name} with --limit {limit}")
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    note = f"limited to {limit} images a split"
    return dataclasses.replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))
