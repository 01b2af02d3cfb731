"""A declared task -> its data, refused where they are not what the declaration promises.

Three places hold them: a folder that ``transfer-eval prepare`` made (or a known smaller copy), a
repository of the Hub that was made of such a folder, or somebody else's copy on the Hub that the
declaration names. The same images give the same split hash from any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.data.hub_copy import load_copy
from eval.data.locations import Data, HubData, how_to_get
from eval.data.manifest import MANIFEST, Manifest, read_manifest
from eval.data.sources import ParquetSource
from eval.data.task_data import Split, TaskData, assemble, joined, parquet_pair, resplit
from eval.hub import client
from eval.tasks.declaration import SUBSET, Task
from eval.tasks.names import TaskName


def load_declared(task: Task, split: str, cache: Path, data: Data | None) -> TaskData:
    """Find the data of a declared task. ``split`` is '' for the default.

    Raises UserError where they are missing, or are not what was declared.
    """
    if task.embedded:
        return _embedded(task, cache)
    if isinstance(data, Path):
        folder = _folder(task, data)
        return _prepared(task, split, folder, str(folder.resolve()), "", cache)
    if data is not None and data.owner:
        return _mirror(task, split, cache, data)
    if task.kind == "detection":
        raise UserError(
            f"task {task.name!r} is not at hand: the form of the boxes in other people's copies on "
            f"the Hub is not checked, so none is used; {how_to_get(task)}"
        )
    try:
        return load_copy(task, split, cache, data.revision if data else "")
    except UserError as why:
        cure = how_to_get(dataclasses.replace(task, hub=None))
        raise UserError(f"task {task.name!r} is not at hand: {why}; {cure}") from None


def _embedded(task: Task, cache: Path) -> TaskData:
    from eval.mini.factors import MINI_VERSION
    from eval.mini.suite import write_task

    folder = cache / "mini" / f"v{MINI_VERSION}" / task.name
    if not (folder / "test-00000-of-00001.parquet").is_file():
        write_task(task.name, folder)
    train, test = parquet_pair(folder, TaskName("declared", task.name))
    where = f"mini v{MINI_VERSION}"
    found = assemble(task.name, where, "", train, test, cache, f"task {task.name!r}")
    return dataclasses.replace(found, declared=task)


def _folder(task: Task, data: Path) -> Path:
    if not data.is_dir():
        raise UserError(f"--data {str(data)!r} does not exist or is no directory")
    folder = data / task.name
    if not folder.is_dir():
        have = sorted(p.name for p in data.iterdir() if p.is_dir())
        raise UserError(
            f"--data {str(data)!r} has no folder {task.name!r}; it holds "
            f"{', '.join(have[:20]) or 'no folders'}; {how_to_get(task)}"
        )
    return folder


# --------------------------------------------------------------------------- prepared folders


def _prepared(
    task: Task, split: str, folder: Path, where: str, revision: str, cache: Path
) -> TaskData:
    what = f"task {task.name!r}"
    train, test = parquet_pair(folder, TaskName("declared", task.name))
    manifest = read_manifest(folder)
    found: TaskData
    if task.kind == "detection":
        found = _with_boxes(task, where, revision, train, test, cache)
    else:
        found = assemble(task.name, where, revision, train, test, cache, what)
    found = dataclasses.replace(found, declared=task)
    if manifest is None:
        return _known_subset(task, split, found, folder)
    if manifest.task != task.name:
        raise UserError(f"{folder / MANIFEST} is about {manifest.task!r}, not {task.name!r}")
    _check(found, manifest, manifest.default, folder)
    if not manifest.partial:
        _check_whole(task, manifest, folder)
    wanted = split or manifest.default
    if wanted != manifest.default:
        rule = task.split_named(wanted)
        if manifest.partial:
            raise UserError(
                f"{folder} lacks images of {task.name!r}, so that it has its {manifest.default!r} "
                f"split alone, not {wanted!r}; complete the download and prepare it again"
            )
        source = ParquetSource((*train.files, *test.files))
        order = np.argsort(np.asarray(source.column("position")), kind="stable")
        groups = source.column("group") if rule.rule == "groups" else None
        whole = joined(found.train, found.test, source)  # its images were read for the default
        new_train, new_test = resplit(whole, order, groups, what)
        found = dataclasses.replace(found, train=new_train, test=new_test)
        _check(found, manifest, wanted, folder)
    notes = (*found.notes, _incomplete(manifest)) if manifest.partial else found.notes
    return dataclasses.replace(found, split=wanted, partial=manifest.partial, notes=notes)


VOC_RULES = ("voc2007", "voc0712")  # scored by the rules of PASCAL VOC as well


def _with_boxes(
    task: Task, where: str, revision: str, train: ParquetSource, test: ParquetSource, cache: Path
) -> TaskData:
    """Raises UserError also where the files name other classes than the declaration."""
    from eval.data.boxes.assemble import assemble_boxes
    from eval.data.boxes.parquet import ParquetBoxes

    what, ours = f"task {task.name!r}", task.class_names
    parts = ParquetBoxes(train), ParquetBoxes(test)
    voc = task.name in VOC_RULES
    found = assemble_boxes(task.name, where, revision, *parts, cache, what, ours, voc)
    if ours and found.classes != ours:
        raise UserError(
            f"{train.files[0].parent} has the classes {_few(found.classes)} where {task.name!r} "
            f"has {_few(ours)}"
        )
    return found


def _known_subset(task: Task, split: str, found: TaskData, folder: Path) -> TaskData:
    known = task.subset
    if known is None or found.split_hash != known.split_hash:
        raise UserError(
            f"{folder} is no copy of {task.name!r} that is known: {_unlike(task, found)}; "
            f"{_make_one(task)}score it under a name of its own as parquet:{folder}"
        )
    if split:
        raise UserError(
            f"{folder} is a known smaller copy of {task.name!r} with a split of its own, so "
            f"there is no {split!r}; name the task without @{split}"
        )
    return dataclasses.replace(found, split=SUBSET, partial=True)


def _make_one(task: Task) -> str:
    if task.kind == "detection" and not task.preparable:
        return ""
    return f"make one with `transfer-eval prepare {task.name}`, or "


def _unlike(task: Task, found: TaskData) -> str:
    """In what the data differ from what could be expected."""
    have = f"{len(found.classes)} classes, {len(found.train):,} train and {len(found.test):,} test"
    if (known := task.subset) and known.split_hash:
        if (known.classes, known.train, known.test) == (
            len(found.classes), len(found.train), len(found.test)
        ):  # fmt: skip
            return f"the counts ({have}) are those of the known copy, but not the images"
        return (
            f"it has {have} images where the known copy has {known.classes} classes, "
            f"{known.train:,} and {known.test:,}, and no {MANIFEST}"
        )
    return f"it has {have} images and no {MANIFEST}"


def _check(found: TaskData, manifest: Manifest, split: str, folder: Path) -> None:
    """Raises UserError where the images are not those that were frozen."""
    if split not in manifest.splits:
        have = ", ".join(manifest.splits)
        raise UserError(f"{folder / MANIFEST} freezes no split {split!r}, only {have}")
    facts = manifest.splits[split]
    if found.split_hash == facts.split_hash and list(found.classes) == manifest.classes:
        return
    raise UserError(
        f"{folder} is not what its {MANIFEST} froze: "
        f"{_difference(found, manifest, split, folder)}; prepare the set again, or score it under "
        f"a name of its own as parquet:{folder}"
    )


def _difference(found: TaskData, manifest: Manifest, split: str, folder: Path) -> str:
    """The first thing that differs, from the coarse to the fine."""
    if list(found.classes) != manifest.classes:
        return f"its classes are {_few(found.classes)}, not {_few(manifest.classes)}"
    for part in (found.train, found.test):
        facts = manifest.splits[split].parts[part.name]
        have = _counts(part, len(found.classes))
        unlike = [
            f"{found.classes[c]!r} {have[c]:,}, not {n:,}"
            for c, n in enumerate(facts.per_class) if have[c] != n
        ]  # fmt: skip
        if unlike and found.kind == "detection":
            total = sum(facts.per_class)
            return f"{sum(have):,} boxes in {part.name}, not {total:,} ({_few(unlike)})"
        if unlike:
            return f"{len(part):,} images in {part.name}, not {facts.images:,} ({_few(unlike)})"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_file(path) != file.sha256:
            return f"{name} has other bytes"
    return f"the split hash is {found.split_hash[:12]}, not the frozen one"


def _counts(part: Split, classes: int) -> list[int]:
    """Images by class; of a detection set boxes, as they are stored."""
    from eval.data.boxes.parquet import ParquetBoxes

    labels = part.labels
    if isinstance(part.source, ParquetBoxes):
        labels = part.source.annotations().labels
    return np.bincount(labels, minlength=classes).tolist()


def _few(values: Sequence[str], most: int = 4) -> str:
    more = f", and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _check_whole(task: Task, manifest: Manifest, folder: Path) -> None:
    """Raises UserError where a set that calls itself whole is not the declared one."""
    for rule in task.splits:
        facts = manifest.splits.get(rule.name)
        if facts is None:
            continue
        have = tuple(facts.parts[p].images for p in ("train", "test"))
        declared = (rule.train, rule.test)
        if all(declared) and have != declared:
            raise UserError(
                f"{folder} has {have[0]:,} train and {have[1]:,} test images in split "
                f"{rule.name!r} of {task.name!r} where {rule.train:,} and {rule.test:,} are "
                "declared: another version of the set; prepare the declared one"
            )
        if rule.members and facts.members != rule.members:
            raise UserError(
                f"{folder} has other images in train and test than split {rule.name!r} of "
                f"{task.name!r} (members {facts.members[:12]}, declared {rule.members[:12]}); "
                "prepare the set again"
            )
    if task.class_names and tuple(manifest.classes) != task.class_names:
        raise UserError(
            f"{folder} has the classes {_few(manifest.classes)} where {task.name!r} has "
            f"{_few(task.class_names)}; prepare the set again"
        )


def _incomplete(manifest: Manifest) -> str:
    lost = len(manifest.missing) + len(manifest.unreadable)
    if not lost:
        return "part of the official set"
    images = "1 image is" if lost == 1 else f"{lost:,} images are"
    return f"{images} missing of the official set"


# --------------------------------------------------------------------------- the Hub


def _mirror(task: Task, split: str, cache: Path, data: HubData) -> TaskData:
    """A repository that ``prepare --push-to`` made: its files are read as those of a folder."""
    repo, what = f"{data.owner}/{task.name}", f"task {task.name!r}"
    pin = client.pin(repo, data.revision or None, "dataset", what, (MANIFEST,))
    folder = client.snapshot(pin.repo, pin.sha, ("*.parquet", MANIFEST), what)
    client.remember(repo, data.revision or None, pin.sha, "dataset")
    return _prepared(task, split, folder, f"hub:{pin.repo}", pin.sha, cache)
