"""Boxes as a source stores them, before any check, and what one pass over its images finds."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.errors import BadInput
from eval.common.images import is_deep, why_unreadable
from eval.data import memo
from eval.data.boxes.objects import answer_hash
from eval.data.inventory.unreadable import unreadable
from eval.data.sources import HASH_BYTES, Scan, Source, image_hash

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 lay the image on its side
# Pillow decodes a whole PNG to look for EXIF behind its pixels; these stand in the file then.
_PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class Stored:
    """The K boxes of N images, one image after the other."""

    start: NDArray[np.int64]  # [N + 1] image i has the boxes start[i] to start[i + 1]
    xywh: NDArray[np.float32]  # [K, 4] x, y, width, height
    labels: NDArray[np.int64]  # [K]
    area: NDArray[np.float32]  # [K]
    difficult: NDArray[np.bool_]  # [K]
    crowd: NDArray[np.bool_]  # [K]
    flagged: bool = False  # the source says which objects are difficult

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def image_of(self) -> NDArray[np.int64]:
        """[K] the image of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def digest(self) -> str:
        """Hex digest over all arrays."""
        found = hashlib.sha256()
        for name in ARRAYS:
            found.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return found.hexdigest()

    def answers(self) -> list[int]:
        """What stands for each image's label in a split hash."""
        ignore = self.difficult | self.crowd
        return [
            answer_hash(self.xywh[a:b], self.area[a:b], self.labels[a:b], ignore[a:b])
            for a, b in pairwise(self.start.tolist())
        ]


ARRAYS = tuple(f.name for f in fields(Stored) if f.name != "flagged")


@dataclass(frozen=True)
class Row:
    """One object as it is read: x, y, width, height, and what is known of it."""

    xywh: Sequence[float]
    label: int
    area: float | None = None  # None: width x height
    difficult: bool = False
    crowd: bool = False


def stack(images: Iterable[Sequence[Row]], flagged: bool = False) -> Stored:
    """The objects of each image as arrays. Raises ValueError for what is not a number."""
    start = [0]
    rows: list[Row] = []
    for image in images:
        rows += image
        start.append(len(rows))
    xywh = np.asarray([row.xywh for row in rows], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # beyond single precision: infinite, and left out by check
        boxes = xywh.astype(np.float32)
        area = [
            np.float32(box[2] * box[3] if row.area is None else row.area)
            for row, box in zip(rows, boxes, strict=True)
        ]
    return Stored(
        np.asarray(start, np.int64),
        boxes,
        np.asarray([row.label for row in rows], np.int64),
        np.asarray(area, np.float32),
        np.asarray([row.difficult for row in rows], np.bool_),
        np.asarray([row.crowd for row in rows], np.bool_),
        flagged,
    )


class Look(NamedTuple):
    """What is kept of one image."""

    key: bytes
    size: tuple[int, int]  # upright: height, width
    deep: bool  # of more than 8 bits


@dataclass(frozen=True)
class BoxScan:
    """What one pass over a source finds, in the source's own order."""

    stored: Stored
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES] of the image files
    sizes: NDArray[np.int64]  # [N, 2] height, width, upright
    names: tuple[str, ...] | None  # of the classes, where the source declares them
    answers: NDArray[np.int64]  # [N] what stands for each image's label in a split hash
    deep: NDArray[np.bool_]  # [N] of more than 8 bits

    @classmethod
    def of(
        cls,
        stored: Stored,
        found: Sequence[Look],
        names: tuple[str, ...] | None,
    ) -> BoxScan:
        """``found``: what ``look_at_all`` returns."""
        hashes = np.frombuffer(b"".join(one.key for one in found), np.uint8)
        sizes = np.asarray([one.size for one in found], np.int64).reshape(-1, 2)
        answers = np.asarray(stored.answers(), np.int64)
        deep = np.asarray([one.deep for one in found], np.bool_)
        return cls(stored, hashes.reshape(len(found), HASH_BYTES), sizes, names, answers, deep)

    def plain(self) -> Scan:
        return Scan(self.answers.tolist(), self.hashes, self.names, self.deep)


class BoxSource(Source, Protocol):
    """A source whose images have boxes."""

    def annotations(self) -> Stored:
        """The boxes alone; no image is read, unless they are stored as shares of its size."""

    def box_scan(self) -> BoxScan:
        """One pass over all rows. Raises UserError."""


def upright_size(data: bytes) -> tuple[int, int]:
    """Height and width by an image's header. Raises whatever a broken file makes Pillow raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        turned = image.format != "PNG" or any(mark in data for mark in _PNG_MARKS)
        if turned and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
    return height, width


def look_at_all(images: Iterable[tuple[int, bytes]], describe: Callable[[int], str]) -> list[Look]:
    """Hash and size of each of (row, file bytes). Raises UserError naming all unreadable ones."""
    found: list[Look] = []
    failed: list[tuple[str, str]] = []
    for row, data in images:
        key = image_hash(data)
        try:
            found.append(Look(key, upright_size(data), is_deep(data)))
        except Exception as error:  # a parser fed with arbitrary bytes raises anything
            failed.append((describe(row), why_unreadable(data, error)))
    if failed:
        raise BadInput(unreadable(failed))
    return found


def remembered_boxes(source: BoxSource, cache: Path) -> BoxScan:
    """The source's scan, remembered in the cache."""

    def pack(scan: BoxScan) -> memo.Arrays:
        meta = memo.packed({"names": scan.names, "flagged": scan.stored.flagged})
        return {
            "hashes": scan.hashes, "sizes": scan.sizes, "answers": scan.answers, "deep": scan.deep,
            "meta": meta, **{name: getattr(scan.stored, name) for name in ARRAYS},
        }  # fmt: skip

    def unpack(saved: memo.Arrays) -> BoxScan:
        meta = memo.unpacked(saved["meta"])
        stored = Stored(**{name: saved[name] for name in ARRAYS}, flagged=meta["flagged"])
        names = memo.names_of(meta["names"])
        return BoxScan(
            stored, saved["hashes"], saved["sizes"], names, saved["answers"], saved["deep"]
        )

    facts = ["boxes", 1, HASH_BYTES, source.fingerprint()]
    return memo.remembered(cache, facts, source.box_scan, pack=pack, unpack=unpack)
