"""Raw scans -> splits in canonical order: classes numbered, parts put together and divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.sources import Scan, Source
from eval.data.task_data import Split, canonical_order, check_split, take


def class_names(
    first: Scan, others: Sequence[Scan], subject: str, known: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], bool]:
    """(class names, whether an integer label is a class's number rather than its name).

    They are those that the scans declare, else those of the first scan's labels; ``known`` are
    those of numbered classes, where there are as many. Raises UserError for scans that declare
    different ones.
    """
    declared = list(dict.fromkeys(scan.names for scan in (first, *others) if scan.names))
    if len(declared) > 1:
        raise BadInput(f"{subject}: train and test declare different class names")
    if declared:
        return declared[0], True
    values = {v for v in first.labels if v is not None}
    if all(isinstance(v, int) for v in values):
        count = max(values, default=-1) + 1
        named = known if len(known) == count else tuple(f"class {i}" for i in range(count))
        return named, True
    return tuple(sorted({str(v) for v in values})), False


def numbered(scan: Scan, names: tuple[str, ...], by_number: bool, part: str, subject: str) -> Scan:
    """The scan with a class's number for every label. ``by_number``: an integer label is one.

    Raises UserError for a label that is not a class's name.
    """
    if scan.names == names:
        return scan
    index = {name: i for i, name in enumerate(names)}
    labels: list[Any] = []
    for row, label in enumerate(scan.labels):
        number = label if by_number and isinstance(label, int) else index.get(str(label))
        if label is None or number is None:
            raise BadInput(
                f"{subject}: label {label!r} in row {row} of {part} is not a class of train"
            )
        labels.append(number)
    return Scan(labels, scan.hashes, names)


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
