"""The part of train that is held out to choose settings on; the test images choose nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import TooFew
from eval.data.task_data import TaskData, stratified_part


def held_out(task: TaskData, share: float, seed: int) -> NDArray[np.bool_]:
    """[N] True for about ``share`` of each class of train; where the data have a validation part,
    for what lies there (of it, what ``task`` has).

    Raises TooFew where classes are so small that nothing is left on one of the sides.
    """
    if task.validation is not None:
        held = np.isin(task.train.keys, task.validation)
        if held.any() and not held.all():
            return held
    held = stratified_part(task.train.labels, task.train.keys, share, seed)
    if held.all() or not held.any():
        raise TooFew(
            f"task {task.name!r}: no class has two different training images, so that no part of "
            f"its {len(held):,} can be held out to choose settings on; take more, or use fewshot"
        )
    return held
