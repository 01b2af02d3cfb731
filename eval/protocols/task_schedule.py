"""The schedule of a detector's training: the task's own where none is asked for, and what the
settings change in it. Apart from detection.py, which imports torch: a plan needs no more."""

from __future__ import annotations

import dataclasses

from eval.data.task_data import TaskData
from eval.settings.protocols import Detection
from eval.settings.schedules import Schedule, default_schedule, schedule_named


def complete(settings: Detection, task: TaskData) -> Detection:
    """With the task's own schedule, or a short one where it is not all there."""
    if settings.schedule:
        return settings
    name = task.declared.name if task.declared else ""
    return dataclasses.replace(settings, schedule=default_schedule(name, not task.subset))


def resolved(settings: Detection) -> Schedule:
    """The schedule that the settings name, with what they say otherwise. Drops and warm-up keep
    their share of the iterations."""
    named = schedule_named(settings.schedule)
    n = settings.iterations or named.iterations
    return dataclasses.replace(
        named,
        iterations=n,
        drops=tuple(sorted({d * n // named.iterations for d in named.drops} - {0})),
        warmup=min(named.warmup, n // 4),
        batch_size=settings.batch_size or named.batch_size,
        lr=settings.lr or named.lr,
        sides=settings.sides or named.sides,
        test_side=settings.test_side or named.test_side,
        channels=settings.channels or named.channels,
        head=settings.head or named.head,
        max_side=settings.max_side or named.max_side,
    )
