"""A task string -> its images in canonical order: the one door to data.

A line, not a tree: ``locate`` says where the images lie and by which rule they are split, and the
functions here do the rest for every kind of task: scan, canonical order, split, checks, limit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, UserError
from eval.data import declared, own, task_file
from eval.data.boxes.assemble import BoxParts, assemble_boxes
from eval.data.boxes.box_data import DetectionData
from eval.data.canonical import canonical, class_names, halves, joined, numbered, refuse_unlabelled
from eval.data.instances.assemble import InstanceParts, assemble_instances
from eval.data.instances.instance_data import InstanceData
from eval.data.joined_source import Joined
from eval.data.labels.assemble import LabelParts, assemble_labels
from eval.data.labels.label_data import MultiLabelData, images_by_label
from eval.data.limit import limited
from eval.data.located import Located, Parts, Resplit, Whole
from eval.data.locations import Data
from eval.data.masks.assemble import MaskParts, assemble_masks
from eval.data.masks.mask_data import SegmentationData
from eval.data.shifted import is_shift, load_shifted
from eval.data.sources import Scan, Source, as_keys, remembered_scan
from eval.data.task_data import Split, TaskData, check_split
from eval.data.values import Valued, as_given, by_rule, extremes, in_words, memo_of
from eval.data.whole_split import WholeGroups
from eval.tasks.names import parse_task
from eval.tasks.registry import TASKS

Keys = NDArray[np.void]  # hashes of images


class Divided(NamedTuple):
    """What a source holds, divided and in canonical order."""

    classes: tuple[str, ...]  # names by label
    train: Split
    test: Split
    deep: Keys  # images of more than 8 bits
    validation: Keys | None  # those of train that settings are chosen on


def load_task(
    text: str, cache: Path, data: Data | None = None, limit: int | None = None, seed: int = 0
) -> TaskData:
    """Find a task's data and put it in canonical order.

    ``data`` is where declared tasks are looked for: DIR/<task>/train-*.parquet and test-*.parquet,
    or the Hub. A scan of the images is remembered in ``cache`` by file name, size and time, so that
    a second call reads no image.
    ``limit`` keeps at most that many images of each split, balanced over classes; of a detection
    task those with boxes first. Raises UserError for anything wrong with the data.
    """
    if is_shift(text):
        return load_shifted(text, lambda one: load_task(one, cache, data, limit, seed))
    task = load(locate(text, cache, data, seed), cache)
    return limited(task, limit) if limit is not None else task


def locate(text: str, cache: Path, data: Data | None = None, seed: int = 0) -> Located:
    """Where a task's images lie; none is read. Raises UserError where they are not to be found."""
    parsed = parse_task(text)
    if parsed.kind == "declared":
        return declared.locate(TASKS[parsed.value], parsed.split, cache, data)
    if parsed.kind == "file":
        return task_file.locate(parsed.value, seed)
    return own.locate(parsed, text, seed)


def load(found: Located, cache: Path) -> TaskData:
    """Scan, order, split and check what was located. Raises UserError for anything wrong."""
    try:
        return _load(found, cache)
    except UserError as error:
        other = found.otherwise() if found.otherwise else None
        if other is None:
            if not found.cure:
                raise
            raise BadInput(f"{found.subject} is not at hand: {error}; {found.cure}") from None
    return load(other, cache)


def _load(found: Located, cache: Path) -> TaskData:
    task, deep = _as_it_lies(found, cache)
    task = dataclasses.replace(task, notes=(*task.notes, *_shares(found, task)))
    for check in found.checks:
        check(task)
    if found.resplit is not None:
        task = _again(task, found.resplit, found.subject)
    if found.classes:
        task = dataclasses.replace(task, classes=found.classes)
    if found.kind or found.describe:  # what is declared is read as it always was
        task = dataclasses.replace(_with_values(task, deep, found, cache), own=True)
    if found.describe is not None:
        task = dataclasses.replace(task, declared=found.describe(task))
    if found.kind:  # by content, so that two folders `photos` never collide
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", task.name)
        task = dataclasses.replace(task, name=f"{found.kind}-{plain}-{task.split_hash[:8]}")
    return task


def _shares(found: Located, task: TaskData) -> list[str]:
    """What a split by whole groups came to."""
    rule = found.images.rule if isinstance(found.images, (Whole, LabelParts)) else None
    if not isinstance(rule, WholeGroups):
        return []
    train, test = (images_by_label(part, len(task.classes)) for part in (task.train, task.test))
    return [rule.note(train, test, len(task.train) / (len(task.train) + len(task.test)))]


