"""Images to pretrain on: found, checked, decoded once (``pixel_store``), a part held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.sources import as_keys, remembered_scan
from eval.data.task_data import stratified_part
from eval.training.pixel_store import cache_errors, open_pixels
from zoo.train.sources import Part, check_classes, class_names, find, numbers

VERSION = 1  # of the stored pixels: raise it when decoding or resizing changes
HELD_OUT_SHARE = 0.1  # of each class, where the data bring no validation split
HELD_OUT_MOST = 5000  # images: enough to tell 1 % of accuracy, few enough to score each epoch
CHUNK_IMAGES, CHUNK_BYTES = 32, 4 << 20  # a thread's piece of work; bounds the memory in flight


@dataclass(frozen=True)
class PixelStore:
    """Decoded images in the source's order."""

    pixels: NDArray[np.uint8]  # [N, S, S, 3], memory-mapped, read-only
    aspect: NDArray[np.float32]  # [N] width / height before the image was squashed
    labels: NDArray[np.int64] | None  # [N], -1: the image has none; None: no label column at all
    classes: tuple[str, ...]  # empty without labels
    fingerprint: str  # hex, over all image bytes and labels: the same data wherever they lie
    where: str  # folder name or Hub repository and commit, fit for a model card

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class PretrainingData:
    """What an objective trains on, and what it is watched on where there is something."""

    train: PixelStore
    validation: PixelStore | None


def open_data(
    text: str,
    store_px: int,
    cache: Path,
    *,
    need_labels: bool,
    image: str = "image",
    label: str = "label",
    limit: int | None = None,
    progress: bool = True,
) -> PretrainingData:
    """Find images, decode them once into ``cache`` and map them. Raises UserError.

    ``text`` is a folder or ``hub:org/name[@revision][?image=..&label=..&config=..]``. A folder
    holds train-*.parquet (and validation-*, val-* or valid-*), train/CLASS/IMAGE (and
    validation/, val/ or valid/), CLASS/IMAGE, or just images, which then have no labels.

    Labelled data without a validation split give up a tenth of each class, at most 5,000 images
    in all; which ones depends on the images alone, and copies of one image stay on one side.
    ``limit`` then keeps that many images of train, balanced over classes (labelled images before
    unlabelled ones); validation stays whole. ``progress`` shows a bar on a terminal.
    """
    if store_px < 1:
        raise BadInput(f"images need a size of at least 1 pixel, got {store_px}")
    if limit is not None and limit < 1:
        raise BadInput(f"the limit of images must be at least 1, got {limit}")
    found = find(text, image, label, need_labels)
    train, validation = found.train, found.validation
    for part in (train, validation):
        if part is not None and part.count == 0:
            raise BadInput(f"{text!r} has an empty {part.name} split; it needs at least one image")
    classes = class_names(train, validation, text)
    labels = numbers(train, classes, text)
    other = None if validation is None or labels is None else numbers(validation, classes, text)
    rows = np.arange(train.count)
    held_out = rows[:0]
    if validation is None and labels is not None:
        with cache_errors(cache, "the hashes of the images"):
            rows, held_out = _hold_out(train, labels, cache, text)
    if limit is not None:
        rows = rows[_balanced(None if labels is None else labels[rows], len(rows), limit)]
    if need_labels and labels is not None:
        check_classes(labels[rows], text)

    def store(part: Part, rows: NDArray[np.int64], labels: NDArray[np.int64] | None) -> PixelStore:
        built = open_pixels(part.source, part.name, rows, store_px, cache, progress)
        labels = None if labels is None else labels[rows]
        fingerprint = _fingerprint(built.hashes, labels)
        names = () if labels is None else classes
        return PixelStore(built.pixels, built.aspect, labels, names, fingerprint, found.where)

    train_store = store(train, rows, labels)
    if validation is not None:
        return PretrainingData(train_store, store(validation, np.arange(validation.count), other))
    return PretrainingData(train_store, store(train, held_out, labels) if len(held_out) else None)


# --------------------------------------------------------------------------- which rows


def _hold_out(
    train: Part, labels: NDArray[np.int64], cache: Path, text: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that stay in train and rows held out, both ascending."""
    labelled = np.flatnonzero(labels >= 0)
    if len(labelled) == 0:
        return np.arange(len(labels)), labelled
    keys = as_keys(remembered_scan(train.source, cache, repr(text))[0].hashes)
    share = min(HELD_OUT_SHARE, HELD_OUT_MOST / len(labelled))
    # Asked for what stays, so that a class with a single image stays in train.
    held = labelled[~stratified_part(labels[labelled], keys[labelled], 1 - share, seed=0)]
    different, copy_of, copies = np.unique(keys[held], return_inverse=True, return_counts=True)
    order = np.random.RandomState(0).permutation(len(different))  # rounding may pass the bound
    fits = order[np.cumsum(copies[order]) <= HELD_OUT_MOST]
    held = held[np.isin(copy_of.reshape(-1), fits)]
    return np.setdiff1d(np.arange(len(labels)), held), held


def _balanced(labels: NDArray[np.int64] | None, count: int, limit: int) -> NDArray[np.int64]:
    """Ascending places of ``limit`` images, one of each class after the other, drawn by chance."""
    order = np.random.RandomState(0).permutation(count)
    if labels is not None:
        turn = np.zeros(count, np.int64)  # of an image within its class
        for label in np.unique(labels):
            same = np.flatnonzero(labels[order] == label)
            turn[same] = np.arange(len(same)) + (count if label < 0 else 0)
        order = order[np.argsort(turn, kind="stable")]
    return np.sort(order[:limit])


def _fingerprint(hashes: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> str:
    digest = hashlib.sha256(f"images:{len(hashes)}:".encode())
    digest.update(np.ascontiguousarray(hashes).tobytes())
    digest.update(b"no labels" if labels is None else labels.astype("<i8").tobytes())
    return digest.hexdigest()
