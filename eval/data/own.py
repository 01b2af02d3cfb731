"""Data of the user's own: Parquet files, class folders, a CSV list, a data set of the Hub, sets
with boxes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from eval.common.errors import UserError
from eval.data.sources import (
    FolderSource,
    HubSource,
    ListedSource,
    ParquetSource,
    Scan,
    folder_source,
    open_parquet,
    read_table,
    remembered_scan,
)
from eval.data.split_rules import by_groups
from eval.data.task_data import TaskData, assemble, canonical, halves, parquet_pair, stratified_part
from eval.hub import client
from eval.tasks.names import TaskName


def load_own(parsed: TaskName, text: str, cache: Path, seed: int) -> TaskData:
    """The data of a task string that is no declared name. Raises UserError for what is wrong."""
    if parsed.kind == "parquet":
        task = _load_parquet(parsed, cache, text)
    elif parsed.kind == "imagefolder":
        task = _load_imagefolder(parsed, cache, text, seed)
    elif parsed.kind == "csv":
        task = _load_csv(parsed, cache, text, seed)
    elif parsed.kind in ("coco", "voc", "yolo"):
        from eval.data.boxes.own import load_own_boxes

        task = load_own_boxes(parsed, text, cache)
    else:
        task = _load_hub(parsed, cache, text)
    # Named by content, so that two folders `photos` never collide.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", task.name)
    return dataclasses.replace(task, name=f"{parsed.kind}-{name}-{task.split_hash[:8]}")


def _load_parquet(parsed: TaskName, cache: Path, text: str) -> TaskData:
    folder = _existing_folder(parsed.value, text)
    train, test = parquet_pair(folder, parsed)
    column = parsed.objects
    if not column:
        columns = urlencode({"image": parsed.image, "label": parsed.label})
        where = f"parquet:{folder.resolve()}?{columns}"
        try:
            return assemble(folder.resolve().name, where, "", train, test, cache, text)
        except UserError:
            if not _has_boxes_alone(train):
                raise
            column = OBJECTS
    from eval.data.boxes.own import load_parquet_boxes

    return load_parquet_boxes(folder, train, test, column, text, cache)


OBJECTS = "objects"  # the column of boxes where a task string names none


def _has_boxes_alone(source: ParquetSource) -> bool:
    """Boxes, and not one label an image. Looked at only where there is no label, so that the
    second load of a data set opens no file."""
    columns = open_parquet(source.files[0]).schema_arrow.names
    return OBJECTS in columns and source.label not in columns


def _existing_folder(path: str, what: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"task {what!r}: {path!r} does not exist or is no directory")
    return folder


def _load_imagefolder(parsed: TaskName, cache: Path, text: str, seed: int) -> TaskData:
    root = _existing_folder(parsed.value, text)
    where = f"imagefolder:{root.resolve()}"
    folders = {p.name for p in root.iterdir() if p.is_dir()}
    test_name = next((n for n in ("test", "val", "validation") if n in folders), None)
    if "train" in folders and test_name:
        train = folder_source(root / "train")
        test = folder_source(root / test_name)
        if missing := sorted(set(test.names) - set(train.names)):
            raise UserError(f"task {text!r}: test has classes that train has not: {missing[:5]}")
        test = FolderSource(test.root, test.files, train.names)
        return assemble(root.resolve().name, where, "", train, test, cache, text)
    if "train" in folders and any(p.is_dir() for p in (root / "train").iterdir()):
        raise UserError(
            f"task {text!r}: {root} has train/ but neither test/, val/ nor validation/; "
            f"to split one folder here, use imagefolder:{root / 'train'}"
        )
    whole = folder_source(root)
    everything = canonical("all", whole, *remembered_scan(whole, cache, text), text)
    in_train = stratified_part(everything.labels, everything.keys, 0.7, seed)
    parts = halves(everything, in_train, text)
    note = f"one folder, split here: 70 % of each class to train, seed {seed}"
    return TaskData(root.resolve().name, where, "", whole.names, *parts, notes=(note,))


def _load_csv(parsed: TaskName, cache: Path, text: str, seed: int) -> TaskData:
    file = _file(parsed.value, text)
    columns = {"image": parsed.image, "label": parsed.label}
    columns |= {k: v for k in ("group", "split") if (v := getattr(parsed, k))}
    table = read_table(file, columns, f"task {text!r}")
    where = f"csv:{file.resolve()}?{urlencode(columns)}"
    notes: list[str] = []
    if "split" in table:
        table, notes = _own_parts(table, text)
    names = tuple(sorted(set(table["label"])))
    source = ListedSource(file.resolve().parent, tuple(table["image"]), tuple(table["label"]))
    scan, order = remembered_scan(source, cache, text)
    scan = Scan([names.index(label) for label in scan.labels], scan.hashes, names)
    everything = canonical("all", source, scan, order, text)
    if "split" in table:
        in_train = np.asarray(table["split"])[everything.rows] == "train"
    elif "group" in table:
        groups = np.asarray(table["group"])[everything.rows]
        in_train = by_groups(everything.labels, groups.tolist(), seed)
        notes.append(f"split here: whole groups, 70 % of each class to train, seed {seed}")
    else:
        in_train = stratified_part(everything.labels, everything.keys, 0.7, seed)
        notes.append(f"split here: 70 % of each class to train, seed {seed}")
    parts = halves(everything, in_train, text)
    return TaskData(file.stem, where, "", names, *parts, notes=tuple(notes))


def _file(path: str, text: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UserError(f"task {text!r}: {error}") from None


_SIDES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_INSTEAD = ("val", "validation", "valid", "dev")  # of test, where there is none


def _own_parts(table: dict[str, list[str]], text: str) -> tuple[dict[str, list[str]], list[str]]:
    """(the rows of train and test alone, a note about the others). Raises UserError where a side is
    missing or a group is on both."""
    said = [value.strip().lower() for value in table["split"]]
    sides = dict(_SIDES)
    if "test" not in (sides.get(s) for s in said):
        sides |= dict.fromkeys(_INSTEAD, "test")
    have = {sides.get(s, "") for s in said}
    if not {"train", "test"} <= have:
        values = ", ".join(repr(v) for v in sorted(set(table["split"]))[:8])
        raise UserError(f"task {text!r}: its split column holds {values}; use 'train' and 'test'")
    kept = [i for i, s in enumerate(said) if s in sides]
    out = {role: [values[i] for i in kept] for role, values in table.items()}
    out["split"] = [sides[said[i]] for i in kept]
    both = set()
    if "group" in table:
        rows = list(zip(out["group"], out["split"], strict=True))
        both = {g for g, s in rows if s == "train"} & {g for g, s in rows if s == "test"}
    if both:
        raise UserError(
            f"task {text!r}: {len(both):,} groups are on both sides of the split, such as "
            f"{min(both)!r}; leave out ?split= to split whole groups here"
        )
    others = sorted({table["split"][i] for i, s in enumerate(said) if s not in sides})
    unused = len(said) - len(kept)
    return out, [f"{unused:,} rows of {', '.join(others[:5])} are not used"] if others else []


def _load_hub(parsed: TaskName, cache: Path, text: str) -> TaskData:
    sha = client.pin(parsed.value, parsed.revision, "dataset", f"task {text!r}").sha
    train, test = (
        HubSource(parsed.value, sha, parsed.config, part, parsed.image, parsed.label)
        for part in (parsed.train, parsed.test)
    )
    options = {"revision": sha, "image": parsed.image, "label": parsed.label}
    options |= {"config": parsed.config} if parsed.config else {}
    options |= {"train": parsed.train, "test": parsed.test}
    where = f"hub:{parsed.value}?{urlencode(options)}"
    return assemble(parsed.value.replace("/", "--"), where, sha, train, test, cache, text)
