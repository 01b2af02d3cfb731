"""Any images -> one file of decoded pixels, so that training never waits for a JPEG decoder.

Every image is decoded as ``eval.images`` documents, squashed to a square of S pixels with Pillow's
bicubic filter (which widens its support when it shrinks, so nothing aliases) and stored as uint8
in one .npy file. The file is memory-mapped: the page cache keeps it in RAM where it fits, and
several processes share it. An image that is S x S already is stored as it is.

A store is built in a temporary folder that takes its name in the cache only when it is whole, so
an interrupted build is never trusted. It is found again by the names, sizes and times of the
source's files (the Hub: by the commit), the image rows taken and S; labels are read afresh each
time, they are cheap.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from eval.data import stratified_part
from eval.errors import UserError, one_line
from eval.images import decode
from eval.sources import HASH_BYTES, Source, as_keys, image_hash, remembered_scan
from zoo.sources import Part, check_classes, class_names, find, numbers

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
        raise UserError(f"images need a size of at least 1 pixel, got {store_px}")
    if limit is not None and limit < 1:
        raise UserError(f"the limit of images must be at least 1, got {limit}")
    found = find(text, image, label, need_labels)
    train, validation = found.train, found.validation
    for part in (train, validation):
        if part is not None and part.count == 0:
            raise UserError(f"{text!r} has an empty {part.name} split; it needs at least one image")
    classes = class_names(train, validation, text)
    labels = numbers(train, classes, text)
    other = None if validation is None or labels is None else numbers(validation, classes, text)
    rows = np.arange(train.count)
    held_out = rows[:0]
    if validation is None and labels is not None:
        with _cache_errors(cache, "the hashes of the images"):
            rows, held_out = _hold_out(train, labels, cache, text)
    if limit is not None:
        rows = rows[_balanced(None if labels is None else labels[rows], len(rows), limit)]
    if need_labels and labels is not None:
        check_classes(labels[rows], text)

    def store(part: Part, rows: NDArray[np.int64], labels: NDArray[np.int64] | None) -> PixelStore:
        built = _open_or_build(part, rows, store_px, cache, progress)
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


# --------------------------------------------------------------------------- building and opening


@dataclass(frozen=True)
class _Built:
    pixels: NDArray[np.uint8]  # [N, S, S, 3]
    aspect: NDArray[np.float32]  # [N]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]


def _open_or_build(
    part: Part, rows: NDArray[np.int64], px: int, cache: Path, progress: bool
) -> _Built:
    try:
        facts = part.source.fingerprint()
    except OSError as error:  # a dangling link, a file taken away meanwhile
        raise UserError(f"an image file cannot be read: {one_line(error)}") from None
    taken = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    key = json.dumps([VERSION, HASH_BYTES, px, facts, taken], default=str)
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    folder = cache / "pixels" / digest
    shape = (len(rows), px, px, 3)
    with _cache_errors(cache, f"{int(np.prod(shape)):,} bytes of decoded pixels"):
        if built := _open(folder, shape):
            return built
        lock = cache / "locks" / f"pixels-{digest}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # a second process waits here, then finds the store done
            if built := _open(folder, shape):
                return built
            _build(part, rows, px, folder, cache, progress)
        built = _open(folder, shape)
    if built is None:
        raise UserError(f"pixel store {folder} cannot be read; remove it and run again")
    return built


def _open(folder: Path, shape: tuple[int, ...]) -> _Built | None:
    """The store, or None where it is missing or not what it should be."""
    try:
        with np.load(folder / "images.npz", allow_pickle=False) as saved:
            aspect, hashes = saved["aspect"], saved["hashes"]
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged file makes numpy raise nearly anything; it is built again
        return None
    if pixels.shape != shape or pixels.dtype != np.uint8 or len(aspect) != shape[0]:
        return None
    # A plain view of the map, without np.memmap's own bookkeeping at each index.
    return _Built(np.asarray(pixels), aspect, hashes)


def _build(
    part: Part, rows: NDArray[np.int64], px: int, folder: Path, cache: Path, progress: bool
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a killed run; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)  # damaged, or it would have been opened
    needed = len(rows) * (px * px * 3 + HASH_BYTES + 4) + 4096
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{needed:,} bytes are needed for the decoded pixels of {len(rows):,} images but only "
            f"{free:,} are free in {cache}; set TRANSFERZOO_CACHE to a folder with more space"
        )
    temp = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        aspect = np.zeros(len(rows), np.float32)
        hashes = np.zeros((len(rows), HASH_BYTES), np.uint8)
        bar = tqdm(
            total=len(rows), desc=f"decode {part.name}", unit="img", leave=False,
            disable=None if progress else True,  # None: off when stderr is no terminal
        )  # fmt: skip
        # Written, not mapped: a full disk is an error here but a crash (SIGBUS) in a map.
        with bar, (temp / "pixels.npy").open("wb") as file:
            shape = (len(rows), px, px, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            done = 0
            for piece in _decoded(part.source, rows, px):
                end = done + len(piece.pixels)
                file.write(piece.pixels.data)
                aspect[done:end], hashes[done:end] = piece.aspect, piece.hashes
                bar.update(end - done)
                done = end
            file.flush()
            os.fsync(file.fileno())
        with (temp / "images.npz").open("wb") as file:
            np.savez(file, aspect=aspect, hashes=hashes)
            file.flush()
            os.fsync(file.fileno())
        temp.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp gives 0700
        temp.rename(folder)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


@contextmanager
def _cache_errors(cache: Path, what: str) -> Iterator[None]:
    """Any trouble of writing the cache as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(cache).free if cache.is_dir() else 0
            raise UserError(
                f"no space is left for {what} in {cache} ({free:,} bytes are free); set "
                "TRANSFERZOO_CACHE to a folder with more space"
            ) from None
        raise UserError(
            f"{what} cannot be kept in {cache} (TRANSFERZOO_CACHE): {one_line(error)}"
        ) from None


def _decoded(source: Source, rows: NDArray[np.int64], px: int) -> Iterator[_Built]:
    """Pieces of the store in order, decoded by threads; Pillow lets go of the GIL."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[_Built]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for chunk in _chunks(source, rows):
            waiting.append(pool.submit(_decode_chunk, source, chunk, px))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(source: Source, rows: NDArray[np.int64]) -> Iterator[list[tuple[int, bytes]]]:
    stream = source.images(rows)
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for row in rows.tolist():
        try:
            item = next(stream)
        except OSError as error:
            raise UserError(f"{source.describe(row)} cannot be read: {one_line(error)}") from None
        chunk.append(item)
        size += len(item[1])
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decode_chunk(source: Source, chunk: list[tuple[int, bytes]], px: int) -> _Built:
    pixels = np.empty((len(chunk), px, px, 3), np.uint8)
    aspect = np.empty(len(chunk), np.float32)
    hashes = np.empty((len(chunk), HASH_BYTES), np.uint8)
    for i, (row, data) in enumerate(chunk):
        try:
            image = decode(data)
            aspect[i] = image.width / image.height
            if image.size != (px, px):
                image = image.resize((px, px), Image.Resampling.BICUBIC)
            pixels[i] = np.asarray(image)
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            raise UserError(
                f"{source.describe(row)} cannot be read as an image: {one_line(error, 120)}"
            ) from None
        hashes[i] = np.frombuffer(image_hash(data), np.uint8)
    return _Built(pixels, aspect, hashes)


__all__ = ["PixelStore", "PretrainingData", "open_data"]
