"""Task -> two splits whose identity does not depend on where or in which order the data lie.

A split's rows are put in *canonical order*: sorted by the hash of the image bytes. Features,
episodes and validation parts all count rows in that order, so a mirror that holds the same images
in another order gives the same split hash, the same episodes and the same numbers. Pixels are
never kept: images stream from the source when a backbone needs them.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import UserError
from eval.data.sources import ParquetSource, Scan, Source, as_keys, remembered_scan
from eval.data.split_rules import by_groups, per_class
from eval.settings.protocols import Kind
from eval.tasks.declaration import Task
from eval.tasks.names import TaskName


@dataclass(frozen=True)
class Split:
    """One part of a task in canonical order. ``rows[i]`` is image i's row in the source."""

    name: str
    source: Source
    labels: NDArray[np.int64]  # [N]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]
    rows: NDArray[np.int64]  # [N]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def keys(self) -> NDArray[np.void]:
        """[N] the image hashes as one comparable value each."""
        return as_keys(self.hashes)

    @cached_property
    def hash(self) -> str:
        """Hex digest over every image's bytes and label, the same for any row order."""
        return _hash_split(self.name, self.labels, self.hashes)


@dataclass(frozen=True)
class TaskData:
    """A task with its data found: what the protocols and the result file need to know."""

    name: str
    where: str  # the source as a string that finds it again
    revision: str  # commit sha for the Hub, '' for local data
    classes: tuple[str, ...]
    train: Split
    test: Split
    declared: Task | None = None
    notes: tuple[str, ...] = ()
    limit: int | None = None
    split: str = ""  # of a declared task: 'study', 'clean', ...
    partial: bool = False  # less than the whole data set

    @property
    def kind(self) -> Kind:
        return "classification"

    @cached_property
    def split_hash(self) -> str:
        return _hash_both(self.train.hash, self.test.hash, len(self.classes))

    @cached_property
    def duplicates(self) -> int:
        """Images of test that also stand, byte for byte, in train."""
        return int(np.isin(self.test.keys, self.train.keys).sum())

    @property
    def subset(self) -> bool:
        """Whether this is less than the whole data set, by itself or by --limit."""
        return self.partial or self.limit is not None


