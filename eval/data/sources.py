"""Where images lie (Parquet files, class folders, the Hub) and what one pass over them finds.

Pixels are never kept: images stream from the source when a backbone needs them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.files import read_plain
from eval.common.images import is_deep
from eval.data import memo
from eval.data.inventory.labels import MULTI_LABEL, as_meant, composed
from eval.hub.dataset import load_at

HASH_BYTES = 16  # of sha256: 128 bits tell images apart
MOST_CLASSES = 1_000_000  # a larger label is an id or a time, not a class


class Source(Protocol):
    """Where the images of one split lie, in the source's own order."""

    def fingerprint(self) -> list[Any]:
        """Cheap facts (names, sizes, times) that change when the content does."""

    def scan(self) -> Scan:
        """One pass over all rows: labels and the hash of each image. Raises UserError."""

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        """(row, file bytes) for ascending source rows, streaming, memory bounded."""

    def describe(self, row: int) -> str:
        """A row in words, for error messages."""


@dataclass(frozen=True)
class Scan:
    """What one pass over a source finds. ``labels`` are raw: ints, or strings to be mapped."""

    labels: list[Any]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]
    names: tuple[str, ...] | None  # class names where the source declares them
    deep: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    # [N] of more than 8 bits; empty for none


def as_keys(hashes: NDArray[np.uint8]) -> NDArray[np.void]:
    flat = np.ascontiguousarray(hashes)
    return flat.view(np.dtype((np.void, HASH_BYTES))).reshape(-1)


@dataclass
class Looks:
    """Images while a scan goes over them."""

    hashes: list[bytes] = field(default_factory=list)
    deep: list[bool] = field(default_factory=list)

    def add(self, data: bytes) -> None:
        self.hashes.append(image_hash(data))
        self.deep.append(is_deep(data))

    def scan(self, labels: list[Any], names: tuple[str, ...] | None) -> Scan:
        hashes = np.frombuffer(b"".join(self.hashes), np.uint8)
        hashes = hashes.reshape(len(self.hashes), HASH_BYTES)
        return Scan(labels, hashes, names, np.asarray(self.deep, np.bool_))


def image_hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:HASH_BYTES]


# --------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files in the Hugging Face layout: image {bytes, path} and label columns."""

    files: tuple[Path, ...]
    image: str = "image"
    label: str = "label"

    def fingerprint(self) -> list[Any]:
        facts = [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in self.files]
        return ["parquet", facts, self.image, self.label]

    def describe(self, row: int) -> str:
        for file in self.files:
            here = open_parquet(file).metadata.num_rows
            if row < here:
                break
            row -= here
        return f"row {row} of {file.parent.name}/{file.name}"

    def scan(self) -> Scan:
        labels: list[Any] = []
        looks = Looks()
        names: tuple[str, ...] | None = None
        for file in self.files:
            parquet = open_parquet(file)
            columns = parquet.schema_arrow.names
            for role, column in (("image", self.image), ("label", self.label)):
                if column not in columns:
                    raise NotFound(
                        f"{file} has no {role} column {column!r}; its columns are "
                        f"{', '.join(columns)}"
                    )
            if parquet.metadata.num_rows == 0:
                continue
            declared = declared_names(parquet.schema_arrow.metadata, self.label)
            if names and declared and declared != names:
                raise BadInput(f"{file} declares other class names than the files before it")
            names = names or declared
            begin = len(looks.hashes)
            for batch in parquet_batches(parquet, file, columns=[self.image, self.label]):
                labels += batch.column(self.label).to_pylist()
                first = len(looks.hashes) - begin
                for data in self._bytes_of(batch.column(self.image), file, first):
                    looks.add(data)
        return looks.scan(labels, names)

    def _bytes_of(self, column: Any, file: Path, first: int) -> Iterator[bytes]:
        import pyarrow as pa

        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise BadInput(
                f"column {self.image!r} of {file} is of type {column.type}, not encoded images "
                "(binary, or a struct with a 'bytes' field)"
            )
        for i, value in enumerate(column):
            if (data := value.as_py()) is None:
                raise NotFound(f"row {first + i} of {file} holds no image bytes")
            yield data

    def column(self, name: str) -> list[Any]:
        """A further column, row by row. Raises UserError where there is none of that name."""
        values: list[Any] = []
        for file in self.files:
            parquet = open_parquet(file)
            if name not in parquet.schema_arrow.names:
                raise NotFound(
                    f"{file} has no column {name!r}; its columns are "
                    f"{', '.join(parquet.schema_arrow.names)}"
                )
            values += parquet.read(columns=[name])[name].to_pylist()
        return values

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        start = 0
        for file in self.files:
            parquet = open_parquet(file)
            groups = []  # row groups that hold a wanted row; others are never read
            begin = start
            for g in range(parquet.metadata.num_row_groups):
                end = begin + parquet.metadata.row_group(g).num_rows
                if np.searchsorted(rows, begin) < np.searchsorted(rows, end):
                    groups.append((g, begin))
                begin = end
            start = begin
            for g, first in groups:
                for batch in parquet_batches(parquet, file, row_groups=[g], columns=[self.image]):
                    last = first + len(batch)
                    while row is not None and row < last:
                        piece = batch.column(0).slice(row - first, 1)
                        yield row, next(self._bytes_of(piece, file, row))
                        row = next(wanted, None)
                    first = last


