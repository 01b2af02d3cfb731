"""Two sources with boxes -> a task in canonical order, its boxes checked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import UserError
from eval.data.boxes.box_check import REASONS, Checked, check
from eval.data.boxes.box_data import BoxSplit, DetectionData
from eval.data.boxes.objects import Dropped, Objects
from eval.data.boxes.stored import BoxScan, BoxSource, Stored, remembered_boxes
from eval.data.task_data import canonical_order

NAMED = 5  # classes that a note names


def assemble_boxes(
    name: str,
    where: str,
    revision: str,
    train: BoxSource,
    test: BoxSource,
    cache: Path,
    what: str,
    names: tuple[str, ...] = (),
    voc: bool = False,
) -> DetectionData:
    """The task of two sources. ``names`` are its classes where the sources declare none.

    Raises UserError for class names that differ, a label outside of them, and a part without an
    image or without a box that counts.
    """
    scans = [remembered_boxes(source, cache) for source in (train, test)]
    classes = _classes(scans, names, what)
    splits, notes = [], []
    for part, source, scan in zip(("train", "test"), (train, test), scans, strict=True):
        split, note = _split(part, source, scan, len(classes), what)
        splits.append(split)
        notes += [f"{part}: {note}"] if note else []
    notes += _unseen(splits[0], splits[1], classes)
    flagged = any(scan.stored.flagged for scan in scans)
    return DetectionData(
        name, where, revision, classes, splits[0], splits[1], notes=tuple(notes),
        voc=voc or flagged,
    )  # fmt: skip


def _classes(scans: list[BoxScan], names: tuple[str, ...], what: str) -> tuple[str, ...]:
    declared = [scan.names for scan in scans if scan.names]
    if len(set(declared)) > 1:
        raise UserError(f"{what}: train and test declare different class names")
    if declared or names:
        return declared[0] if declared else names
    highest = max((int(scan.stored.labels.max(initial=-1)) for scan in scans), default=-1)
    return tuple(f"class {i}" for i in range(highest + 1))


def _split(
    part: str, source: BoxSource, scan: BoxScan, classes: int, what: str
) -> tuple[BoxSplit, str]:
    """(the part in canonical order, a note about boxes that were left out)."""
    stored = scan.stored
    if len(stored) == 0:
        raise UserError(f"{what}: the {part} split is empty")
    wrong = np.flatnonzero((stored.labels < 0) | (stored.labels >= classes))
    if len(wrong):
        row = int(stored.image_of[wrong[0]])
        raise UserError(
            f"{what}: category {stored.labels[wrong[0]]} in {source.describe(row)} ({part}) is "
            f"outside 0..{classes - 1}"
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
        raise UserError(f"{what}: no image of {part} has a box that counts{why}")
    return split, dropped.note


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
