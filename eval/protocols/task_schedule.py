"""The schedule of a detection task where none is asked for. Apart from detection.py, which imports
torch: a plan needs no more than this."""

from __future__ import annotations

import dataclasses

from eval.data.task_data import TaskData
from eval.settings.protocols import Detection
from eval.settings.schedules import default_schedule


def complete(settings: Detection, task: TaskData) -> Detection:
    """With the task's own schedule, or a short one where it is not all there."""
    if settings.schedule:
        return settings
    name = task.declared.name if task.declared else ""
    return dataclasses.replace(settings, schedule=default_schedule(name, not task.subset))
