"""What a user should know of a task's data before believing a score, without reading an image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from eval.common.text import counted, quoted, some
from eval.data.task_data import TaskData


def concerns(task: TaskData) -> tuple[str, ...]:
    """What ``run`` warns of and ``--strict`` refuses, a sentence each: what the reader of the
    source left out or decided, images under two labels, classes that train has not, and names
    that may be one."""
    return (
        *task.inventory.warnings(), *_ambiguous(task), *_untrained(task), *_alike(task.classes)
    )  # fmt: skip


def _ambiguous(task: TaskData) -> Iterator[str]:
    images = counted(task.ambiguous, "image")
    if not task.ambiguous:
        return
    if task.kind != "classification":
        what = {"detection": "boxes", "segmentation": "masks"}.get(task.kind, "labels")
        yield (
            f"{images} whose bytes are equal have different {what}: at least one annotation is "
            "wrong"
        )
    else:
        yield (
            f"{images} under two labels (the bytes are equal): one label is always wrong; fewshot "
            "leaves them out"
        )


def _untrained(task: TaskData) -> Iterator[str]:
    if task.kind != "classification":  # a note of its boxes, masks or labels says it
        return
    strange = np.setdiff1d(task.test.labels, task.train.labels).tolist()
    if strange:
        names = some([task.classes[label] for label in strange])
        yield (
            f"{counted(len(strange), 'class', 'classes')} ({names}) without a training image, "
            "though in test"
        )


def _alike(names: Sequence[str]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    if same := [" and ".join(map(quoted, group)) for group in groups.values() if len(group) > 1]:
        more = f" and {len(same) - 5:,} more" if len(same) > 5 else ""
        yield (
            "classes that differ only by case, spaces or accents' form: "
            f"{'; '.join(same[:5])}{more}: are they one?"
        )


def _folded(name: str) -> str:
    """A name without what one label is often written with differently."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", plain)
