"""Any images -> one file of decoded pixels, so that training never waits for a JPEG decoder.

Every image is decoded as ``eval.common.images`` documents, squashed to a square of S pixels with
Pillow's bicubic filter (which widens its support when it shrinks, so nothing aliases) and stored
as uint8 in one .npy file. The file is memory-mapped: the page cache keeps it in RAM where it fits,
and several processes share it. An image that is S x S already is stored as it is.

A store is built in a temporary folder that takes its name in the cache only when it is whole, so
an interrupted build is never trusted. It is found again by the names, sizes and times of the
source's files (the Hub: by the commit), the image rows taken and S.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from eval.common.errors import BadInput, Unreadable, one_line
from eval.common.files import cache_errors, locked, say_damaged
from eval.common.images import decode, why_unreadable
from eval.data.sources import HASH_BYTES, Source, image_hash
from eval.data.values import values_of

T = TypeVar("T")

VERSION = 1  # of the stored pixels: raise it when decoding or resizing changes
CHUNK_IMAGES, CHUNK_BYTES = 32, 4 << 20  # a thread's piece of work; bounds the memory in flight


@dataclass(frozen=True)
class Pixels:
    """Decoded images, in the order of the rows that were asked for."""

    pixels: NDArray[np.uint8]  # [N, S, S, 3]
    aspect: NDArray[np.float32]  # [N]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]


def open_pixels(
    source: Source, name: str, rows: NDArray[np.int64], px: int, cache: Path, progress: bool = True
) -> Pixels:
    """The decoded images of ascending ``rows`` at ``px`` pixels; decoded now where they are not in
    the cache. ``name`` is shown on the progress bar. Raises UserError."""
    shape = (len(rows), px, px, 3)

    def build(temp: Path) -> None:
        needed = len(rows) * (px * px * 3 + HASH_BYTES + 4) + 4096
        check_room(needed, len(rows), cache)
        _build(source, name, rows, px, temp, progress)

    return whole_store(
        place(source, rows, px, cache), cache,
        f"{int(np.prod(shape)):,} bytes of decoded pixels",
        lambda folder: _open(folder, shape), build,
    )  # fmt: skip


def place(source: Source, rows: NDArray[np.int64], px: int, cache: Path) -> Path:
    """The folder of such a store, whether or not it is there. Raises UserError."""
    return store_folder(source, rows, [VERSION, HASH_BYTES, px], cache)


def store_folder(
    source: Source, rows: NDArray[np.int64], facts: Sequence[object], cache: Path
) -> Path:
    """Where what ``facts`` tell of these images is kept. Raises UserError."""
    try:
        files = source.fingerprint()
    except OSError as error:  # a dangling link, a file taken away meanwhile
        raise BadInput(f"an image file cannot be read: {one_line(error)}") from None
    taken = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    key = json.dumps([*facts, files, taken], default=str)
    return cache / "pixels" / hashlib.sha256(key.encode()).hexdigest()[:32]


def whole_store(
    folder: Path,
    cache: Path,
    subject: str,
    opened: Callable[[Path], T | None],
    build: Callable[[Path], None],
) -> T:
    """What ``opened`` finds in the folder. Where it finds nothing, ``build`` fills a temporary one
    that then takes the folder's place, while other processes wait. ``subject`` says in errors what
    is stored. Raises UserError."""
    with cache_errors(cache, subject):
        if (built := opened(folder)) is not None:
            return built
        lock = cache / "locks" / f"pixels-{folder.name}.lock"
        with locked(lock) as ours:  # a second process waits here, then finds the store done
            if (built := opened(folder)) is not None:
                return built
            _replaced(folder, build, ours)
        built = opened(folder)
    if built is None:
        raise BadInput(f"pixel store {folder} cannot be read; remove it and run again")
    return built


def _replaced(folder: Path, build: Callable[[Path], None], ours: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if ours:  # the lock, so that what is left is of a killed run
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        say_damaged(folder)  # or it would have been opened
        shutil.rmtree(folder)
    temp = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        build(temp)
        temp.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp gives 0700
        temp.rename(folder)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def check_room(needed: int, images: int, cache: Path) -> None:
    """Raises UserError where the disk of the cache, whose folder of pixels is there, has fewer
    bytes than are needed."""
    free = shutil.disk_usage(cache / "pixels").free
    if needed > free:
        raise BadInput(
            f"{needed:,} bytes are needed for the decoded pixels of {images:,} images but only "
            f"{free:,} are free in {cache}; set TRANSFERZOO_CACHE to a folder with more space"
        )


def _open(folder: Path, shape: tuple[int, ...]) -> Pixels | None:
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
    return Pixels(np.asarray(pixels), aspect, hashes)


def _build(
    source: Source, name: str, rows: NDArray[np.int64], px: int, temp: Path, progress: bool
) -> None:
    aspect = np.zeros(len(rows), np.float32)
    hashes = np.zeros((len(rows), HASH_BYTES), np.uint8)
    # Written, not mapped: a full disk is an error here but a crash (SIGBUS) in a map.
    with decoding(name, len(rows), progress) as bar, synced(temp / "pixels.npy") as file:
        shape = (len(rows), px, px, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        done = 0
        for piece in in_parts(source, rows, lambda chunk: _decode_chunk(source, chunk, px)):
            end = done + len(piece.pixels)
            file.write(piece.pixels.data)
            aspect[done:end], hashes[done:end] = piece.aspect, piece.hashes
            bar.update(end - done)
            done = end
    with synced(temp / "images.npz") as file:
        np.savez(file, aspect=aspect, hashes=hashes)


def decoding(name: str, images: int, progress: bool) -> tqdm[NoReturn]:
    """The bar of a build."""
    return tqdm(
        total=images, desc=f"decode {name}", unit="img", leave=False,
        disable=None if progress else True,  # None: off when stderr is no terminal
    )  # fmt: skip


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk at the end."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def in_parts(
    source: Source,
    rows: NDArray[np.int64],
    work: Callable[[list[tuple[int, bytes]]], T],
    most: int | None = None,
) -> Iterator[T]:
    """``work`` on a few images (row, bytes) at a time, ``most`` of them, in order; by threads, as
    Pillow lets go of the GIL."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for chunk in _chunks(source, rows, most or CHUNK_IMAGES):
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(
    source: Source, rows: NDArray[np.int64], most: int
) -> Iterator[list[tuple[int, bytes]]]:
    stream = source.images(rows)
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for row in rows.tolist():
        try:
            item = next(stream)
        except OSError as error:
            raise BadInput(f"{source.describe(row)} cannot be read: {one_line(error)}") from None
        chunk.append(item)
        size += len(item[1])
        if len(chunk) == most or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decode_chunk(source: Source, chunk: list[tuple[int, bytes]], px: int) -> Pixels:
    pixels = np.empty((len(chunk), px, px, 3), np.uint8)
    aspect = np.empty(len(chunk), np.float32)
    hashes = np.empty((len(chunk), HASH_BYTES), np.uint8)
    values = values_of(source)
    for i, (row, data) in enumerate(chunk):
        with unreadable(source, row, data):
            image = decode(data, values)
            aspect[i] = image.width / image.height
            if image.size != (px, px):
                image = image.resize((px, px), Image.Resampling.BICUBIC)
            pixels[i] = np.asarray(image)
        hashes[i] = np.frombuffer(image_hash(data), np.uint8)
    return Pixels(pixels, aspect, hashes)


@contextmanager
def unreadable(source: Source, row: int, data: bytes) -> Iterator[None]:
    """Whatever a decoder raises of a row as one sentence."""
    try:
        yield
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        raise Unreadable(
            f"{source.describe(row)} cannot be read as an image: {why_unreadable(data, error)}"
        ) from None
