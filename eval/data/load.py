"""A task string -> its images in canonical order: the one door to data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from eval.common.errors import UserError
from eval.data.boxes.box_data import DetectionData, limited
from eval.data.declared import load_declared
from eval.data.locations import Data
from eval.data.own import load_own
from eval.data.task_data import Split, TaskData, check_split, take
from eval.data.task_file import read_task_file
from eval.tasks.declaration import SplitRule, Task
from eval.tasks.names import parse_task, split_query
from eval.tasks.registry import TASKS


def load_task(
    text: str, cache: Path, data: Data | None = None, limit: int | None = None, seed: int = 0
) -> TaskData:
    """Find a task's data and put it in canonical order.

    ``data`` is where declared tasks are looked for: DIR/<task>/train-*.parquet and test-*.parquet,
    or the Hub. A scan of the images is remembered in ``cache`` by file name, size and time, so that
    a second call reads no image.
    ``limit`` keeps at most that many images of each split, balanced over classes; of a detection
    task those with boxes first. Raises UserError for anything wrong with the data.
    """
    parsed = parse_task(text)
    if parsed.kind == "declared":
        task = load_declared(TASKS[parsed.value], parsed.split, cache, data)
    elif parsed.kind == "file":
        task = load_task_file(parsed.value, cache, seed)
    else:
        task = load_own(parsed, text, cache, seed)
    return _limited(task, limit) if limit is not None else task


def _limited(task: TaskData, limit: int) -> TaskData:
    """At most ``limit`` images of each split, one class after the other, in canonical order; of a
    detection task those with boxes first."""
    if limit < 1:
        raise UserError(f"--limit must be at least 1, got {limit}")
    if task.kind == "detection":
        assert isinstance(task, DetectionData)
        return limited(task, limit)

    def cut(split: Split) -> Split:
        place = np.zeros(len(split), np.int64)  # an image's place within its class
        for label in np.unique(split.labels):
            rows = np.flatnonzero(split.labels == label)
            place[rows] = np.arange(len(rows))
        keep = np.lexsort((split.labels, place))[:limit]
        return take(split, np.sort(keep))

    train, test = cut(task.train), cut(task.test)
    for split in (train, test):
        check_split(split, f"{task.name} with --limit {limit}")
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    note = f"limited to {limit} images a split"
    return dataclasses.replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))


def load_task_file(text: str, cache: Path, seed: int) -> TaskData:
    """The data that a task file names, checked against what it says of them."""
    path = Path(text).expanduser()
    facts = read_task_file(path)
    found = load_task(_absolute(facts.source, path), cache, seed=seed)
    what = f"task file {text!r}"
    if facts.classes is not None and set(facts.classes) != set(found.classes):
        unlike = sorted(set(facts.classes) ^ set(found.classes))
        raise UserError(
            f"{what}: classes differ from those of the data in {', '.join(map(repr, unlike[:5]))}"
        )
    for part in (found.train, found.test):
        promised = getattr(facts, part.name)
        if promised is not None and promised != len(part):
            raise UserError(
                f"{what}: {part.name} = {promised:,}, but the data have {len(part):,} images there"
            )
    task = Task(
        facts.name,
        facts.title or facts.name,
        facts.domain,
        classes=len(found.classes),
        images=len(found.train) + len(found.test),
        licence=facts.licence,
        citation=facts.citation,
        splits=(SplitRule("own", "official", len(found.train), len(found.test)),),
        home=facts.home,
        note=facts.note,
        metric="mAP" if found.kind == "detection" else "top1",
        kind=found.kind,
    )
    return dataclasses.replace(found, name=facts.name, where=str(path.resolve()), declared=task)


def _absolute(source: str, file: Path) -> str:
    """The task string with its path seen from the file's folder."""
    prefix, _, rest = source.partition(":")
    if prefix == "hub":
        return source
    path, options = (rest, "") if prefix == "imagefolder" else split_query(rest)
    try:
        place = file.resolve().parent / Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise UserError(f"task file {str(file)!r}: source = {source!r}: {error}") from None
    return f"{prefix}:{place}" + (f"?{options}" if options else "")
