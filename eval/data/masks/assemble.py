"""Sources with masks -> two parts in canonical order, their masks checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.masks.label_map import MOST_CLASSES, VOID
from eval.data.masks.mask_data import MaskSplit
from eval.data.masks.stored import MaskScan, MaskSource, remembered_masks
from eval.data.sources import as_keys
from eval.data.split_rules import TRAIN_SHARE
from eval.data.task_data import canonical_order, stratified_part, take


@dataclass(frozen=True)
class MaskParts:
    """Where the images and masks of a segmentation task lie. Without ``test`` 70 % of ``train`` are
    drawn to train on."""

    train: MaskSource
    test: MaskSource | None
    names: tuple[str, ...] = ()  # of the classes, by number
    void: tuple[int, ...] = (VOID,)  # values that are not scored
    seed: int = 0


@dataclass(frozen=True)
class MaskSplits:
    """Both parts in canonical order, their masks checked."""

    classes: tuple[str, ...]
    train: MaskSplit
    test: MaskSplit
    notes: tuple[str, ...]
    deep: NDArray[np.void]  # hashes of the images of more than 8 bits


def assemble_masks(images: MaskParts, cache: Path, subject: str) -> MaskSplits:
    """Scan, order and check both parts.

    Raises UserError for values that no class has, a part without an image or without a labelled
    pixel, and one class alone.
    """
    sources = [("train", images.train)] + ([("test", images.test)] if images.test else [])
    scans = {part: remembered_masks(source, cache) for part, source in sources}
    for part, scan in scans.items():
        if len(scan.hashes) == 0:
            raise BadInput(f"{subject}: the {part} split is empty")
    classes = images.names or _numbered(scans["train"], images.void, subject)
    if len(classes) > MOST_CLASSES:
        raise BadInput(
            f"{subject}: {len(classes):,} classes; masks of at most {MOST_CLASSES} are read"
        )
    whole = {}
    for part, source in sources:
        _check_values(scans[part], source, part, len(classes), images.void, subject)
        whole[part] = _split(part, source, scans[part], images.void)
    if images.test:
        train, test = whole["train"], whole["test"]
    else:
        every = whole["train"]
        drawn = stratified_part(
            np.zeros(len(every), np.int64), every.keys, TRAIN_SHARE, images.seed
        )
        if drawn.all():
            raise BadInput(f"{subject}: {len(every)} images are too few to be split")
        train = take(every, np.flatnonzero(drawn), "train")
        test = take(every, np.flatnonzero(~drawn), "test")
    deep = np.concatenate([as_keys(scan.hashes[scan.deep]) for scan in scans.values()])
    notes = tuple(_notes(train, test, classes, [scans[part] for part, _ in sources], images))
    return MaskSplits(classes, train, test, notes, deep)


def _numbered(scan: MaskScan, void: tuple[int, ...], subject: str) -> tuple[str, ...]:
    values = np.setdiff1d(scan.value, void)
    if not len(values):
        raise BadInput(f"{subject}: all pixels of train are void ({_listed(void)})")
    return tuple(f"class {i}" for i in range(int(values.max()) + 1))


def _check_values(
    scan: MaskScan, source: MaskSource, part: str, classes: int, void: tuple[int, ...], subject: str
) -> None:
    scored = ~np.isin(scan.value, void)
    if not scored.any():
        raise BadInput(f"{subject}: all pixels of {part} are void ({_listed(void)})")
    strange = np.flatnonzero(scored & (scan.value >= classes))
    if len(strange):
        first = int(strange[0])
        raise BadInput(
            f"{subject}: the mask of {source.describe(int(scan.image[first]))} ({part}) has the "
            f"value {scan.value[first]}, which no class has: they are 0 to {classes - 1}, and "
            f"{_listed(void)} is void; name all classes with ?classes=a,b,.. or more void values "
            "with ?void=0,255"
        )
    if len(values := np.unique(scan.value[scored])) < 2:
        raise BadInput(
            f"{subject}: all labelled pixels of {part} are of class {values[0]}; at least two "
            "classes are needed"
        )


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _split(part: str, source: MaskSource, scan: MaskScan, void: tuple[int, ...]) -> MaskSplit:
    names = source.groups()
    groups = None
    answers = scan.answers
    if names is not None:
        groups = np.asarray([_number(name) for name in names], np.int64)
        # which group an image is of, and where in it, decides intervals: the split hash says so
        place = np.zeros(len(groups), np.int64)
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            place[rows] = np.arange(len(rows))
        both = zip(answers.tolist(), groups.tolist(), place.tolist(), strict=True)
        answers = np.asarray([_number(repr(facts)) for facts in both], np.int64)
    order = canonical_order(answers, scan.hashes)
    return MaskSplit(
        part, source, answers[order], scan.hashes[order], order, masks=source, void=void,
        groups=None if groups is None else groups[order],
    )  # fmt: skip


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _notes(
    train: MaskSplit,
    test: MaskSplit,
    classes: tuple[str, ...],
    scans: list[MaskScan],
    images: MaskParts,
) -> list[str]:
    notes = []
    if not images.test:
        notes.append(f"split here: 70 % of the images to train, seed {images.seed}")
    elif unseen := sorted(
        set(scans[1].value.tolist()) - set(scans[0].value.tolist()) - set(images.void)
    ):
        named = ", ".join(classes[value] for value in unseen[:5])
        notes.append(f"classes without a pixel in train, asked for in test: {named}")
    if train.groups is not None and test.groups is not None:
        both = np.intersect1d(train.groups, test.groups)
        if len(both):
            images_there = int(np.isin(test.groups, both).sum())
            notes.append(
                f"{images_there} of {len(test)} test images are of groups that train has images "
                "of, too"
            )
    return notes
