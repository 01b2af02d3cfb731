"""Which galleries data can be asked in."""

from __future__ import annotations

from collections.abc import Sequence

from eval.common.errors import BadInput
from eval.data.task_data import TaskData
from eval.settings.protocols import Retrieval


def refuse(settings: Retrieval, tasks: Sequence[TaskData]) -> None:
    """Raises UserError where the test images are to be asked for each other and are queries, whose
    gallery the data name."""
    if settings.gallery != "test":
        return
    for task in tasks:
        if task.kind == "instances":
            raise BadInput(
                f"retrieval.gallery=test on task {task.name!r}: its queries have a gallery of "
                "their own; leave the setting out"
            )
