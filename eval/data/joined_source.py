"""Two sources as one: the rows of the first, then those of the second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.data.sources import Scan, Source


@dataclass(frozen=True)
class Joined:
    """``border`` is how many rows the first has."""

    first: Source
    second: Source
    border: int

    def fingerprint(self) -> list[Any]:
        return ["joined", self.first.fingerprint(), self.second.fingerprint()]

    def scan(self) -> Scan:
        """With names for labels: the two may number their classes otherwise."""
        scans = self.first.scan(), self.second.scan()
        labels = [
            scan.names[label] if scan.names and isinstance(label, int) else label
            for scan in scans
            for label in scan.labels
        ]
        hashes = np.concatenate([scan.hashes for scan in scans])
        return Scan(labels, hashes, None, np.concatenate([scan.deep for scan in scans]))

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        cut = int(np.searchsorted(rows, self.border))
        yield from self.first.images(rows[:cut])
        for row, data in self.second.images(rows[cut:] - self.border):
            yield row + self.border, data

    def describe(self, row: int) -> str:
        if row < self.border:
            return self.first.describe(row)
        return self.second.describe(row - self.border)
