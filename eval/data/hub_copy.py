"""Somebody else's copy of a declared data set on the Hub, held against the declaration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from eval.common.errors import BadInput, Conflict
from eval.data.located import Located, Parts, Whole
from eval.data.sources import HubSource, ParquetSource
from eval.data.task_data import TaskData
from eval.data.whole_split import OfficialOrder
from eval.hub import client
from eval.tasks.declaration import HubCopy, SplitRule, Task

ROW_ORDER = "split in the row order of this copy, so not the study's very split"


def locate(task: Task, split: str, revision: str) -> Located:
    """Somebody else's copy: pooled and split by the rule, or in the authors' parts. Raises
    UserError where none is known, it has moved, or it cannot give the split."""
    copy, subject = task.hub, f"task {task.name!r}"
    if copy is None:
        raise BadInput("no copy on the Hub is known")
    rule = task.split_named(split)
    if rule.rule == "groups" and not copy.group:
        others = [s.name for s in task.splits if s.rule != "groups"]
        raise BadInput(
            f"copy {copy.repo!r} of {task.name!r} does not say which images belong together, so it "
            f"cannot give split {rule.name!r}; name the task as {task.name}@{others[0]}"
        )
    sha = _commit(copy, revision)
    images: Parts | Whole
    notes: tuple[str, ...] = ()
    if rule.rule == "official":
        images = Parts(_read(copy, sha, copy.train), _read(copy, sha, copy.test))
    else:
        source = _read(copy, sha, copy.parts)
        group = copy.group if rule.rule == "groups" else ""
        order = OfficialOrder(source, copy.name, as_text=True, group=group)
        images = Whole(source, order, tuple(f"class {i}" for i in range(task.classes)))
        notes = () if copy.name else (ROW_ORDER,)
    return Located(
        task.name, f"hub:{copy.repo}", sha, subject, images, classes=task.class_names,
        declared=task,
        checks=(partial(_check_copy, task, rule, copy),), split=rule.name, notes=notes,
    )  # fmt: skip


def _read(copy: HubCopy, sha: str, parts: Sequence[str]) -> HubSource | ParquetSource:
    """Some of the copy's splits, one after the other."""
    if not copy.files:
        config = copy.config or None
        split = "+".join(parts)
        return HubSource(copy.repo, sha, config, split, copy.image, copy.label, copy.single_of)
    # Its commit names no splits: the files are taken as they are.
    patterns = [copy.files.format(part=part) for part in parts]
    folder = client.snapshot(copy.repo, sha, tuple(patterns), f"data set {copy.repo!r}")
    files = tuple(file for pattern in patterns for file in sorted(folder.glob(pattern)))
    if not files:
        raise BadInput(f"{copy.repo!r} has no files {', '.join(patterns)} at {sha[:12]}")
    return ParquetSource(files, copy.image, copy.label)


def _commit(copy: HubCopy, revision: str) -> str:
    """The copy's commit. Where only seven digits are known, main must still be there."""
    what = f"data set {copy.repo!r}"
    if revision or len(copy.revision) == 40:
        return client.pin(copy.repo, revision or copy.revision, "dataset", what).sha
    sha = client.pin(copy.repo, None, "dataset", what).sha
    if not sha.startswith(copy.revision):
        raise Conflict(
            f"{copy.repo!r} has moved on to commit {sha[:12]} since it was declared at "
            f"{copy.revision}"
        )
    return sha


def _check_copy(task: Task, rule: SplitRule, copy: HubCopy, found: TaskData) -> None:
    """Raises UserError where a copy is not the declared set."""
    for number, (ours, theirs) in enumerate(
        zip(task.class_names, found.classes, strict=False) if _named(found.classes) else ()
    ):
        if _plain(ours) != _plain(theirs):
            raise BadInput(
                f"copy {copy.repo!r} of {task.name!r} calls class {number} {theirs!r} where the "
                f"set has {ours!r}"
            )
    if len(found.classes) != task.classes:
        raise BadInput(
            f"copy {copy.repo!r} of {task.name!r} has {len(found.classes)} classes, not "
            f"{task.classes}"
        )
    for part, declared in ((found.train, rule.train), (found.test, rule.test)):
        if declared and len(part) != declared:
            raise BadInput(
                f"copy {copy.repo!r} of {task.name!r} has {len(part):,} images in {part.name}, "
                f"not {declared:,}"
            )
    total = len(found.train) + len(found.test)
    if total != task.images:
        raise BadInput(
            f"copy {copy.repo!r} of {task.name!r} has {total:,} images, not {task.images:,}"
        )


def _named(classes: Sequence[str]) -> bool:
    return not all(re.fullmatch(r"class \d+|\d+", name) for name in classes)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
