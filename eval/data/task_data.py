"""Task -> two splits whose identity does not depend on where or in which order the data lie.

A split's rows are put in *canonical order*: sorted by the hash of the image bytes. Features,
episodes and validation parts all count rows in that order, so a mirror that holds the same images
in another order gives the same split hash, the same episodes and the same numbers. Pixels are
never kept: images stream from the source when a backbone needs them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.common.images import PLAIN, Values
from eval.data.inventory.facts import NOTHING, Inventory
from eval.data.sources import Source, as_keys
from eval.data.values import values_of
from eval.settings.protocols import Kind
from eval.tasks.declaration import Task
from eval.tasks.names import SHIFT


@dataclass(frozen=True)
class Split:
    """One part of a task in canonical order. ``rows[i]`` is image i's row in the source."""

    BY_IMAGE: ClassVar[tuple[str, ...]] = ("labels", "hashes", "rows")  # arrays [N, ...], or None

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
        """Hex digest over every image's bytes and label, the same for any row order; over how
        its values are read as well, where that is not as by default."""
        found = _hash_split(self.name, self.labels, self.hashes)
        if self.values == PLAIN:
            return found
        return hashlib.sha256(f"{found}:{self.values}".encode()).hexdigest()

    @property
    def values(self) -> Values:
        """How grey values of more than 8 bits are read."""
        return values_of(self.source)


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
    inventory: Inventory = NOTHING
    validation: NDArray[np.void] | None = None  # of train: hashes of what is chosen on
    own: bool = False  # data of the user's own: neither declared nor embedded

    @property
    def kind(self) -> Kind:
        return "classification"

    @property
    def shifted(self) -> bool:
        """Whether train and test are of two sets, which no protocol may mix."""
        return self.where.startswith(SHIFT)

    @cached_property
    def split_hash(self) -> str:
        """Hex digest over both parts: other images, labels or sides are another one."""
        return self._hash()

    def _hash(self) -> str:
        both = _hash_both(self.train.hash, self.test.hash, len(self.classes))
        if self.validation is None:
            return both
        chosen_on = np.unique(self.validation).tobytes()
        return hashlib.sha256(both.encode() + chosen_on).hexdigest()

    @cached_property
    def duplicates(self) -> int:
        """Images of test that also stand, byte for byte, in train."""
        return int(np.isin(self.test.keys, self.train.keys).sum())

    @cached_property
    def ambiguous(self) -> int:
        """Images whose bytes stand under two labels, wherever; of boxes, with different ones."""
        keys = np.concatenate([self.train.keys, self.test.keys])
        labels = np.concatenate([self.train.labels, self.test.labels])
        _, copy_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        ordered = labels[np.argsort(copy_of.reshape(-1), kind="stable")]
        begin = np.cumsum(sizes) - sizes
        two = np.maximum.reduceat(ordered, begin) > np.minimum.reduceat(ordered, begin)
        return int(sizes[two].sum())

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


def canonical_order(labels: NDArray[np.int64], hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """By image hash; equal images under two labels must not depend on the source's order either."""
    ranks = np.unique(as_keys(hashes), return_inverse=True)[1].reshape(-1)
    return np.lexsort((labels, ranks))


def check_split(split: Split, subject: str) -> None:
    if len(split) == 0:
        raise BadInput(f"{subject}: the {split.name} split is empty")
    if len(np.unique(split.labels)) < 2:
        raise BadInput(
            f"{subject}: all {len(split)} images of {split.name} have label {split.labels[0]}; "
            "at least two classes are needed"
        )


S = TypeVar("S", bound=Split)


def take(split: S, index: NDArray[np.int64], name: str | None = None) -> S:
    """Some images of a part; ``index`` counts its canonical rows, ascending."""
    whole = {field: getattr(split, field) for field in split.BY_IMAGE}
    parts: dict[str, Any] = {f: None if a is None else a[index] for f, a in whole.items()}
    return dataclasses.replace(split, name=name or split.name, **parts)


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
