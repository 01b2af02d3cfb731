"""Which grey values of a data set are black and white, where its images have more than 8 bits.

A file does not say it: 12-bit data lie in 16-bit files, floats run from 0 to 1 or to 255. The rule,
over the images of train: the smallest of the usual ranges that holds every value, 8, 10, 12, 14 or
16 bits for integers, and 0..1, -1..1, 0..255 or 0..65535 for floats. Values in none of them, such
as Hounsfield units, need the user's own ``?range=LOW,HIGH``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.common.files import write_json
from eval.common.images import PLAIN, Range, Values, grey_values
from eval.common.text import counted
from eval.data.sources import Scan, Source

BITS = (8, 10, 12, 14, 16)
_RANGES: dict[str, tuple[Range, ...]] = {
    "I": tuple((0.0, float(2**bits - 1)) for bits in BITS),
    "F": ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0)),
}


@dataclass(frozen=True)
class Valued:
    """A source whose grey values of more than 8 bits are read by ``values``."""

    inner: Source
    values: Values

    def fingerprint(self) -> list[Any]:
        return [*self.inner.fingerprint(), "values", self.values.integers, self.values.floats]

    def scan(self) -> Scan:
        return self.inner.scan()

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        return self.inner.images(rows)

    def describe(self, row: int) -> str:
        return self.inner.describe(row)


def values_of(source: Source) -> Values:
    """How the source's images are read."""
    return source.values if isinstance(source, Valued) else PLAIN


def parse_range(text: str, subject: str) -> Range:
    """LOW,HIGH. Raises UserError for anything else."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and np.isfinite([low, high]).all()):
        raise BadInput(
            f"{subject}: range={text} is not LOW,HIGH, such as 0,4095, the values of black and "
            "white"
        )
    return low, high


Extremes = dict[str, Range]  # kind of values ('I' or 'F') -> the least and the most


def extremes(source: Source, rows: NDArray[np.int64], memo: Path) -> Extremes:
    """Over the images of ascending ``rows``, remembered in ``memo``; one that cannot be decoded is
    left to those who do."""
    if memo.is_file():
        try:
            return {kind: (low, high) for kind, (low, high) in json.loads(memo.read_text()).items()}
        except (OSError, ValueError):
            memo.unlink(missing_ok=True)  # a damaged memo is made again
    found: Extremes = {}
    for _, data in source.images(rows):
        try:
            kind, grey = grey_values(data)
        except Exception:  # decoders raise whatever a broken file makes them raise
            continue
        grey = grey[np.isfinite(grey)]
        if grey.size:
            low, high = found.get(kind, (np.inf, -np.inf))
            found[kind] = min(low, float(grey.min())), max(high, float(grey.max()))
    write_json(memo, found)
    return found


def memo_of(cache: Path, train: str) -> Path:
    """Where the extremes of the images of train are remembered, by their hash."""
    key = hashlib.sha256(f"values:1:{train}".encode()).hexdigest()[:32]
    return cache / "splits" / f"{key}.values.json"


def by_rule(found: Extremes, subject: str) -> Values:
    """The ranges that hold what was found. Raises UserError where none of the usual ones does."""
    chosen = {}
    for kind, (low, high) in found.items():
        ranges = [(a, b) for a, b in _RANGES[kind] if a <= low and high <= b]
        if not ranges:
            raise BadInput(
                f"{subject}: grey values of images with more than 8 bits run from {low:g} to "
                f"{high:g} in train; say which are black and white with ?range=LOW,HIGH"
            )
        chosen[kind] = ranges[0]
    return Values(chosen.get("I", PLAIN.integers), chosen.get("F", PLAIN.floats))


def as_given(range_: Range, found: Extremes) -> Values:
    """The user's own range, for the kinds of values that were found."""
    given = dict.fromkeys(found, range_)
    return Values(given.get("I", PLAIN.integers), given.get("F", PLAIN.floats))


def in_words(count: int, found: Extremes, values: Values) -> str:
    """What was decided about ``count`` images."""
    parts = [
        f"values {low:g} to {high:g} of train are read as {black:g} for black and {white:g} for "
        "white"
        for kind, (low, high) in found.items()
        for black, white in ((values.integers if kind == "I" else values.floats),)
    ]
    return (
        f"{counted(count, 'image')} with more than 8 bits: {' and '.join(parts)}; ?range=LOW,HIGH "
        "says it otherwise"
    )
