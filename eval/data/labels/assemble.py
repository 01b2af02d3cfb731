"""Sources with several labels an image -> two parts in canonical order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.common.text import some
from eval.data.joined_source import Joined
from eval.data.labels.label_data import LabelSplit
from eval.data.labels.stored import LabelScan, LabelSource, answer, remembered_labels
from eval.data.sources import as_keys
from eval.data.task_data import canonical_order, take
from eval.data.whole_split import AsGiven, Drawn, WholeGroups


@dataclass(frozen=True)
class LabelParts:
    """Where the images and labels of a multi-label task lie. Without ``test`` a rule splits
    ``train``, of which ``held`` are then the rows that settings are chosen on."""

    train: LabelSource
    test: LabelSource | None = None
    rule: Drawn | WholeGroups | AsGiven | None = None
    held: tuple[bool, ...] = ()  # by row of a source that is split
    validation: LabelSource | None = None  # beside a test: joins train; settings are chosen on it


@dataclass(frozen=True)
class LabelSplits:
    """Both parts in canonical order."""

    labels: tuple[str, ...]
    train: LabelSplit
    test: LabelSplit
    notes: tuple[str, ...]
    deep: NDArray[np.void]  # hashes of the images of more than 8 bits
    validation: NDArray[np.void] | None
    said: tuple[str, ...]  # what was decided about values, for the inventory


def assemble_labels(images: LabelParts, cache: Path, subject: str) -> LabelSplits:
    """Scan, order and check all parts; a validation joins train.

    The labels are those that the source declares, else all that occur. Raises UserError for a part
    without an image, for fewer than two labels, and for a part whose images all have the same.
    """
    every = (("train", images.train), ("test", images.test), ("validation", images.validation))
    sources = [(part, source) for part, source in every if source]
    scans = [remembered_labels(source, cache) for _, source in sources]
    for (part, _), scan in zip(sources, scans, strict=True):
        if not scan.sets:
            raise BadInput(f"{subject}: the {part} split is empty")
    declared = [scan.names for scan in scans if scan.names]
    if len(set(declared)) > 1:
        raise BadInput(f"{subject}: its parts declare different label names")
    by_name = [[_named(scan, labels, subject) for labels in scan.sets] for scan in scans]
    names = (
        declared[0] if declared else tuple(sorted({n for sets in by_name for s in sets for n in s}))
    )
    if len(names) < 2:
        raise BadInput(f"{subject}: {len(names)} label; at least two are needed")
    parts = [
        _split(part, source, scan, sets, names)
        for (part, source), scan, sets in zip(sources, scans, by_name, strict=True)
    ]
    validation = None
    if images.rule is None:
        train, test, *held = parts
        for part_ in held:
            train, validation = _joined(train, part_), part_.keys
    else:
        whole = dataclasses.replace(parts[0], labels=np.zeros(len(parts[0]), np.int64))
        in_train = images.rule.in_train(whole)
        if in_train.all() or not in_train.any():
            raise BadInput(f"{subject}: {len(whole)} images are too few to be split")
        train = take(parts[0], np.flatnonzero(in_train), "train")
        test = take(parts[0], np.flatnonzero(~in_train), "test")
        if any(images.held):
            validation = parts[0].keys[np.asarray(images.held, np.bool_)[parts[0].rows]]
    for part_ in (train, test):
        if not (part_.several.any(0) & ~part_.several.all(0)).any():
            raise BadInput(
                f"{subject}: no label of {part_.name} is on some images and not on others"
            )
    deep = np.concatenate([as_keys(scan.hashes[scan.deep]) for scan in scans])
    said = tuple(dict.fromkeys(sentence for scan in scans for sentence in scan.said))
    notes = tuple(_notes(train, test, names))
    return LabelSplits(names, train, test, notes, deep, validation, said)


def _joined(train: LabelSplit, held: LabelSplit) -> LabelSplit:
    """Train with the part that settings are chosen on, in canonical order."""
    both = {
        name: np.concatenate([getattr(train, name), getattr(held, name)])
        for name in LabelSplit.BY_IMAGE
    }
    both["rows"][len(train) :] += len(train)
    order = canonical_order(both["labels"], both["hashes"])
    source = Joined(train.source, held.source, len(train))
    return LabelSplit("train", source, **{name: values[order] for name, values in both.items()})


def _named(scan: LabelScan, labels: tuple[Any, ...], subject: str) -> tuple[str, ...]:
    if not scan.names:
        return tuple(map(str, labels))
    for label in labels:
        known = label in scan.names if isinstance(label, str) else 0 <= label < len(scan.names)
        if not known:
            raise BadInput(
                f"{subject}: label {label!r} is none of the {len(scan.names)} that the source "
                "declares"
            )
    return tuple(label if isinstance(label, str) else scan.names[label] for label in labels)


def _split(
    part: str,
    source: LabelSource,
    scan: LabelScan,
    sets: list[tuple[str, ...]],
    names: tuple[str, ...],
) -> LabelSplit:
    place = {name: i for i, name in enumerate(names)}
    several = np.zeros((len(sets), len(names)), np.bool_)
    for row, labels in enumerate(sets):
        several[row, [place[name] for name in labels]] = True
    answers = np.asarray([answer(labels) for labels in sets], np.int64)
    order = canonical_order(answers, scan.hashes)
    return LabelSplit(
        part, source, answers[order], scan.hashes[order], order, several=several[order]
    )


def _notes(train: LabelSplit, test: LabelSplit, names: tuple[str, ...]) -> list[str]:
    notes = []
    for part, others in ((train, test), (test, train)):
        bare = np.flatnonzero(~part.several.any(0) & others.several.any(0))
        gone = [names[label] for label in bare.tolist()]
        if gone:
            notes.append(f"labels that no image of {part.name} has: {some(gone)}")
    return notes
