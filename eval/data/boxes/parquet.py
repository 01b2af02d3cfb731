"""Parquet files in the Hugging Face layout whose images have boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound
from eval.data.boxes.stored import BoxScan, Row, Stored, look_at_all, stack
from eval.data.sources import ParquetSource, Scan, open_parquet, parquet_batches


@dataclass(frozen=True)
class ParquetBoxes:
    """Columns image {bytes, path} and objects {bbox, category, and optionally area, difficult,
    iscrowd}: a struct of lists, or a list of structs; bbox is x, y, width, height."""

    pixels: ParquetSource
    column: str = "objects"

    def fingerprint(self) -> list[Any]:
        return ["boxes", *self.pixels.fingerprint()[:3], self.column]

    def describe(self, row: int) -> str:
        return self.pixels.describe(row)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self.pixels.images(rows)

    def scan(self) -> Scan:
        return self.box_scan().plain()

    def names(self) -> tuple[str, ...] | None:
        """The class names that the files declare. Raises UserError where they differ."""
        found: tuple[str, ...] | None = None
        for file in self.pixels.files:
            declared = nested_names(open_parquet(file).schema_arrow.metadata, self.column)
            if found and declared and declared != found:
                raise BadInput(f"{file} declares other class names than the files before it")
            found = found or declared
        return found

    def annotations(self) -> Stored:
        images: list[list[Row]] = []
        flagged = False
        for file in self.pixels.files:
            parquet = open_parquet(file)
            if self.column not in parquet.schema_arrow.names:
                raise NotFound(
                    f"{file} has no objects column {self.column!r}; its columns are "
                    f"{', '.join(parquet.schema_arrow.names)}"
                )
            begin = len(images)
            for batch in parquet_batches(parquet, file, columns=[self.column]):
                for cell in batch.column(self.column).to_pylist():
                    where = f"row {len(images) - begin} of {file.parent.name}/{file.name}"
                    lists = _lists(cell, where)
                    flagged = flagged or "difficult" in lists
                    images.append(_rows(lists, where))
        return stack(images, flagged)

    def box_scan(self) -> BoxScan:
        stored = self.annotations()  # first: a mistake in it is found before images are read
        for file in self.pixels.files:
            columns = open_parquet(file).schema_arrow.names
            if self.pixels.image not in columns:
                raise NotFound(
                    f"{file} has no image column {self.pixels.image!r}; its columns are "
                    f"{', '.join(columns)}"
                )
        found = look_at_all(self.pixels.images(np.arange(len(stored))), self.describe)
        return BoxScan.of(stored, found, self.names())


_FIELDS = ("bbox", "category", "area", "difficult", "iscrowd")


def _lists(cell: Any, where: str) -> dict[str, list[Any]]:
    """One row's objects as lists by field. Raises UserError for another form."""
    if cell is None:
        return {}
    if isinstance(cell, list):  # of structs
        if not all(isinstance(one, dict) for one in cell):
            raise BadInput(f"{where}: its objects are not structs with bbox and category")
        cell = {name: [one[name] for one in cell] for name in (cell[0] if cell else ())}
        if not cell:
            return {}
    if not isinstance(cell, dict) or not {"bbox", "category"} <= cell.keys():
        have = ", ".join(cell) if isinstance(cell, dict) else type(cell).__name__
        raise BadInput(f"{where}: its objects have {have}, not bbox and category")
    lists = {name: cell[name] or [] for name in _FIELDS if name in cell}
    if len({len(values) for values in lists.values()}) > 1:
        counts = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise BadInput(f"{where}: its objects do not fit together: {counts}")
    return lists


def _rows(lists: dict[str, list[Any]], where: str) -> list[Row]:
    rows = []
    for place, (bbox, category) in enumerate(
        zip(lists.get("bbox", ()), lists.get("category", ()), strict=True)
    ):
        if bbox is None or len(bbox) != 4 or None in bbox:
            raise BadInput(f"{where}: box {place} is {bbox}, not x, y, width, height")
        if not isinstance(category, int):
            raise BadInput(f"{where}: category {category!r} of box {place} is not a class number")
        area, difficult, crowd = (
            lists[name][place] if name in lists else None
            for name in ("area", "difficult", "iscrowd")
        )
        rows.append(Row(bbox, category, area, bool(difficult), bool(crowd)))
    return rows


def nested_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The ClassLabel names of ``column``'s categories, where the metadata declare them."""
    try:
        objects = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        category = _inner(_inner(objects, "category")["category"], "names")
        names = category["names"]
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    return tuple(names) if category.get("_type") == "ClassLabel" else None


def _inner(feature: Any, key: str) -> Any:
    """Down through lists to the feature that has ``key``."""
    while isinstance(feature, list) or key not in feature:
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature
