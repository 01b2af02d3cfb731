"""Sources whose rows show instances -> a gallery and queries in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.common.text import counted, some
from eval.data.canonical import refuse_unlabelled
from eval.data.sources import Scan, Source, as_keys, remembered_scan
from eval.data.task_data import Split, canonical_order, take

Side = Literal["gallery", "query", ""]


@dataclass(frozen=True)
class InstanceParts:
    """Where the images of a retrieval task lie. Without ``queries`` the ``sides`` say of each row
    of ``gallery`` what it is; those that are neither are not used."""

    gallery: Source
    queries: Source | None = None
    sides: tuple[Side, ...] = ()


@dataclass(frozen=True)
class InstanceSplits:
    """Gallery and queries in canonical order, each query with a match."""

    instances: tuple[str, ...]  # of the gallery
    gallery: Split
    queries: Split
    lost: tuple[str, ...]  # the instance of each query without a match
    notes: tuple[str, ...]
    deep: NDArray[np.void]  # hashes of the images of more than 8 bits


def assemble_instances(images: InstanceParts, cache: Path, subject: str) -> InstanceSplits:
    """Scan, order and check both.

    Queries whose instance the gallery lacks are left out, and said. Raises UserError for an empty
    side, for images of no instance, for a gallery of one instance, and where no query has a match.
    """
    sources = [images.gallery] + ([images.queries] if images.queries else [])
    sides: tuple[Side, ...] = ("gallery", "query")
    found: dict[Side, tuple[Source, list[str], NDArray[np.uint8], NDArray[np.int64]]] = {}
    deep = []
    for side, source in zip(sides, sources, strict=False):
        scan, _ = remembered_scan(source, cache, subject)
        refuse_unlabelled(scan, source, "all", subject)
        names = _named(scan)
        if images.queries:
            found[side] = source, names, scan.hashes, np.arange(len(names))
        else:
            for one in sides:
                rows = np.flatnonzero(np.asarray(images.sides) == one)
                found[one] = source, [names[row] for row in rows], scan.hashes[rows], rows
        deep.append(as_keys(scan.hashes[scan.deep]))
    known = sorted(set(found["gallery"][1]))
    _check(found["gallery"][1], found["query"][1], known, subject)
    number = {name: i for i, name in enumerate([*known, *sorted({*found["query"][1]} - {*known})])}
    gallery, queries = (
        _split(part, *found[side], number)
        for part, side in (("train", sides[0]), ("test", sides[1]))
    )
    has_match = queries.labels < len(known)
    names_of = {place: name for name, place in number.items()}
    lost = tuple(names_of[label] for label in queries.labels[~has_match].tolist())
    notes = []
    if lost:
        notes.append(
            f"{len(lost):,} of {counted(len(queries), 'query', 'queries')} have no image of their "
            f"instance in the gallery and are left out: {some(sorted(set(lost)))}"
        )
    asked = take(queries, np.flatnonzero(has_match))
    return InstanceSplits(tuple(known), gallery, asked, lost, tuple(notes), np.concatenate(deep))


def _named(scan: Scan) -> list[str]:
    """The instance of each row by its name, which two parts number as they like."""
    names = scan.names
    return [
        names[label] if names and isinstance(label, int) and 0 <= label < len(names) else str(label)
        for label in scan.labels
    ]


def _check(gallery: list[str], asked: list[str], known: list[str], subject: str) -> None:
    for what, images in (("gallery", gallery), ("queries", asked)):
        if not images:
            raise BadInput(f"{subject}: the {what} has no image" if what == "gallery" else
                           f"{subject}: there are no queries")  # fmt: skip
    if len(known) == 1:
        raise BadInput(
            f"{subject}: all {len(gallery):,} images of the gallery show {known[0]!r}; at least "
            "two instances are needed"
        )
    if not set(asked) & set(known):
        raise BadInput(
            f"{subject}: none of the {counted(len(asked), 'query', 'queries')} has an image of its "
            f"instance in the gallery: queries show {some(sorted(set(asked)), 3)}, the gallery "
            f"{some(known, 3)}; name the column of instances with instance=.."
        )


def _split(
    part: str,
    source: Source,
    names: list[str],
    hashes: NDArray[np.uint8],
    rows: NDArray[np.int64],
    number: dict[str, Any],
) -> Split:
    labels = np.asarray([number[name] for name in names], np.int64)
    order = canonical_order(labels, hashes)
    return Split(part, source, labels[order], hashes[order], rows[order])
