"""Images and masks as a source stores them, and what one pass over both finds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.files import read_plain
from eval.data import memo
from eval.data.boxes.stored import look_at_all
from eval.data.masks.label_map import raw_map
from eval.data.sources import HASH_BYTES, ParquetSource, Scan, Source, open_parquet, parquet_batches

MOST_VALUE = 65535  # of a mask: 16 bits


class MaskScan(NamedTuple):
    """What one pass finds, in the source's own order."""

    hashes: NDArray[np.uint8]  # [N, HASH_BYTES] of the image files
    deep: NDArray[np.bool_]  # [N] of more than 8 bits
    answers: NDArray[np.int64]  # [N] what stands for each image's label in a split hash
    image: NDArray[np.int64]  # [K] the image of each pair
    value: NDArray[np.int64]  # [K] a value that occurs in its mask
    pixels: NDArray[np.int64]  # [K] how often

    def plain(self) -> Scan:
        return Scan(self.answers.tolist(), self.hashes, None, self.deep)


class MaskSource(Source, Protocol):
    """A source whose images have masks."""

    def masks(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        """(row, mask file) of ascending rows."""

    def groups(self) -> list[str] | None:
        """What each image belongs to (a drive, a patient); None where nothing says so. Images of a
        group stand in their order."""

    def mask_scan(self) -> MaskScan:
        """One pass over all rows. Raises UserError."""


@dataclass(frozen=True)
class ParquetMasks:
    """Columns image and mask {bytes, path}, and perhaps one of groups."""

    pixels: ParquetSource
    mask: str = "mask"
    group: str = ""

    def fingerprint(self) -> list[Any]:
        return ["masks", *self.pixels.fingerprint()[:3], self.mask, self.group]

    def describe(self, row: int) -> str:
        return self.pixels.describe(row)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self.pixels.images(rows)

    def masks(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return ParquetSource(self.pixels.files, self.mask).images(rows)

    def groups(self) -> list[str] | None:
        return [str(v) for v in self.pixels.column(self.group)] if self.group else None

    def scan(self) -> Scan:
        return self.mask_scan().plain()

    def mask_scan(self) -> MaskScan:
        missing = 0
        total = 0
        for file in self.pixels.files:
            parquet = open_parquet(file)
            columns = parquet.schema_arrow.names
            for role, column in (("image", self.pixels.image), ("mask", self.mask)):
                if column not in columns:
                    raise NotFound(
                        f"{file} has no {role} column {column!r}; its columns are "
                        f"{', '.join(columns)}"
                    )
            total += parquet.metadata.num_rows
            for batch in parquet_batches(parquet, file, columns=[self.mask]):
                missing += sum(_holds_nothing(cell) for cell in batch.column(0).to_pylist())
        if missing:
            raise BadInput(
                f"{missing:,} of {total:,} images in {self.pixels.files[0].parent} have no mask; "
                "take these rows out"
            )
        return scanned(self, total)


def _holds_nothing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, dict) and cell.get("bytes") is None)


@dataclass(frozen=True)
class FileMasks:
    """Image files, each with a mask file."""

    files: tuple[Path, ...]  # [N]
    mask_files: tuple[Path, ...]  # [N]

    def fingerprint(self) -> list[Any]:
        both = zip(self.files, self.mask_files, strict=True)
        return ["mask files", [(str(f), *_facts(f), str(m), *_facts(m)) for f, m in both]]

    def describe(self, row: int) -> str:
        return f"file {self.files[row]}"

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self._read(self.files, rows)

    def masks(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self._read(self.mask_files, rows)

    def _read(
        self, files: tuple[Path, ...], rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, bytes]]:
        for row in rows.tolist():
            try:
                yield row, read_plain(files[row])
            except OSError as error:
                raise BadInput(f"{files[row]} cannot be read: {one_line(error)}") from None

    def groups(self) -> list[str] | None:
        return None

    def scan(self) -> Scan:
        return self.mask_scan().plain()

    def mask_scan(self) -> MaskScan:
        return scanned(self, len(self.files))


def _facts(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def scanned(source: MaskSource, count: int) -> MaskScan:
    """One pass over the images and one over the masks. Raises UserError for an image or a mask that
    cannot be read, and for a mask of another size than its image."""
    rows = np.arange(count)
    looks = look_at_all(source.images(rows), source.describe)
    image, value, pixels, answers = [], [], [], []
    for row, data in source.masks(rows):
        found = raw_map(data, source.describe(row))
        if found.shape != looks[row].size:
            (height, width), (tall, wide) = found.shape, looks[row].size
            raise BadInput(
                f"{source.describe(row)}: its mask has {width} x {height} pixels where the image "
                f"has {wide} x {tall}; a mask labels each pixel of its image"
            )
        if found.max(initial=0) > MOST_VALUE or found.min(initial=0) < 0:
            raise BadInput(f"{source.describe(row)}: its mask has values beyond 0..{MOST_VALUE}")
        digest = hashlib.sha256(repr(found.shape).encode() + found.astype("<u2").tobytes())
        answers.append(int.from_bytes(digest.digest()[:8], "little", signed=True))
        counts = np.bincount(found.reshape(-1))
        there = np.flatnonzero(counts)
        image.append(np.full(len(there), row))
        value.append(there)
        pixels.append(counts[there])
    hashes = np.frombuffer(b"".join(look.key for look in looks), np.uint8)
    none = np.zeros(0, np.int64)
    return MaskScan(
        hashes.reshape(len(looks), HASH_BYTES),
        np.asarray([look.deep for look in looks], np.bool_),
        np.asarray(answers, np.int64),
        *(np.concatenate(part or [none]).astype(np.int64) for part in (image, value, pixels)),
    )


def remembered_masks(source: MaskSource, cache: Path) -> MaskScan:
    """The source's scan, remembered in the cache: a second call reads no mask either."""
    return memo.remembered(
        cache, ["masks", 1, HASH_BYTES, source.fingerprint()], source.mask_scan,
        pack=lambda scan: scan._asdict(),
        unpack=lambda saved: MaskScan(**{name: saved[name] for name in MaskScan._fields}),
    )  # fmt: skip
