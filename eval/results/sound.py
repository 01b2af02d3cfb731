"""A shelf without the results that something speaks against: boards name and count these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eval.results.evidence import broken
from eval.results.schema import Result
from eval.results.store import Shelf


def sound(shelf: Shelf, against: Callable[[Result], str] = broken) -> Shelf:
    """The shelf with each result that ``against`` has a sentence on among the foreign files.

    By default that is about its numbers alone; of a result that somebody else published
    `eval.results.parquet_table.flaw` asks more.
    """
    kept: list[tuple[Path, Result]] = []
    foreign = list(shelf.foreign)
    for path, result in shelf.results:
        if why := against(result):
            foreign.append((path, why))
        else:
            kept.append((path, result))
    return Shelf(tuple(kept), tuple(foreign))
