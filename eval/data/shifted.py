"""A head fitted on one set, scored on another with the same classes: ``shift:TRAIN=>TEST``.

The task has the first set's training images and the second's test images, so that a protocol for
sets with one label an image, or with several, scores it as any other task; but for few-shot
episodes, which would draw from both parts together. Classes are matched
by name, in any case; names that differ are told apart by a mapping file, ``&map=FILE.csv`` with the
columns ``test`` and ``train``.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eval.common.errors import BadInput, NotFound
from eval.common.files import read_plain
from eval.common.text import some
from eval.data.inventory.facts import Inventory
from eval.data.labels.label_data import LabelSplit
from eval.data.task_data import Split, TaskData, canonical_order, check_split, take
from eval.tasks.names import SHIFT, shift_parts

Load = Callable[[str], TaskData]


def is_shift(text: str) -> bool:
    """Whether a task string names two sets."""
    return text.startswith(SHIFT)


def load_shifted(text: str, load: Load) -> TaskData:
    """The task of a shift. ``load`` finds each of the two sets.

    Raises UserError where they are of different kinds, for classes of test that train has not, and
    for a mapping file that is not one.
    """
    first, second, mapping = shift_parts(text)
    train, test = load(first), load(second)
    subject = f"task {text!r}"
    if train.kind != test.kind or train.kind not in ("classification", "multilabel"):
        raise BadInput(
            f"{subject}: {first!r} is a set of {train.kind} and {second!r} of {test.kind}; a shift "
            "takes two sets of classification, or two of several labels"
        )
    if is_shift(first) or is_shift(second):
        raise BadInput(f"{subject}: a shift has two sets, not three")
    renamed = _mapping(Path(mapping).expanduser(), subject) if mapping else {}
    place = _places(train.classes, test.classes, renamed, subject)
    asked = _renumbered(test.test, place, len(train.classes), subject)
    name = f"{train.name}-on-{test.name}"
    named = [
        f"head fitted on {train.name}, scored on {test.name}; no few-shot, whose episodes would "
        "mix both"
    ]
    if unasked := [c for c, n in enumerate(train.classes) if c not in set(place.tolist())]:
        names = some([train.classes[c] for c in unasked])
        named.append(f"classes of {train.name} that {test.name} has not: {names}")
    notes = (*train.notes, *test.notes, *named)
    inventory = _together(train, test)
    where = f"{SHIFT}{_where(train, first)}=>{_where(test, second)}" + (
        f"&map={Path(mapping).expanduser().resolve()}" if mapping else ""
    )
    return dataclasses.replace(
        train, name=name, where=where, revision="", test=asked, declared=None, notes=notes,
        split="", partial=train.subset or test.subset, own=train.own or test.own,
        limit=train.limit or test.limit, inventory=inventory,
    )  # fmt: skip


def _together(train: TaskData, test: TaskData) -> Inventory:
    """What both sources hold, each with its set's name."""
    parts = [(task.name, task.inventory) for task in (train, test)]
    return Inventory(
        unit=" and ".join(dict.fromkeys(one.unit for _, one in parts if one.unit)),
        found=sum(one.found for _, one in parts),
        taken=sum(one.taken for _, one in parts),
        left_out=tuple(
            dataclasses.replace(left, why=f"{left.why} of {name}")
            for name, one in parts for left in one.left_out
        ),
        said=tuple(f"{name}: {text}" for name, one in parts for text in one.said),
    )  # fmt: skip


def _where(task: TaskData, text: str) -> str:
    """What finds a set again: a declared name, or the place of data of the user's own."""
    return text if task.declared is not None and not task.own else task.where


def _mapping(file: Path, subject: str) -> dict[str, str]:
    """{class of test: class of train}."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_plain(file).decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise BadInput(f"{subject}: {str(file)!r} cannot be read as CSV in UTF-8") from None
    if not rows or not {"test", "train"} <= rows[0].keys():
        raise BadInput(f"{subject}: {str(file)!r} has no columns test and train")
    found = {row["test"].strip(): row["train"].strip() for row in rows}
    if len(found) < len(rows):
        raise BadInput(f"{subject}: {str(file)!r} maps a class of test twice")
    return found


def _places(
    ours: tuple[str, ...], theirs: tuple[str, ...], renamed: dict[str, str], subject: str
) -> np.ndarray:
    """[classes of test] the number in train of each."""
    number = {name.casefold(): i for i, name in enumerate(ours)}
    if len(number) < len(ours):
        number = {name: i for i, name in enumerate(ours)}
    if strange := sorted(set(renamed) - set(theirs)):
        raise NotFound(f"{subject}: the mapping names {strange[0]!r}, which is no class of test")
    wanted = [renamed.get(name, name) for name in theirs]
    found = [number.get(name, number.get(name.casefold(), -1)) for name in wanted]
    if missing := [name for name, place in zip(wanted, found, strict=True) if place < 0]:
        raise BadInput(
            f"{subject}: {len(missing):,} of the {len(theirs):,} classes of test are none of "
            f"train: {some(missing)}; train has {some(list(ours))}; say which is which with "
            "&map=FILE.csv (columns test and train)"
        )
    return np.asarray(found, np.int64)


def _renumbered(split: Split, place: np.ndarray, classes: int, subject: str) -> Split:
    """The second set's test part with the first one's numbers."""
    if isinstance(split, LabelSplit):
        several = np.zeros((len(split), classes), np.bool_)
        for theirs, ours in enumerate(place.tolist()):
            several[:, ours] |= split.several[:, theirs]
        return dataclasses.replace(split, several=several)
    labels = place[split.labels]
    moved = dataclasses.replace(split, labels=labels)
    moved = take(moved, canonical_order(labels, moved.hashes))
    check_split(moved, subject)
    return moved
