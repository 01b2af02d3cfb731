"""Raw scans -> splits in canonical order: classes numbered, parts put together and divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.inventory.labels import (
    MULTI_LABEL,
    are_numbers,
    is_unlabelled,
    several_in_one,
    unlabelled,
)
from eval.data.sources import Scan, Source
from eval.data.task_data import Split, canonical_order, check_split, take


def class_names(
    first: Scan, others: Sequence[Scan], subject: str, known: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], bool]:
    """(class names, whether an integer label is a class's number rather than its name).

    They are those that the scans declare, else those of the first scan's labels; ``known`` are
    those of numbered classes, where there are as many. Where several declare some, in whatever
    order, the first one's count. Raises UserError for a scan that declares others than the first,
    and for labels that name several classes each.
    """
    declared = list(dict.fromkeys(scan.names for scan in (first, *others) if scan.names))
    for names in declared[1:]:
        if strange := sorted(set(names) - set(declared[0])):
            raise BadInput(
                f"{subject}: train and test declare different class names: test has "
                f"{', '.join(map(repr, strange[:5]))}, which train has not"
            )
    if declared:
        return declared[0], True
    values = {v for v in first.labels if v is not None}
    if all(isinstance(v, int) for v in values):
        count = max(values, default=-1) + 1
        named = known if len(known) == count else tuple(f"class {i}" for i in range(count))
        return named, True
    names = tuple(sorted({str(v) for v in values}))
    if several := several_in_one(names):
        raise BadInput(f"{subject}: label {several!r} names several classes; {MULTI_LABEL}")
    return names, False


def numbered(scan: Scan, names: tuple[str, ...], by_number: bool, part: str, subject: str) -> Scan:
    """The scan with a class's number for every label. ``by_number``: an integer label is one.

    Raises UserError for a label that is not a class's name.
    """
    if scan.names == names:
        return scan
    index = {name: i for i, name in enumerate(names)}
    own = [index[name] for name in scan.names] if scan.names else range(len(names))
    labels: list[Any] = []
    for row, label in enumerate(scan.labels):
        number = index.get(str(label))
        if by_number and isinstance(label, int):  # a class's number in this scan's own order
            number = own[label] if 0 <= label < len(own) else label
        if label is None or number is None:
            raise BadInput(
                f"{subject}: label {label!r} in row {row} of {part} is not a class of train"
            )
        labels.append(number)
    return Scan(labels, scan.hashes, names)


def refuse_unlabelled(
    scan: Scan, source: Source, part: str, subject: str, unused: Sequence[str] = ()
) -> None:
    """Raise UserError where images have no label. ``unused`` are parts that may have some."""
    numbers = are_numbers(scan.labels)
    bare = [row for row, label in enumerate(scan.labels) if is_unlabelled(label, numbers)]
    if bare:
        what = "images" if part == "all" else f"images of {part}"
        label, where = scan.labels[bare[0]], source.describe(bare[0])
        sentence = unlabelled(len(bare), len(scan.labels), what, label, where)
        other = f", such as ?test={unused[0]}" if unused and len(bare) == len(scan.labels) else ""
        raise BadInput(f"{subject}: {sentence}{other}")


def canonical(
    part: str, source: Source, scan: Scan, order: NDArray[np.int64], subject: str
) -> Split:
    """A numbered scan as a split. ``order`` is its rows sorted by image hash. Raises UserError for
    a label that is not a class's number."""
    classes = len(scan.names) if scan.names is not None else 0
    for row, label in enumerate(scan.labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise BadInput(
                f"{subject}: label {label!r} in row {row} of {part} is outside 0..{classes - 1}"
            )
    labels = np.asarray(scan.labels, np.int64).reshape(-1)
    order = order[canonical_order(labels[order], scan.hashes[order])]
    return Split(part, source, labels[order], scan.hashes[order], order)


def joined(train: Split, test: Split, source: Source) -> Split:
    """Two parts as one, in canonical order; ``source`` holds train's rows and then test's."""
    labels = np.concatenate([train.labels, test.labels])
    hashes = np.concatenate([train.hashes, test.hashes])
    rows = np.concatenate([train.rows, len(train) + test.rows])
    order = canonical_order(labels, hashes)
    return Split("all", source, labels[order], hashes[order], rows[order])


def halves(whole: Split, in_train: NDArray[np.bool_], subject: str) -> tuple[Split, Split]:
    """(train, test) of a split, by a mask over its canonical rows. Raises UserError for a half
    that is empty or of one class."""
    train = take(whole, np.flatnonzero(in_train), "train")
    test = take(whole, np.flatnonzero(~in_train), "test")
    for part in (train, test):
        check_split(part, subject)
    return train, test