def _hash_split(name: str, labels: NDArray[np.int64], hashes: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(f"{name}:{len(labels)}:".encode())
    digest.update(np.ascontiguousarray(hashes).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _hash_both(train: str, test: str, classes: int) -> str:
    return hashlib.sha256(f"{train}{test}{classes}".encode()).hexdigest()


Rows = tuple[NDArray[np.int64], NDArray[np.uint8]]  # labels [N], image hashes [N, HASH_BYTES]


def hash_parts(train: Rows, test: Rows, classes: int) -> str:
    """The split hash of images that are not loaded; their rows may be in any order."""
    parts = []
    for name, (labels, hashes) in (("train", train), ("test", test)):
        order = canonical_order(labels, hashes)
        parts.append(_hash_split(name, labels[order], hashes[order]))
    return _hash_both(parts[0], parts[1], classes)


def parquet_pair(folder: Path, names: TaskName) -> tuple[ParquetSource, ParquetSource]:
    def of(*parts: str) -> tuple[Path, ...]:
        for part in parts:
            found = sorted(folder.glob(f"{glob.escape(part)}-*.parquet"))
            found = found or sorted(folder.glob(f"{glob.escape(part)}.parquet"))
            if found:
                return tuple(found)
        have = sorted(p.name for p in folder.glob("*.parquet"))
        raise UserError(
            f"{folder} has no {parts[0]}-*.parquet; "
            + (f"it holds {', '.join(have[:5])}" if have else "it holds no Parquet file at all")
        )

    train = ParquetSource(of("train"), names.image, names.label)
    return train, ParquetSource(of("test", "validation"), names.image, names.label)


# --------------------------------------------------------------------------- checking and ordering


def assemble(
    name: str, where: str, revision: str, train: Source, test: Source, cache: Path, what: str
) -> TaskData:
    train_scan, test_scan = remembered_scan(train, cache, what), remembered_scan(test, cache, what)
    names, numbered = _class_names(train_scan[0], test_scan[0], what)
    splits = []
    for part, source, (scan, order) in (
        ("train", train, train_scan),
        ("test", test, test_scan),
    ):
        if names != scan.names:
            scan = Scan(_to_ints(scan.labels, names, numbered, part, what), scan.hashes, names)
        split = canonical(part, source, scan, order, what)
        check_split(split, what)
        splits.append(split)
    return TaskData(name, where, revision, names, splits[0], splits[1])


def _class_names(train: Scan, test: Scan, what: str) -> tuple[tuple[str, ...], bool]:
    """(class names, whether an integer label is a class's number rather than its name)."""
    if train.names and test.names and test.names != train.names:
        raise UserError(f"{what}: train and test declare different class names")
    if declared := train.names or test.names:
        return declared, True
    values = {v for v in train.labels if v is not None}
    if all(isinstance(v, int) for v in values):
        return tuple(f"class {i}" for i in range(max(values, default=-1) + 1)), True
    return tuple(sorted({str(v) for v in values})), False


def _to_ints(
    labels: list[Any], names: tuple[str, ...], numbered: bool, part: str, what: str
) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    out = []
    for row, label in enumerate(labels):
        number = label if numbered and isinstance(label, int) else index.get(str(label))
        if label is None or number is None:
            raise UserError(f"{what}: label {label!r} in row {row} of {part} is no class of train")
        out.append(number)
    return out


def canonical(part: str, source: Source, scan: Scan, order: NDArray[np.int64], what: str) -> Split:
    classes = len(scan.names) if scan.names is not None else 0
    for row, label in enumerate(scan.labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise UserError(
                f"{what}: label {label!r} in row {row} of {part} is outside 0..{classes - 1}"
            )
    labels = np.asarray(scan.labels, np.int64).reshape(-1)
    order = order[canonical_order(labels[order], scan.hashes[order])]
    return Split(part, source, labels[order], scan.hashes[order], order)


def canonical_order(labels: NDArray[np.int64], hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """By image hash; equal images under two labels must not depend on the source's order either."""
    ranks = np.unique(as_keys(hashes), return_inverse=True)[1].reshape(-1)
    return np.lexsort((labels, ranks))


def check_split(split: Split, what: str) -> None:
    if len(split) == 0:
        raise UserError(f"{what}: the {split.name} split is empty")
    if len(np.unique(split.labels)) < 2:
        raise UserError(
            f"{what}: all {len(split)} images of {split.name} have label {split.labels[0]}; "
            "at least two classes are needed"
        )


def joined(train: Split, test: Split, source: Source) -> Split:
    """Two parts as one, in canonical order; ``source`` holds train's rows and then test's."""
    labels = np.concatenate([train.labels, test.labels])
    hashes = np.concatenate([train.hashes, test.hashes])
    rows = np.concatenate([train.rows, len(train) + test.rows])
    order = canonical_order(labels, hashes)
    return Split("all", source, labels[order], hashes[order], rows[order])


def resplit(
    whole: Split, order: NDArray[np.int64], groups: Sequence[Any] | None, what: str
) -> tuple[Split, Split]:
    """(train, test) by the study's rule, or by whole groups. ``order`` lists the source's rows in
    the official order; ``groups`` stand in the source's own."""
    by_row = np.empty(len(whole), np.int64)
    by_row[whole.rows] = whole.labels
    labels = by_row[order]
    if groups is not None:
        chosen = by_groups(labels, [str(groups[row]) for row in order])
    else:
        chosen = per_class(labels)
    in_train = np.zeros(len(order), bool)
    in_train[order] = chosen
    return halves(whole, in_train[whole.rows], what)


def halves(whole: Split, in_train: NDArray[np.bool_], what: str) -> tuple[Split, Split]:
    """(train, test) of a split, by a mask over its canonical rows."""
    train = take(whole, np.flatnonzero(in_train), "train")
    test = take(whole, np.flatnonzero(~in_train), "test")
    for part in (train, test):
        check_split(part, what)
    return train, test


def take(split: Split, index: NDArray[np.int64], name: str | None = None) -> Split:
    return Split(
        name or split.name,
        split.source,
        split.labels[index],
        split.hashes[index],
        split.rows[index],
    )


def stratified_part(
    labels: NDArray[np.int64], keys: NDArray[np.void], share: float, seed: int
) -> NDArray[np.bool_]:
    """[N] True for ``share`` of each class, at least one image of every class on each side where
    a class has two different ones that no other class has too. Copies of one image stay on one
    side, whatever their labels. The draw depends on the images and the seed alone, so rows in
    canonical order give the same part on every machine.
    """
    different, copy_of = np.unique(keys, return_inverse=True)
    side = np.zeros(len(different), np.int8)  # 1 chosen, -1 not, 0 open
    random = np.random.RandomState(seed)
    for label in np.unique(labels):
        images = np.unique(copy_of.reshape(-1)[labels == label])
        n = len(images)
        wanted = min(max(round(share * n), 1), max(n - 1, 1))
        missing = max(wanted - np.count_nonzero(side[images] == 1), 0)
        undecided = (drawn := images[random.permutation(n)])[side[drawn] == 0]
        side[undecided[:missing]] = 1
        side[undecided[missing:]] = -1
    return side[copy_of.reshape(-1)] == 1
