"""An official download -> one folder of Parquet files with a manifest, or a reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.data.manifest import (
    MANIFEST,
    Manifest,
    PartFacts,
    SplitFacts,
    read_manifest,
    write_manifest,
)
from eval.data.sources import HASH_BYTES
from eval.data.split_rules import by_groups, members, per_class
from eval.data.task_data import hash_parts
from eval.prepare.archives import Download
from eval.prepare.layouts import LAYOUTS
from eval.prepare.layouts.masks import MASK_LAYOUTS
from eval.prepare.listing import Box, Item, Listing
from eval.prepare.write import Row, Schema, Written, forget, write_shards
from eval.tasks.declaration import SplitRule, Task
from eval.tasks.registry import TASKS

Flag = Literal["", "difficult", "iscrowd"]
_FLAGS: dict[str, Flag] = {"voc0712": "difficult", "coco2017": "iscrowd"}


@dataclass(frozen=True)
class Prepared:
    """A folder that every run can use."""

    folder: Path
    manifest: Manifest
    fresh: bool  # made now, not found


def preparable(name: str) -> Task:
    """The declared task. Raises UserError for one that has no official layout."""
    if name in LAYOUTS:
        return TASKS[name]
    known = ", ".join([*LAYOUTS, *MASK_LAYOUTS])
    if name in TASKS:
        raise BadInput(f"task {name!r} has no official download that is known; known: {known}")
    raise NotFound(
        f"unknown task {name!r}" + did_you_mean(name, [*LAYOUTS, *MASK_LAYOUTS], f"known: {known}")
    )


def prepare(
    name: str,
    source: Path,
    out: Path,
    *,
    partial: bool = False,
    decode: bool = False,
    processes: int = 1,
) -> Prepared:
    """Write OUT/NAME from the official download under ``source``.

    What was begun is gone on with, what is there is left alone. Raises UserError for a download
    that is of another task or version, damaged, or (without ``partial``) not complete.
    """
    task = preparable(name)
    folder = out / task.name
    if (there := read_manifest(folder)) is not None:
        return Prepared(folder, there, False)
    download = Download.open(source)
    listing = LAYOUTS[name](download, task.class_names)
    _check_version(task, listing, source)
    missing = [item.name for item in listing.items if item.entry is None]
    fewer = task.images - len(_used(listing.items))
    if (missing or fewer > 0) and not partial:
        raise BadInput(_incomplete(task, listing, missing, fewer, source))
    parts = {rule.name: assign(rule, listing.items) for rule in task.splits}
    default = task.splits[0].name
    rows = [
        Row(item, part, position)
        for position, (item, part) in enumerate(zip(listing.items, parts[default], strict=True))
        if item.entry is not None
    ]
    schema = Schema(
        task.class_names,
        detection=task.kind == "detection",
        flag=_FLAGS.get(name, ""),
        group=any(item.group for item in listing.items),
    )
    written = write_shards(
        download, rows, folder, schema, processes=processes, decode=decode, title=f"prepare {name}"
    )
    if written.unreadable and not partial:
        bad = [f"{listing.items[p].name} ({why})" for p, why in written.unreadable.items()]
        raise BadInput(
            f"{len(bad):,} images of {task.name!r} cannot be read: {_few(bad)}; download them "
            f"again (and remove {folder}), or give --partial to go on without them (results will "
            "be marked a subset)"
        )
    manifest = _manifest(task, listing, parts, written, download, partial)
    if not manifest.partial:
        _check_members(task, manifest)
    write_manifest(folder, manifest)
    forget(folder)
    return Prepared(folder, manifest, True)


def assign(rule: SplitRule, items: Sequence[Item]) -> list[str]:
    """The part of each item of the whole official list, 'train' or 'test' (or one unused)."""
    if rule.rule == "official":
        return [item.part for item in items]
    labels = [item.label for item in items]
    if rule.rule == "groups":
        in_train = by_groups(labels, [item.group or item.name for item in items])
    else:
        in_train = per_class(labels)
    return ["train" if chosen else "test" for chosen in in_train]


# --------------------------------------------------------------------------- the right download?


def _used(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.part != "validation"]


def _check_version(task: Task, listing: Listing, source: Path) -> None:
    """Raises UserError where there is more than the declared set has: another version of it."""
    items = _used(listing.items)
    wrong: list[str] = []
    if task.per_class and task.kind == "classification":
        have = np.bincount([item.label for item in items], minlength=task.classes).tolist()
        wrong = [
            f"class {task.class_names[c]!r} has {have[c]:,}, not {n:,}"
            for c, n in enumerate(task.per_class)
            if have[c] > n
        ]
    if not wrong and len(items) > task.images:
        wrong = [f"{len(items):,} images, not {task.images:,}"]
    rule = next((s for s in task.splits if s.rule == "official"), None)
    for part in ("train", "test"):
        declared = getattr(rule, part, 0)
        have_part = sum(item.part == part for item in items)
        if not wrong and declared and have_part > declared:
            wrong = [f"{have_part:,} images in {part}, not {declared:,}"]
    if wrong:
        raise BadInput(
            f"{source} holds another version of {task.name!r}: {_few(wrong)}; get {task.download}"
        )


def _incomplete(
    task: Task, listing: Listing, missing: Sequence[str], fewer: int, source: Path
) -> str:
    total = len(listing.items)
    said = f"{len(missing):,} of the {total:,} images listed are not there ({_few(missing)})"
    if not missing:
        total = len(_used(listing.items))
        said = f"{total:,} images are there, {fewer:,} fewer than the {task.images:,} of the set"
    return (
        f"the download of {task.name!r} under {source} is not complete: {said}; complete it, or "
        "give --partial to go on with what is there (results will be marked a subset)"
    )


def _check_members(task: Task, manifest: Manifest) -> None:
    for rule in task.splits:
        have = manifest.splits[rule.name]
        if rule.members and have.members != rule.members:
            raise BadInput(
                f"the images of {task.name!r} bear other names than the official ones, so split "
                f"{rule.name!r} is not the declared one; get {task.download}"
            )


# --------------------------------------------------------------------------- the manifest


def _manifest(
    task: Task,
    listing: Listing,
    parts: Mapping[str, Sequence[str]],
    written: Written,
    download: Download,
    partial: bool,
) -> Manifest:
    items = listing.items
    kept = sorted(written.hashes)
    hashes = np.frombuffer(b"".join(written.hashes[p] for p in kept), np.uint8)
    hashes = hashes.reshape(len(kept), HASH_BYTES)
    labels = np.asarray([_label(items[p]) for p in kept], np.int64)
    splits = {
        name: _facts(task, [items[p] for p in kept], [chosen[p] for p in kept], labels, hashes)
        for name, chosen in parts.items()
    }
    missing = [item.name for item in items if item.entry is None]
    unreadable = {items[p].name: why for p, why in written.unreadable.items()}
    used = sum(len(_used([items[p]])) for p in kept)
    default = parts[task.splits[0].name]
    return Manifest(
        manifest_version=1,
        task=task.name,
        classes=list(task.class_names),
        default=task.splits[0].name,
        splits=splits,
        files=written.files,
        partial=partial and (bool(missing or unreadable) or used < task.images),
        missing=missing,
        unreadable=unreadable,
        strangers=len(listing.strangers),  # files of the user's: their names are no one's business
        duplicates=duplicates(items, default, written.hashes),
        notes=list(listing.notes),
        source=download.sources(),
        made_with=f"transferzoo {version('transferzoo')}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _facts(
    task: Task,
    items: Sequence[Item],
    parts: Sequence[str],
    labels: NDArray[np.int64],
    hashes: NDArray[np.uint8],
) -> SplitFacts:
    facts = {}
    arrays = {}
    for name in ("train", "test"):
        rows = np.asarray([i for i, part in enumerate(parts) if part == name], np.int64)
        arrays[name] = (labels[rows], hashes[rows])
        counted = (
            [box.category for i in rows for box in items[i].boxes or ()]
            if task.kind == "detection"
            else labels[rows]
        )
        counts = np.bincount(np.asarray(counted, np.int64), minlength=task.classes)
        facts[name] = PartFacts(images=len(rows), per_class=counts.tolist())
    who = ((part, stem(item.name)) for part, item in zip(parts, items, strict=True))
    return SplitFacts(
        parts=facts,
        members=members((part, name) for part, name in who if part in facts),
        split_hash=hash_parts(arrays["train"], arrays["test"], task.classes),
    )


def stem(name: str) -> str:
    """An official name without its suffix: copies differ in that."""
    return str(PurePosixPath(name).with_suffix(""))


def _label(item: Item) -> int:
    """What stands for the answer in the split hash: the label; of boxes, a hash."""
    if item.boxes is None:
        return item.label
    digest = hashlib.sha256(repr([_numbers(box) for box in item.boxes]).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _numbers(box: Box) -> tuple[object, ...]:
    """A box as the Parquet files hold it, in single precision."""
    place = [float(np.float32(v)) for v in (box.x, box.y, box.width, box.height, box.area)]
    return (*place, box.category, box.difficult or box.crowd)


def duplicates(
    items: Sequence[Item], parts: Sequence[str], hashes: Mapping[int, bytes]
) -> dict[str, list[list[str]]]:
    """Groups of byte-equal images by where they stand: 'within train', 'train and test', ..."""
    places: dict[bytes, list[int]] = {}
    for position, key in sorted(hashes.items()):
        places.setdefault(key, []).append(position)
    found: dict[str, list[list[str]]] = {}
    for group in places.values():
        if len(group) > 1:
            sides = sorted({parts[p] for p in group}, reverse=True)  # train, test
            where = f"within {sides[0]}" if len(sides) == 1 else " and ".join(sides)
            found.setdefault(where, []).append([items[p].name for p in group])
    return found


def _few(values: Sequence[str], most: int = 3) -> str:
    more = f", and {len(values) - most:,} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def report(done: Prepared) -> list[str]:
    """What the command prints, line by line."""
    manifest, task = done.manifest, TASKS[done.manifest.task]
    lines = []
    if not done.fresh:
        lines.append(
            f"{done.folder} is prepared already ({manifest.created}); remove it to prepare it again"
        )
    for name, split in manifest.splits.items():
        sizes = ", ".join(f"{part.images:,} {side}" for side, part in split.parts.items())
        default = " (default)" if name == manifest.default else ""
        rule = task.split_named(name)
        official = f"; declared {rule.train:,} and {rule.test:,}" if rule.train else ""
        lines.append(f"split {name}{default}: {sizes}{official}; hash {split.split_hash[:12]}")
    lines += _unequal(task, manifest)
    for what, names in (
        ("missing", manifest.missing),
        ("unreadable", [f"{n} ({why})" for n, why in manifest.unreadable.items()]),
    ):
        if names:
            lines.append(f"{len(names):,} {what}: {_few(names)}")
    if manifest.strangers:
        lines.append(f"{manifest.strangers:,} files on no official list, left out")
    for where, groups in manifest.duplicates.items():
        lines.append(
            f"{len(groups):,} pictures stand more than once {where}, byte for byte: "
            + _few([" = ".join(group) for group in groups])
        )
    lines += [f"note: {note}" for note in manifest.notes]
    if manifest.partial:
        lines.append("not complete: results on it are marked as on a subset")
    lines.append(f"All of it is in {done.folder / MANIFEST}")
    return lines


def _unequal(task: Task, manifest: Manifest) -> list[str]:
    """Classes whose number of images is not the official one."""
    if not task.per_class or task.kind == "detection":
        return []
    parts = manifest.splits[manifest.default].parts.values()
    have = np.sum([part.per_class for part in parts], axis=0).tolist()
    return [
        f"class {task.class_names[c]}: {have[c]:,} images, official {n:,}"
        for c, n in enumerate(task.per_class)
        if have[c] != n
    ]
