"""What a prepared folder is held against: its manifest, the declaration, a known smaller copy.

Each check takes the data as they were loaded, and raises UserError where they are others than was
promised, with what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from eval.common.errors import BadInput, NotFound
from eval.common.files import sha256_file
from eval.data.boxes.parquet import ParquetBoxes
from eval.data.located import Check
from eval.data.manifest import MANIFEST, Manifest
from eval.data.task_data import Split, TaskData
from eval.tasks.declaration import Task


def of_manifest(task: Task, manifest: Manifest, wanted: str, folder: Path) -> tuple[Check, ...]:
    """What a folder's images are held against before split ``wanted`` is made of them."""
    frozen_default = partial(frozen, manifest, manifest.default, folder)
    checks: tuple[Check, ...] = (partial(_same_task, task, manifest, folder), frozen_default)
    if not manifest.partial:
        return (*checks, partial(_whole, task, manifest, folder))
    if wanted != manifest.default:
        return (*checks, partial(_no_other_split, task, manifest, wanted, folder))
    return checks


def declared_classes(task: Task, folder: Path, found: TaskData) -> None:
    """The classes of boxes are those of the declaration, where it names any."""
    ours = task.class_names
    if ours and found.classes != ours:
        raise BadInput(
            f"{folder} has the classes {_few(found.classes)} where {task.name!r} has {_few(ours)}"
        )


def known_subset(task: Task, split: str, folder: Path, found: TaskData) -> None:
    """A folder without a manifest is the smaller copy that the declaration knows by its hash."""
    known = task.subset
    if known is None or found.split_hash != known.split_hash:
        raise BadInput(
            f"{folder} is not a copy of {task.name!r} that is known: {_unlike(task, found)}; "
            f"{_make_one(task)}score it under a name of its own as parquet:{folder}"
        )
    if split:
        raise NotFound(
            f"{folder} is a known smaller copy of {task.name!r} with a split of its own, so "
            f"there is no {split!r}; name the task without @{split}"
        )


def _make_one(task: Task) -> str:
    if not task.preparable:
        return ""
    return f"make one with `transfer-eval prepare {task.name}`, or "


def _unlike(task: Task, found: TaskData) -> str:
    """In what the data differ from what could be expected."""
    have = f"{len(found.classes)} classes, {len(found.train):,} train and {len(found.test):,} test"
    if (known := task.subset) and known.split_hash:
        if (known.classes, known.train, known.test) == (
            len(found.classes), len(found.train), len(found.test)
        ):  # fmt: skip
            return f"the counts ({have}) are those of the known copy, but not the images"
        return (
            f"it has {have} images where the known copy has {known.classes} classes, "
            f"{known.train:,} and {known.test:,}, and no {MANIFEST}"
        )
    return f"it has {have} images and no {MANIFEST}"


def _same_task(task: Task, manifest: Manifest, folder: Path, _: TaskData) -> None:
    if manifest.task != task.name:
        raise BadInput(f"{folder / MANIFEST} is about {manifest.task!r}, not {task.name!r}")


def _no_other_split(task: Task, manifest: Manifest, wanted: str, folder: Path, _: TaskData) -> None:
    raise BadInput(
        f"{folder} lacks images of {task.name!r}, so that it has its {manifest.default!r} "
        f"split alone, not {wanted!r}; complete the download and prepare it again"
    )


def frozen(manifest: Manifest, split: str, folder: Path, found: TaskData) -> None:
    """The images are those that were frozen as this split."""
    if split not in manifest.splits:
        have = ", ".join(manifest.splits)
        raise BadInput(f"{folder / MANIFEST} freezes no split {split!r}, only {have}")
    facts = manifest.splits[split]
    if found.split_hash == facts.split_hash and list(found.classes) == manifest.classes:
        return
    raise BadInput(
        f"{folder} is not what its {MANIFEST} froze: "
        f"{_difference(found, manifest, split, folder)}; prepare the set again, or score it under "
        f"a name of its own as parquet:{folder}"
    )


def _difference(found: TaskData, manifest: Manifest, split: str, folder: Path) -> str:
    """The first thing that differs, from the coarse to the fine."""
    if list(found.classes) != manifest.classes:
        return f"its classes are {_few(found.classes)}, not {_few(manifest.classes)}"
    for part in (found.train, found.test):
        facts = manifest.splits[split].parts[part.name]
        have = _counts(part, len(found.classes))
        unlike = [
            f"{found.classes[c]!r} {have[c]:,}, not {n:,}"
            for c, n in enumerate(facts.per_class) if have[c] != n
        ]  # fmt: skip
        if unlike and found.kind == "detection":
            total = sum(facts.per_class)
            return f"{sum(have):,} boxes in {part.name}, not {total:,} ({_few(unlike)})"
        if unlike:
            return f"{len(part):,} images in {part.name}, not {facts.images:,} ({_few(unlike)})"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_file(path) != file.sha256:
            return f"{name} has other bytes"
    return f"the split hash is {found.split_hash[:12]}, not the frozen one"


def _counts(part: Split, classes: int) -> list[int]:
    """Images by class; of a detection set boxes, as they are stored."""
    labels = part.labels
    if isinstance(part.source, ParquetBoxes):
        labels = part.source.annotations().labels
    return np.bincount(labels, minlength=classes).tolist()


def _few(values: Sequence[str], most: int = 4) -> str:
    more = f", and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _whole(task: Task, manifest: Manifest, folder: Path, _: TaskData) -> None:
    """A set that calls itself whole is the declared one."""
    for rule in task.splits:
        facts = manifest.splits.get(rule.name)
        if facts is None:
            continue
        have = tuple(facts.parts[p].images for p in ("train", "test"))
        declared = (rule.train, rule.test)
        if all(declared) and have != declared:
            raise BadInput(
                f"{folder} has {have[0]:,} train and {have[1]:,} test images in split "
                f"{rule.name!r} of {task.name!r} where {rule.train:,} and {rule.test:,} are "
                "declared: another version of the set; prepare the declared one"
            )
        if rule.members and facts.members != rule.members:
            raise BadInput(
                f"{folder} has other images in train and test than split {rule.name!r} of "
                f"{task.name!r} (members {facts.members[:12]}, declared {rule.members[:12]}); "
                "prepare the set again"
            )
    if task.class_names and tuple(manifest.classes) != task.class_names:
        raise BadInput(
            f"{folder} has the classes {_few(manifest.classes)} where {task.name!r} has "
            f"{_few(task.class_names)}; prepare the set again"
        )