def _as_it_lies(found: Located, cache: Path) -> tuple[TaskData, Keys]:
    if isinstance(found.images, BoxParts):
        boxes = assemble_boxes(found.images, cache, found.subject)
        task: TaskData = DetectionData(
            found.name, found.where, found.revision, boxes.classes, boxes.train, boxes.test,
            declared=found.declared, notes=(*boxes.notes, *found.notes), split=found.split,
            partial=found.partial, inventory=found.inventory, voc=boxes.voc,
        )  # fmt: skip
        return task, boxes.deep
    if isinstance(found.images, MaskParts):
        masks = assemble_masks(found.images, cache, found.subject)
        task = SegmentationData(
            found.name, found.where, found.revision, masks.classes, masks.train, masks.test,
            declared=found.declared, notes=(*masks.notes, *found.notes), split=found.split,
            partial=found.partial, inventory=found.inventory,
        )  # fmt: skip
        return task, masks.deep
    if isinstance(found.images, LabelParts):
        labels = assemble_labels(found.images, cache, found.subject)
        said = (*found.inventory.said, *labels.said)
        task = MultiLabelData(
            found.name, found.where, found.revision, labels.labels, labels.train, labels.test,
            declared=found.declared, notes=(*labels.notes, *found.notes), split=found.split,
            partial=found.partial, inventory=dataclasses.replace(found.inventory, said=said),
            validation=labels.validation,
        )  # fmt: skip
        return task, labels.deep
    if isinstance(found.images, InstanceParts):
        both = assemble_instances(found.images, cache, found.subject)
        task = InstanceData(
            found.name, found.where, found.revision, both.instances, both.gallery, both.queries,
            declared=found.declared, notes=(*both.notes, *found.notes), split=found.split,
            partial=found.partial, inventory=found.inventory, lost=both.lost,
        )  # fmt: skip
        return task, both.deep
    if isinstance(found.images, Whole):
        parts = _from_whole(found.images, cache, found.subject)
    else:
        parts = _from_parts(found.images, cache, found.subject, found.unused)
    task = TaskData(
        found.name, found.where, found.revision, parts.classes, parts.train, parts.test,
        declared=found.declared, notes=found.notes, split=found.split, partial=found.partial,
        inventory=found.inventory, validation=parts.validation,
    )  # fmt: skip
    return task, parts.deep


def _with_values(task: TaskData, deep: Keys, found: Located, cache: Path) -> TaskData:
    """The task with its grey values of more than 8 bits read by one range for all images."""
    in_train, in_test = (np.isin(part.keys, deep) for part in (task.train, task.test))
    count = int(in_train.sum() + in_test.sum())
    if not count:
        if found.range:
            raise BadInput(f"{found.subject}: range= has no effect, no image has more than 8 bits")
        return task
    part, mask = (task.train, in_train) if in_train.any() else (task.test, in_test)
    seen = extremes(part.source, np.sort(part.rows[mask]), memo_of(cache, part.hash))
    inventory = task.inventory
    if found.range:
        values = as_given(found.range, seen)
    else:
        values = by_rule(seen, found.subject)
        said = (*inventory.said, in_words(count, seen, values)) if seen else inventory.said
        inventory = dataclasses.replace(inventory, said=said)
    train, test = (
        dataclasses.replace(part, source=Valued(part.source, values))
        for part in (task.train, task.test)
    )
    return dataclasses.replace(task, train=train, test=test, inventory=inventory)


def _from_parts(images: Parts, cache: Path, subject: str, unused: Sequence[str] = ()) -> Divided:
    scans: list[tuple[str, Source, Scan, NDArray[np.int64]]] = []
    for part, source in (
        ("train", images.train), ("test", images.test),
        *(("validation", source) for source in images.validation),
    ):  # fmt: skip
        scan, order = remembered_scan(source, cache, subject)
        refuse_unlabelled(scan, source, part, subject, unused if part == "test" else ())
        scans.append((part, source, scan, order))
    deep = np.concatenate([as_keys(scan.hashes[scan.deep]) for _, _, scan, _ in scans])
    first, *others = [scan for _, _, scan, _ in scans]
    names, by_number = class_names(first, others, subject, images.names)
    splits = []
    for part, source, scan, order in scans:
        scan = numbered(scan, names, by_number, part, subject)
        splits.append(canonical(part, source, scan, order, subject))
    train, test, *held = splits
    validation = np.concatenate([split.keys for split in held]) if held else None
    for split in held:
        source = Joined(train.source, split.source, len(train))
        train = dataclasses.replace(joined(train, split, source), name="train")
    for split in (train, test):
        check_split(split, subject)
    return Divided(names, train, test, deep, validation)


def _from_whole(images: Whole, cache: Path, subject: str) -> Divided:
    scan, order = remembered_scan(images.source, cache, subject)
    refuse_unlabelled(scan, images.source, "all", subject)
    deep = as_keys(scan.hashes[scan.deep])
    if images.names and not scan.names:
        scan = Scan(scan.labels, scan.hashes, images.names)
    names, by_number = class_names(scan, [], subject)
    scan = numbered(scan, names, by_number, "all", subject)
    whole = canonical("all", images.source, scan, order, subject)
    in_train = images.rule.in_train(whole)
    if in_train.all() or not in_train.any():
        what = "test" if in_train.all() else "train"
        raise BadInput(
            f"{subject}: no image is left to {what} on: every class has one image, or one group, "
            "alone; give at least two a class"
        )
    validation = None
    if any(images.validation):
        validation = whole.keys[np.asarray(images.validation, np.bool_)[whole.rows]]
    return Divided(names, *halves(whole, in_train, subject), deep, validation)


def _again(task: TaskData, how: Resplit, subject: str) -> TaskData:
    """The same images in other parts; they were read for the first ones."""
    whole = joined(task.train, task.test, how.source)
    train, test = halves(whole, how.rule.in_train(whole), subject)
    task = dataclasses.replace(task, train=train, test=test)
    for check in how.checks:
        check(task)
    return task
