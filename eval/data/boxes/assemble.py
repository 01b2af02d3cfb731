"""Two sources with boxes -> two parts in canonical order, their boxes checked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.boxes.box_check import REASONS, Checked, check, taken_for_corners
from eval.data.boxes.box_data import BoxSplit
from eval.data.boxes.files import FileBoxes
from eval.data.boxes.objects import Dropped, Objects
from eval.data.boxes.stored import BoxScan, BoxSource, Stored, remembered_boxes
from eval.data.sources import as_keys
from eval.data.task_data import canonical_order

NAMED = 5  # classes that a note names


@dataclass(frozen=True)
class BoxParts:
    """Where train and test of a detection task lie."""

    train: BoxSource
    test: BoxSource
    names: tuple[str, ...] = ()  # of the classes, by label, where the sources name none
    voc: bool = False  # scored by the rules of PASCAL VOC as well, whatever the sources say


@dataclass(frozen=True)
class BoxSplits:
    """Both parts in canonical order, their boxes checked."""

    classes: tuple[str, ...]
    train: BoxSplit
    test: BoxSplit
    notes: tuple[str, ...]  # about boxes that were left out or may be wrong
    deep: NDArray[np.void]  # hashes of the images of more than 8 bits
    voc: bool


def assemble_boxes(images: BoxParts, cache: Path, subject: str) -> BoxSplits:
    """Scan, order and check both parts.

    Raises UserError for class names that differ, a label outside of them, and a part without an
    image or without a box that counts.
    """
    sources = images.train, images.test
    scans = [remembered_boxes(source, cache) for source in sources]
    classes = _classes(scans, images.names, subject)
    splits, notes = [], []
    for part, source, scan in zip(("train", "test"), sources, scans, strict=True):
        split, note = _split(part, source, scan, len(classes), subject)
        splits.append(split)
        notes += [f"{part}: {note}"] if note else []
    notes += _unseen(splits[0], splits[1], classes)
    notes += filter(None, map(_of_another_size, splits))
    voc = images.voc or any(scan.stored.flagged for scan in scans)
    deep = np.concatenate([as_keys(scan.hashes[scan.deep]) for scan in scans])
    return BoxSplits(classes, splits[0], splits[1], tuple(notes), deep, voc)


def _classes(scans: list[BoxScan], names: tuple[str, ...], subject: str) -> tuple[str, ...]:
    declared = [scan.names for scan in scans if scan.names]
    if len(set(declared)) > 1:
        raise BadInput(f"{subject}: train and test declare different class names")
    if declared or names:
        return declared[0] if declared else names
    highest = max((int(scan.stored.labels.max(initial=-1)) for scan in scans), default=-1)
    return tuple(f"class {i}" for i in range(highest + 1))


def _split(
    part: str, source: BoxSource, scan: BoxScan, classes: int, subject: str
) -> tuple[BoxSplit, str]:
    """(the part in canonical order, a note about boxes that were left out)."""
    stored = scan.stored
    if len(stored) == 0:
        raise BadInput(f"{subject}: the {part} split is empty")
    wrong = np.flatnonzero((stored.labels < 0) | (stored.labels >= classes))
    if len(wrong):
        row = int(stored.image_of[wrong[0]])
        raise BadInput(
            f"{subject}: category {stored.labels[wrong[0]]} in {source.describe(row)} ({part}) is "
            f"outside 0..{classes - 1}"
        )
    if over := len(stored.xywh) and taken_for_corners(stored.xywh, scan.sizes[stored.image_of]):
        raise BadInput(
            f"{subject}: all {len(stored.xywh):,} boxes of {part} fit their images as corners x1, "
            f"y1, x2, y2, and {over:,} of them do not as x, y, width, height, such as "
            f"{_numbers(stored.xywh[0])} in {source.describe(int(stored.image_of[0]))}; give x, y, "
            "width, height"
        )
    least = 1.0 if part == "train" else 0.0
    checked = check(stored.xywh, scan.sizes[stored.image_of], least)
    order = canonical_order(scan.answers, scan.hashes)
    objects = _objects(stored, checked)
    split = BoxSplit(
        part, source, scan.answers[order], scan.hashes[order], order,
        objects=tuple(objects[row] for row in order.tolist()), sizes=scan.sizes[order],
    )  # fmt: skip
    dropped = _dropped(source, stored, checked)
    counting = checked.kept & ~stored.crowd & ~(stored.difficult if part == "test" else False)
    if not counting.any():
        why = f"; {dropped.note}" if dropped.note else ""
        raise BadInput(f"{subject}: no image of {part} has a box that counts{why}")
    return split, dropped.note


def _numbers(box: NDArray[np.float32]) -> str:
    return ", ".join(f"{value:g}" for value in box.tolist())


def _objects(stored: Stored, checked: Checked) -> list[Objects]:
    """What each image shows, in the source's order."""
    kept = checked.kept
    boxes, area = checked.boxes[kept], _areas(stored, checked)[kept]
    labels, difficult, crowd = stored.labels[kept], stored.difficult[kept], stored.crowd[kept]
    start = np.concatenate([[0], np.cumsum(kept)])[stored.start].tolist()
    return [
        Objects(boxes[a:b], labels[a:b], area[a:b], difficult[a:b], crowd[a:b])
        for a, b in pairwise(start)
    ]


