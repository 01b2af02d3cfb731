"""A declared task -> where its data lie and what they are held against.

Three places hold them: a folder that ``transfer-eval prepare`` made (or a known smaller copy), a
repository of the Hub that was made of such a folder, or somebody else's copy on the Hub that the
declaration names. The same images give the same split hash from any of them.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError
from eval.common.files import (
    MOST_JSON,
    cache_errors,
    locked,
    read_plain,
    say_damaged,
    sha256_file,
    write_json,
)
from eval.data import expected, hub_copy, own_masks
from eval.data.boxes.assemble import BoxParts
from eval.data.boxes.parquet import ParquetBoxes
from eval.data.located import Check, Located, Parts, Resplit
from eval.data.locations import Data, HubData, how_to_get
from eval.data.manifest import MANIFEST, Manifest, read_manifest
from eval.data.masks.assemble import MaskParts
from eval.data.shards import parquet_pair
from eval.data.sources import ParquetSource
from eval.data.whole_split import OfficialOrder
from eval.hub import client
from eval.tasks.declaration import SUBSET, Task

VOC_RULES = ("voc2007", "voc0712")  # scored by the rules of PASCAL VOC as well

_SUMS = "sums.json"  # of a drawn task in the cache: its files' sha256


def locate(task: Task, split: str, cache: Path, data: Data | None) -> Located:
    """Find the data of a declared task. ``split`` is '' for the default.

    Raises UserError where they are missing.
    """
    if task.embedded:
        return _embedded(task, cache)
    if isinstance(data, Path):
        folder = _folder(task, data)
        return _prepared(task, split, folder, str(folder.resolve()), "")
    if data is not None and data.owner:
        return _mirror(task, split, data)
    if task.kind != "classification":
        what = {"detection": "boxes", "segmentation": "masks"}.get(task.kind, "labels")
        raise BadInput(
            f"task {task.name!r} is not at hand: the form of the {what} in other people's copies "
            f"on the Hub is not checked, so none is used; {how_to_get(task)}"
        )
    cure = how_to_get(dataclasses.replace(task, hub=None))
    try:
        copy = hub_copy.locate(task, split, data.revision if data else "")
    except UserError as why:
        raise BadInput(f"task {task.name!r} is not at hand: {why}; {cure}") from None
    return dataclasses.replace(copy, cure=cure)


def _embedded(task: Task, cache: Path) -> Located:
    from eval.mini.factors import MINI_VERSION
    from eval.mini.suite import write_task

    folder = cache / "mini" / f"v{MINI_VERSION}" / task.name
    if not _is_whole(folder):
        with cache_errors(cache, f"task {task.name!r}"), locked(cache / "locks" / "mini.lock"):
            if not _is_whole(folder):  # else another process was faster
                if (folder / _SUMS).exists():
                    say_damaged(folder)
                write_task(task.name, folder)
                sums = {path.name: sha256_file(path) for path in folder.glob("*.parquet")}
                write_json(folder / _SUMS, sums)
    images = Parts(*parquet_pair(folder))
    where = f"mini v{MINI_VERSION}"
    return Located(task.name, where, "", f"task {task.name!r}", images, declared=task)


def _is_whole(folder: Path) -> bool:
    """Whether a drawn task's files are those that were written."""
    try:
        sums = json.loads(read_plain(folder / _SUMS, MOST_JSON))
        return bool(sums) and all(sha256_file(folder / n) == sum_ for n, sum_ in sums.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _folder(task: Task, data: Path) -> Path:
    if not data.is_dir():
        raise NotFound(f"--data {str(data)!r} does not exist or is not a directory")
    folder = data / task.name
    if not folder.is_dir():
        have = sorted(p.name for p in data.iterdir() if p.is_dir())
        raise BadInput(
            f"--data {str(data)!r} has no folder {task.name!r}; it holds "
            f"{', '.join(have[:20]) or 'no folders'}; {how_to_get(task)}"
        )
    return folder


def _prepared(task: Task, split: str, folder: Path, where: str, revision: str) -> Located:
    """A folder's Parquet files: what its manifest froze, or, without one, a known smaller copy."""
    pair = parquet_pair(folder)
    manifest = read_manifest(folder)
    images, checks = _images(task, pair, folder)
    common = partial(
        Located, task.name, where, revision, f"task {task.name!r}", images, declared=task
    )
    if manifest is None:
        subset = partial(expected.known_subset, task, split, folder)
        return common(checks=(*checks, subset), split=SUBSET, partial=True)
    wanted = split or manifest.default
    return common(
        checks=(*checks, *expected.of_manifest(task, manifest, wanted, folder)),
        resplit=_resplit(task, pair, manifest, wanted, folder),
        split=wanted,
        partial=manifest.partial,
        notes=(_incomplete(manifest),) if manifest.partial else (),
    )


Pair = tuple[ParquetSource, ParquetSource]


def _images(
    task: Task, pair: Pair, folder: Path
) -> tuple[Parts | BoxParts | MaskParts, tuple[Check, ...]]:
    if task.kind == "segmentation":
        return own_masks.parquet_parts(*pair, names=task.class_names), ()
    if task.kind != "detection":
        return Parts(*pair, task.class_names), ()
    train, test = map(ParquetBoxes, pair)
    boxes = BoxParts(train, test, task.class_names, voc=task.name in VOC_RULES)
    return boxes, (partial(expected.declared_classes, task, folder),)


def _resplit(
    task: Task, pair: Pair, manifest: Manifest, wanted: str, folder: Path
) -> Resplit | None:
    """How to make another split than the one that the files stand for; None for that one."""
    if wanted == manifest.default:
        return None
    group = "group" if task.split_named(wanted).rule == "groups" else ""
    source = ParquetSource((*pair[0].files, *pair[1].files))
    rule = OfficialOrder(source, "position", group=group)
    return Resplit(source, rule, (partial(expected.frozen, manifest, wanted, folder),))


def _incomplete(manifest: Manifest) -> str:
    lost = len(manifest.missing) + len(manifest.unreadable)
    if not lost:
        return "part of the official set"
    images = "1 image is" if lost == 1 else f"{lost:,} images are"
    return f"{images} missing of the official set"


# --------------------------------------------------------------------------- the Hub


def _mirror(task: Task, split: str, data: HubData) -> Located:
    """A repository that ``prepare --push-to`` made: its files are read as those of a folder."""
    repo, subject = f"{data.owner}/{task.name}", f"task {task.name!r}"
    pin = client.pin(repo, data.revision or None, "dataset", subject, (MANIFEST,))
    folder = client.snapshot(pin.repo, pin.sha, ("*.parquet", MANIFEST), subject)
    client.remember(repo, data.revision or None, pin.sha, "dataset")
    return _prepared(task, split, folder, f"hub:{pin.repo}", pin.sha)
