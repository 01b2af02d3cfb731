"""The part of train to choose settings on, of a task of any kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import TooFew
from eval.data.labels.label_data import MultiLabelData, held_out_labels
from eval.data.masks.mask_data import SegmentationData, held_out_masks
from eval.data.task_data import TaskData, stratified_part
from eval.data.validation import held_out


def part_held_out(task: TaskData, share: float, seed: int) -> NDArray[np.bool_]:
    """[N_train] True for about ``share`` of train: of each class where an image has one, of whole
    groups where masks have some, else of the images. Raises TooFew where nothing is left on one of
    the sides."""
    if isinstance(task, SegmentationData):
        return held_out_masks(task, share, seed)
    if isinstance(task, MultiLabelData):
        return held_out_labels(task, share, seed)
    if task.kind == "classification":
        return held_out(task, share, seed)
    held = stratified_part(np.zeros(len(task.train), np.int64), task.train.keys, share, seed)
    if held.all() or not held.any():
        raise TooFew(f"task {task.name!r}: too few training images to hold some out; take more")
    return held
