"""The encoded images of one part of a task, with random access.

Parquet files are read in order, a training loop is not: the bytes are copied once to one file in
the cache, which is memory-mapped and so shared by processes. Small sets stay in memory instead.

The file is the images' bytes, an index of where canonical image i begins and how long it is, and
a footer that says whether the file is whole. Bytes are held against their hash whenever they are
read, so what was damaged on disk is noticed and copied again.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.errors import BadInput, Conflict, Unreadable, UserError, one_line
from eval.common.files import atomic_file, cache_errors, locked, say_damaged
from eval.common.images import decode, why_unreadable
from eval.data.sources import image_hash
from eval.data.task_data import Split

IN_MEMORY = 16 << 20  # bytes; fewer than these are not worth a file
_MAGIC = b"TZIMG\x00\x00\x01"
_FOOTER = struct.Struct("<8sQ32s")  # magic, number of images, sha256 of the index

# [N, 2] begin and length of each canonical image, and the bytes that these count in
Bytes = bytes  # the class below has a method of that name
Copy = tuple[NDArray[np.int64], bytes | mmap.mmap]


class EncodedImages:
    """Made by ``of``; reads may come from several threads."""

    def __init__(self, split: Split, copy: Copy, cache: Path) -> None:
        self._split, self._cache, self._copy = split, cache, copy
        self._lock = threading.Lock()

    @classmethod
    def of(cls, split: Split, cache: Path) -> EncodedImages:
        """The images of ``split``, copied now where they are not in the cache.

        Raises UserError for a row that cannot be read, or has other bytes than when the split was
        made, and for a full disk.
        """
        path = _path(split, cache)
        found = _open(path, len(split))
        if found is None:
            found = _make(split, path, cache, 0)
        return cls(split, found, cache)

    def __len__(self) -> int:
        return len(self._split)

    def bytes(self, index: int) -> bytes:
        """The file of canonical image ``index``. Raises UserError where it is gone for good."""
        whole = self._read(index)
        if whole is None:
            with self._lock:  # damaged on disk; another thread may have copied it again by now
                whole = self._read(index)
                if whole is None:
                    path = _path(self._split, self._cache)
                    self._copy = _make(self._split, path, self._cache, index)
                    whole = self._read(index)
        if whole is None:
            raise UserError(f"{self.describe(index)} cannot be kept in {self._cache}")
        return whole

    def _read(self, index: int) -> Bytes | None:
        places, data = self._copy  # one look: another thread may put a new one in its place
        begin, length = places[index].tolist()
        found = data[begin : begin + length]
        return found if image_hash(found) == self._split.hashes[index].tobytes() else None

    def image(self, index: int) -> Image.Image:
        """Canonical image ``index`` as upright RGB. Raises UserError where it is none."""
        data = self.bytes(index)
        try:
            return decode(data, self._split.values)
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            raise Unreadable(
                f"{self.describe(index)} cannot be read as an image: {why_unreadable(data, error)}"
            ) from None

    def describe(self, index: int) -> str:
        """Canonical image ``index`` in the words of its source."""
        return self._split.source.describe(int(self._split.rows[index]))


def _path(split: Split, cache: Path) -> Path:
    return cache / "pixels" / f"{split.hash[:32]}.images"  # `cache rm --all` clears that folder


def _open(path: Path, count: int) -> Copy | None:
    """The copy, or None where it is missing or not whole."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    body = len(data) - _FOOTER.size - 16 * count
    if body >= 0:
        magic, images, digest = _FOOTER.unpack(data[-_FOOTER.size :])
        index = data[body : body + 16 * count]
        if (magic, images, digest) == (_MAGIC, count, hashlib.sha256(index).digest()):
            return np.frombuffer(index, "<i8").reshape(count, 2).astype(np.int64), data
    data.close()
    return None


def _make(split: Split, path: Path, cache: Path, damaged: int) -> Copy:
    """Copy the images. Image ``damaged`` of a file that is there is known not to be whole, unless
    another process has made the file again meanwhile."""
    lock = cache / "locks" / f"images-{path.stem}.lock"
    # a second process waits here, then finds the copy done
    with cache_errors(cache, f"the images of {split.name}"), locked(lock):
        if found := _open(path, len(split)):
            index, data = found
            begin, length = index[damaged].tolist()
            if image_hash(data[begin : begin + length]) == split.hashes[damaged].tobytes():
                return found
        if path.exists():
            say_damaged(path)
        index = np.zeros((len(split), 2), np.int64)
        stream = _stream(split)
        held: list[bytes] = []
        size = 0
        for place, data in stream:
            index[place] = size, len(data)
            held.append(data)
            size += len(data)
            if size > IN_MEMORY:
                break
        else:
            return index, b"".join(held)
        with atomic_file(path) as file:
            file.write(b"".join(held))
            held.clear()
            _write(file, stream, index, size)
        found = _open(path, len(split))
    if found is None:
        raise UserError(f"{path} cannot be read back; remove it and run again")
    return found


def _write(
    file: BinaryIO, stream: Iterator[tuple[int, bytes]], index: NDArray[np.int64], size: int
) -> None:
    """The rest of the images from byte ``size`` on, the index and the footer."""
    for place, data in stream:
        index[place] = size, len(data)
        file.write(data)
        size += len(data)
    table = index.astype("<i8").tobytes()
    file.write(table)
    file.write(_FOOTER.pack(_MAGIC, len(index), hashlib.sha256(table).digest()))


def _stream(split: Split) -> Iterator[tuple[int, bytes]]:
    """(canonical place, bytes) in the source's order. Raises UserError."""
    order = np.argsort(split.rows, kind="stable")
    rows = split.rows[order]
    images = split.source.images(rows)
    for place, row in zip(order.tolist(), rows.tolist(), strict=True):
        try:
            found, data = next(images)
        except OSError as error:
            raise BadInput(
                f"{split.source.describe(row)} cannot be read: {one_line(error)}"
            ) from None
        if found != row or image_hash(data) != split.hashes[place].tobytes():
            raise Conflict(
                f"{split.source.describe(row)} has other bytes than when the task was loaded; "
                "run again"
            )
        yield place, data