def open_parquet(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        # Streamed pages, not whole column chunks: memory stays flat however long the file is.
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:
        raise BadInput(f"{file} cannot be read as Parquet: {one_line(error)}") from None


def parquet_batches(parquet: Any, file: Path, **which: Any) -> Iterator[Any]:
    """Record batches of a Parquet file. Raises UserError where its pages are damaged."""
    try:
        yield from parquet.iter_batches(256, **which)
    except Exception as error:
        raise BadInput(f"{file} cannot be read as Parquet: {one_line(error)}") from None


def declared_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        info = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
    except (KeyError, ValueError, TypeError):
        return None
    return tuple(info["names"]) if info.get("_type") == "ClassLabel" else None


@dataclass(frozen=True)
class FolderSource:
    """Image files of one folder a class; the class is the folder's name, in any Unicode form."""

    root: Path
    files: tuple[str, ...]  # relative to root, sorted
    names: tuple[str, ...]

    def fingerprint(self) -> list[Any]:
        stats = [(f, (s := (self.root / f).stat()).st_size, s.st_mtime_ns) for f in self.files]
        return ["folder", str(self.root), stats, self.names]

    def describe(self, row: int) -> str:
        return f"file {self.root / self.files[row]}"

    def scan(self) -> Scan:
        number = {composed(name): i for i, name in enumerate(self.names)}
        labels = [number[composed(f.partition(os.sep)[0])] for f in self.files]
        looks = Looks()
        for file in self.files:
            looks.add(read_plain(self.root / file))
        return looks.scan(labels, self.names)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for row in rows.tolist():
            yield row, read_plain(self.root / self.files[row])


@dataclass(frozen=True)
class ListedSource:
    """Image files that a table lists with their labels."""

    root: Path
    files: tuple[str, ...]  # relative to root, or absolute
    classes: tuple[str, ...]  # each file's

    def fingerprint(self) -> list[Any]:
        stats = [(f, (s := self._path(f).stat()).st_size, s.st_mtime_ns) for f in self.files]
        return ["listed", str(self.root), stats, self.classes]

    def _path(self, file: str) -> Path:
        return self.root / file

    def describe(self, row: int) -> str:
        return f"file {self._path(self.files[row])}"

    def scan(self) -> Scan:
        looks = Looks()
        for file in self.files:
            looks.add(read_plain(self._path(file)))
        return looks.scan(list(self.classes), None)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for row in rows.tolist():
            yield row, read_plain(self._path(self.files[row]))


@dataclass(frozen=True)
class HubSource:
    """One split of a Hub data set at a pinned commit, read through ``datasets``.

    ``split`` may be a sum, such as train+test. With ``single_of`` the labels are lists, and the
    rows whose list has exactly one entry, one of these, are the rows of the source.
    """

    repo: str
    sha: str
    config: str | None
    split: str
    image: str
    label: str
    single_of: tuple[str, ...] = ()

    def fingerprint(self) -> list[Any]:
        facts = ["hub", self.repo, self.sha, self.config, self.split, self.image, self.label]
        return [*facts, self.single_of] if self.single_of else facts

    def describe(self, row: int) -> str:
        return f"row {row} of split {self.split!r} of {self.repo}"

    @cached_property
    def _table(self) -> Any:
        from datasets import Image

        data = load_at(self.repo, self.config, self.sha, self.split)
        for role, column in (("image", self.image), ("label", self.label)):
            if column not in data.column_names:
                raise NotFound(
                    f"split {self.split!r} of {self.repo!r} has no {role} column {column!r}; "
                    f"its columns are {', '.join(data.column_names)}"
                )
        feature = data.features[self.image]
        if not (isinstance(feature, Image) or _holds_bytes(feature)):
            raise BadInput(f"column {self.image!r} of {self.repo!r} is {feature}, not images")
        if self.single_of:
            lists = data[self.label]
            single = [i for i, v in enumerate(lists) if len(v) == 1 and v[0] in self._ids]
            if not single:
                raise BadInput(
                    f"no row of split {self.split!r} of {self.repo!r} has exactly one of "
                    f"{', '.join(self.single_of)} in its column {self.label!r}"
                )
            data = data.select(single)
        is_image = isinstance(feature, Image)
        return data.cast_column(self.image, Image(decode=False)) if is_image else data

    @cached_property
    def _ids(self) -> dict[Any, int]:
        return {name: i for i, name in enumerate(self.single_of)}

    def column(self, name: str) -> list[Any]:
        """A further column, row by row. Raises UserError where there is none of that name."""
        if name not in self._table.column_names:
            raise NotFound(
                f"split {self.split!r} of {self.repo!r} has no column {name!r}; "
                f"its columns are {', '.join(self._table.column_names)}"
            )
        return list(self._table[name])

    def label_names(self, path: str) -> tuple[str, ...] | None:
        """What the numbers of a column of lists are called, where its type says so."""
        feature: Any = self._table.features
        for name in path.split("."):
            feature = feature[name] if isinstance(feature, dict) else None
        while isinstance(feature, list) or hasattr(feature, "feature"):
            feature = feature[0] if isinstance(feature, list) else feature.feature
        return tuple(feature.names) if hasattr(feature, "names") else None

    def scan(self) -> Scan:
        table = self._table
        labels: list[Any] = list(table[self.label])
        looks = Looks()
        for _, data in self.images(np.arange(len(table))):
            looks.add(data)
        if self.single_of:
            return looks.scan([self._ids[found[0]] for found in labels], self.single_of)
        feature = table.features[self.label]
        return looks.scan(labels, tuple(feature.names) if hasattr(feature, "names") else None)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        table = self._table.select_columns([self.image])
        for begin in range(0, len(rows), 256):
            chunk = rows[begin : begin + 256].tolist()
            for row, cell in zip(chunk, table[chunk][self.image], strict=True):
                facts = cell if isinstance(cell, dict) else {"bytes": cell}
                data, path = facts.get("bytes"), Path(facts.get("path") or "")
                if data is None and not path.is_file():
                    raise NotFound(f"{self.describe(row)} holds no image bytes")
                yield row, data if data is not None else path.read_bytes()


def _holds_bytes(feature: Any) -> bool:
    """Encoded images without the type Image: bytes, or a struct of bytes and path."""
    from datasets import Value

    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return isinstance(inner, Value) and inner.dtype in ("binary", "large_binary")


def check_labels(labels: Sequence[Any], source: Source, subject: str) -> None:
    """Raise UserError for a label that is neither missing, a class number nor a string."""
    for row, label in enumerate(labels):
        number = isinstance(label, int) and label <= MOST_CLASSES
        if isinstance(label, (list, dict)):
            raise BadInput(
                f"{subject}: label {repr(label)[:80]} of {source.describe(row)} is neither a class "
                f"number nor a string but {'a list' if isinstance(label, list) else 'a struct'}; "
                f"{MULTI_LABEL}"
            )
        if not (number or label is None or isinstance(label, str)):
            raise BadInput(
                f"{subject}: label {repr(label)[:80]} of {source.describe(row)} is neither a class "
                f"number (0 to {MOST_CLASSES}) nor a string"
            )


def remembered_scan(source: Source, cache: Path, subject: str) -> tuple[Scan, NDArray[np.int64]]:
    """(scan, source rows sorted by image hash), remembered in the cache."""

    def find() -> tuple[Scan, NDArray[np.int64]]:
        scan = source.scan()
        scan = replace(scan, labels=as_meant(scan.labels))
        check_labels(scan.labels, source, subject)
        return scan, np.argsort(as_keys(scan.hashes), kind="stable").astype(np.int64)

    def pack(found: tuple[Scan, NDArray[np.int64]]) -> memo.Arrays:
        scan, order = found
        numbers = bool(scan.labels) and all(type(v) is int for v in scan.labels)
        listed = None if numbers else scan.labels
        return {
            "labels": np.asarray(scan.labels if numbers else [], np.int64),
            "hashes": scan.hashes, "deep": scan.deep, "order": order,
            "meta": memo.packed({"names": scan.names, "labels": listed}),
        }  # fmt: skip

    def unpack(saved: memo.Arrays) -> tuple[Scan, NDArray[np.int64]]:
        meta = memo.unpacked(saved["meta"])
        labels = meta["labels"] if meta["labels"] is not None else saved["labels"].tolist()
        names = memo.names_of(meta["names"])
        return Scan(labels, saved["hashes"], names, saved["deep"]), saved["order"]

    facts = [1, HASH_BYTES, source.fingerprint()]
    return memo.remembered(cache, facts, find, pack=pack, unpack=unpack)
