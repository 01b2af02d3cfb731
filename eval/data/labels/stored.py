"""Images and their labels as a source stores them, and what one pass over both finds."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import NotFound
from eval.data import memo
from eval.data.labels.columns import Columns, declared_labels
from eval.data.sources import (
    HASH_BYTES,
    HubSource,
    ListedSource,
    Looks,
    ParquetSource,
    Scan,
    Source,
    open_parquet,
    parquet_batches,
)


class LabelScan(NamedTuple):
    """What one pass finds, in the source's own order."""

    hashes: NDArray[np.uint8]  # [N, HASH_BYTES] of the image files
    deep: NDArray[np.bool_]  # [N] of more than 8 bits
    sets: list[tuple[Any, ...]]  # [N] names, or numbers of ``names``
    names: tuple[str, ...] | None  # that the source declares
    said: tuple[str, ...] = ()  # what was decided about its values


class LabelSource(Source, Protocol):
    """A source whose images have several labels, or none."""

    def label_scan(self) -> LabelScan:
        """One pass over all rows. Raises UserError."""


class _Labelled(ABC):
    """Images of another source, with labels of their own."""

    pixels: Source

    def describe(self, row: int) -> str:
        return self.pixels.describe(row)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self.pixels.images(rows)

    def scan(self) -> Scan:
        return _plain(self.label_scan())

    @abstractmethod
    def label_scan(self) -> LabelScan: ...


@dataclass(frozen=True)
class ParquetLabels(_Labelled):
    pixels: ParquetSource
    columns: Columns

    def fingerprint(self) -> list[Any]:
        return ["labels", *self.pixels.fingerprint()[:3], self.columns.facts()]

    def label_scan(self) -> LabelScan:
        names: tuple[str, ...] | None = None
        rows: dict[str, list[Any]] = {column: [] for column in self.columns.top}
        for file in self.pixels.files:
            parquet = open_parquet(file)
            have = parquet.schema_arrow.names
            for role, column in (
                ("image", self.pixels.image),
                *(("label", c) for c in self.columns.top),
            ):
                if column not in have:
                    raise NotFound(
                        f"{file} has no {role} column {column!r}; its columns are {', '.join(have)}"
                    )
            names = names or declared_labels(parquet.schema_arrow.metadata, self.columns.names[0])
            for batch in parquet_batches(parquet, file, columns=list(self.columns.top)):
                for column in rows:
                    rows[column] += batch.column(column).to_pylist()
        sets = self.columns.read(rows, self.describe)
        return _looked_at(self, sets, names, self.columns.said(rows))


@dataclass(frozen=True)
class HubLabels(_Labelled):
    pixels: HubSource
    columns: Columns

    def fingerprint(self) -> list[Any]:
        return ["labels", *self.pixels.fingerprint(), self.columns.facts()]

    def label_scan(self) -> LabelScan:
        rows = {column: self.pixels.column(column) for column in self.columns.top}
        sets = self.columns.read(rows, self.describe)
        names = self.pixels.label_names(self.columns.names[0])
        return _looked_at(self, sets, names, self.columns.said(rows))


@dataclass(frozen=True)
class ListedLabels(_Labelled):
    """Image files that a table lists with their labels."""

    pixels: ListedSource
    sets: tuple[tuple[str, ...], ...]
    said: tuple[str, ...] = ()

    def fingerprint(self) -> list[Any]:
        return ["labels", *self.pixels.fingerprint()[:3], self.sets, self.said]

    def label_scan(self) -> LabelScan:
        return _looked_at(self, list(self.sets), None, self.said)


def _looked_at(
    source: LabelSource,
    sets: list[tuple[Any, ...]],
    names: tuple[str, ...] | None,
    said: tuple[str, ...],
) -> LabelScan:
    looks = Looks()
    for _, data in source.images(np.arange(len(sets))):
        looks.add(data)
    found = looks.scan([], names)
    return LabelScan(found.hashes, found.deep, sets, names, said)


def answer(labels: tuple[Any, ...]) -> int:
    """What stands for a set of labels in a split hash, in whatever order they are given."""
    text = json.dumps(sorted(map(str, labels)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _plain(scan: LabelScan) -> Scan:
    return Scan([answer(labels) for labels in scan.sets], scan.hashes, None, scan.deep)


def remembered_labels(source: LabelSource, cache: Path) -> LabelScan:
    """The source's scan, remembered in the cache."""

    def pack(scan: LabelScan) -> memo.Arrays:
        meta = memo.packed({"names": scan.names, "sets": scan.sets, "said": scan.said})
        return {"hashes": scan.hashes, "deep": scan.deep, "meta": meta}

    def unpack(saved: memo.Arrays) -> LabelScan:
        meta = memo.unpacked(saved["meta"])
        sets = [tuple(labels) for labels in meta["sets"]]
        names, said = memo.names_of(meta["names"]), tuple(meta["said"])
        return LabelScan(saved["hashes"], saved["deep"], sets, names, said)

    facts = ["labels", 2, HASH_BYTES, source.fingerprint()]
    return memo.remembered(cache, facts, source.label_scan, pack=pack, unpack=unpack)