def _areas(stored: Stored, checked: Checked) -> NDArray[np.float32]:
    """As the authors give it. Where that is the whole box, and a part was cut off, what is left."""
    boxes = checked.boxes
    left = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    with np.errstate(over="ignore", invalid="ignore"):  # of boxes that are not kept
        whole = stored.xywh[:, 2] * stored.xywh[:, 3]
        of_box = checked.cut & np.isclose(stored.area, whole, rtol=1e-4)
    return np.where(of_box | ~np.isfinite(stored.area), left, stored.area)


def _dropped(source: BoxSource, stored: Stored, checked: Checked) -> Dropped:
    dropped = Dropped()
    image_of = stored.image_of
    for box in np.flatnonzero(checked.reasons):
        image = int(image_of[box])
        where = ""
        if len(dropped.examples) < dropped.most:  # naming a row may open its file
            where = f"box {box - stored.start[image]} of {source.describe(image)}"
        dropped.add(REASONS[checked.reasons[box]], where)
    return dropped


def _unseen(train: BoxSplit, test: BoxSplit, classes: tuple[str, ...]) -> list[str]:
    seen, asked = (
        np.unique(np.concatenate([found.labels for found in split.objects]))
        for split in (train, test)
    )
    unseen = [classes[label] for label in np.setdiff1d(asked, seen)]
    if not unseen:
        return []
    more = f" and {len(unseen) - NAMED:,} more" if len(unseen) > NAMED else ""
    return [f"classes without a box in train, asked for in test: {', '.join(unseen[:NAMED])}{more}"]


def _of_another_size(split: BoxSplit) -> str:
    """A note about images that are not as large as their annotations say; their boxes may be off.
    '' where there is none."""
    source = split.source
    if not isinstance(source, FileBoxes) or source.claimed is None or split.sizes is None:
        return ""
    claimed = source.claimed[split.rows]
    wrong = np.flatnonzero((claimed > 0).all(axis=1) & (claimed != split.sizes).any(axis=1))
    if not len(wrong):
        return ""
    first = int(wrong[0])
    (height, width), (tall, wide) = split.sizes[first].tolist(), claimed[first].tolist()
    turned = bool((claimed[wrong] == split.sizes[wrong][:, ::-1]).all())
    off = "are those before their EXIF orientation turns them" if turned else "may be off"
    return (
        f"{split.name}: {len(wrong):,} of {len(split):,} images have another size than their "
        f"annotation says, such as {source.describe(int(split.rows[first]))} with {width} x "
        f"{height} pixels where {wide} x {tall} are annotated; their boxes {off}"
    )
