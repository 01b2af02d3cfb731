"""Where the images of a pretraining run lie, and what their labels are; nothing is decoded here.

A folder of Parquet files, of class folders or of plain images, or a data set on the Hub.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, did_you_mean, one_line
from eval.data.folders import folder_source
from eval.data.inventory.image_files import has_image_suffix
from eval.data.inventory.junk import is_junk
from eval.data.sources import (
    FolderSource,
    HubSource,
    ParquetSource,
    Source,
    check_labels,
    declared_names,
    open_parquet,
    parquet_batches,
)
from eval.hub import client
from eval.hub.dataset import load_at
from eval.tasks.names import parse_task, query

VALIDATION_NAMES = ("validation", "val", "valid")


@dataclass(frozen=True)
class Part:
    """One split as it was found. ``labels`` are raw: ints, or strings still to be numbered."""

    name: str
    source: Source
    count: int
    labels: list[Any] | None  # None: no label column
    names: tuple[str, ...] | None  # class names where the source declares them


@dataclass(frozen=True)
class ImageFolder:
    train: Part
    validation: Part | None
    where: str


def find(text: str, image: str, label: str, need_labels: bool) -> ImageFolder:
    if text.startswith("hub:"):
        return _find_hub(text, image, label, need_labels)
    root = Path(text).expanduser()
    if not root.is_dir():
        raise NotFound(
            f"{text!r} does not exist or is not a folder; give a folder of images or of Parquet "
            "files, or hub:org/name"
        )
    root = root.resolve()
    try:
        if any(root.glob("*.parquet")):
            train, validation = _find_parquet(root, image, label, need_labels)
        else:
            train, validation = _find_folders(root, need_labels)
    except OSError as error:
        raise BadInput(f"{text!r} cannot be read: {one_line(error)}") from None
    return ImageFolder(train, validation, root.name)


def _find_parquet(
    root: Path, image: str, label: str, need_labels: bool
) -> tuple[Part, Part | None]:
    def of(part: str) -> Part | None:
        files = sorted(root.glob(f"{part}-*.parquet")) or sorted(root.glob(f"{part}.parquet"))
        return _parquet_part(part, tuple(files), image, label, need_labels) if files else None

    if (train := of("train")) is None:
        have = ", ".join(sorted(p.name for p in root.glob("*.parquet"))[:5])
        raise BadInput(f"{root} has no train-*.parquet or train.parquet; it holds {have}")
    return train, next((p for name in VALIDATION_NAMES if (p := of(name))), None)


def _parquet_part(
    name: str, files: tuple[Path, ...], image: str, label: str, need_labels: bool
) -> Part:
    tables = [open_parquet(file) for file in files]
    labelled = True
    for file, table in zip(files, tables, strict=True):
        columns = table.schema_arrow.names
        _check_columns(str(file), columns, image, label, need_labels)
        labelled = labelled and label in columns
    count = sum(table.metadata.num_rows for table in tables)
    source = ParquetSource(files, image, label)
    if not labelled:
        return Part(name, source, count, None, None)
    labels: list[Any] = []
    names: tuple[str, ...] | None = None
    for file, table in zip(files, tables, strict=True):
        declared = declared_names(table.schema_arrow.metadata, label)
        if names and declared and declared != names:
            raise BadInput(f"{file} declares other class names than the files before it")
        names = names or declared
        for batch in parquet_batches(table, file, columns=[label]):
            labels += batch.column(0).to_pylist()
    return Part(name, source, count, labels, names)


def _check_columns(
    what: str, columns: list[str], image: str, label: str, need_labels: bool
) -> None:
    known = "its columns are " + ", ".join(columns)
    if image not in columns:
        raise NotFound(
            f"{what} has no image column {image!r}" + did_you_mean(image, columns, known)
        )
    if need_labels and label not in columns:
        if near := did_you_mean(label, columns):
            raise NotFound(f"{what} has no label column {label!r}{near}")
        raise NotFound(_no_labels(f"{what} has no label column {label!r} ({known})"))


def _no_labels(what: str) -> str:
    return f"{what}, but this objective needs labels; the objective selfsupcon trains without"


def _find_folders(root: Path, need_labels: bool) -> tuple[Part, Part | None]:
    parts = {p.name for p in root.iterdir() if p.is_dir() and not is_junk(p.name)}
    train = root / "train"
    # A class may be called train too, but then it lies among others and holds no folders.
    split = "train" in parts and (
        any(p.is_dir() for p in train.iterdir()) or parts <= {"train", "test", *VALIDATION_NAMES}
    )
    if not split:
        return _folder_part("train", root, need_labels), None
    name = next((n for n in VALIDATION_NAMES if n in parts), None)
    whole = _folder_part("train", train, need_labels)
    return whole, _folder_part(name, root / name, need_labels) if name else None


def _folder_part(name: str, root: Path, need_labels: bool) -> Part:
    entries = [p for p in root.iterdir() if not is_junk(p.name)]
    folders = any(p.is_dir() for p in entries)
    images = sorted(p.name for p in entries if not p.is_dir() and has_image_suffix(p.name))
    if images and folders:
        raise BadInput(
            f"{root} holds both images ({images[0]}) and folders; put every image into a class "
            "folder, or give a folder of images alone"
        )
    if folders:
        source = folder_source(root)
        index = {n: i for i, n in enumerate(source.names)}
        labels = [index[file.partition(os.sep)[0]] for file in source.files]
        return Part(name, source, len(labels), labels, source.names)
    if not images:
        raise NotFound(
            f"{root} holds no images such as .jpg or .png, no class folders and no Parquet files"
        )
    if need_labels:
        raise BadInput(_no_labels(f"{root} holds images without class folders"))
    return Part(name, FolderSource(root, tuple(images), ()), len(images), None, None)


def _find_hub(text: str, image: str, label: str, need_labels: bool) -> ImageFolder:
    parsed = parse_task(text)
    if parsed.test:
        raise BadInput(f"{text!r}: option 'test' has no effect here, nothing is tested")
    image = parsed.image if parsed.image != "image" else image
    label = parsed.label if parsed.label != "label" else label
    repo = parsed.value
    sha = client.pin(repo, parsed.revision, "dataset", f"data {text!r}").sha
    tables = load_at(repo, parsed.config, sha)

    def of(split: str) -> Part | None:
        if split not in tables:
            return None
        table = tables[split]
        columns = list(table.column_names)
        _check_columns(f"split {split!r} of {repo!r}", columns, image, label, need_labels)
        labelled = label in columns
        # HubSource wants a label column; it reads none of it for the images alone.
        source = HubSource(repo, sha, parsed.config, split, image, label if labelled else image)
        if not labelled:
            return Part(split, source, len(table), None, None)
        names = getattr(table.features[label], "names", None)
        return Part(split, source, len(table), list(table[label]), tuple(names) if names else None)

    wanted = parsed.train or "train"
    if (train := of(wanted)) is None:
        have = ", ".join(map(str, tables))
        raise BadInput(f"data set {repo!r} has no split {wanted!r}; it has {have}")
    validation = next((p for n in VALIDATION_NAMES if (p := of(n)) is not None), None)
    options = {"image": image} if image != "image" else {}
    options |= {"label": label} if label != "label" else {}
    options |= {"config": parsed.config} if parsed.config else {}
    options |= {"train": wanted} if wanted != "train" else {}
    return ImageFolder(train, validation, f"hub:{repo}@{sha}{query(options)}")


# --------------------------------------------------------------------------- labels


def class_names(train: Part, validation: Part | None, text: str) -> tuple[str, ...]:
    """Declared names, else ``class 0..`` for numbers, else the strings of train, sorted."""
    if train.labels is None:
        return ()
    other = validation.names if validation is not None else None
    if train.names is not None:
        if unknown := sorted(set(other or ()) - set(train.names)):
            raise NotFound(f"{text!r}: validation has classes that train has not: {unknown[:5]}")
        return train.names
    if other is not None:
        return other
    check_labels(train.labels, train.source, repr(text))
    values = {v for v in train.labels if v is not None}
    if all(isinstance(v, int) for v in values):
        return tuple(f"class {i}" for i in range(max(values, default=-1) + 1))
    return tuple(sorted(values))


def numbers(part: Part, classes: tuple[str, ...], text: str) -> NDArray[np.int64] | None:
    """[N] class numbers, -1 for an image without; None where there is no label column."""
    if part.labels is None:
        return None
    names = part.names if part.names is not None else classes
    index = {name: i for i, name in enumerate(classes)}
    places = [index[name] for name in names]  # folders of validation may be fewer than of train
    out = np.full(part.count, -1, np.int64)
    for row, value in enumerate(part.labels):
        if value is None or value == -1:
            continue
        if isinstance(value, int) and value < -1:
            raise BadInput(
                f"{text!r}: label {value} of {part.source.describe(row)} is negative; classes "
                "count from 0, and -1 means no label"
            )
        if isinstance(value, str) and value in index:
            out[row] = index[value]
        elif isinstance(value, int) and value < len(places):
            out[row] = places[value]
        else:
            raise BadInput(
                f"{text!r}: label {repr(value)[:80]} of {part.source.describe(row)} is none of "
                f"the {len(classes)} classes of train"
            )
    return out


def check_classes(labels: NDArray[np.int64], text: str) -> None:
    have = np.unique(labels[labels >= 0])
    if len(have) < 2:
        few = f"only the class {have[0]}" if len(have) else "no label"
        raise BadInput(
            f"{text!r} has {few} among its {len(labels)} training images; at least two classes "
            "are needed, or the objective selfsupcon, which trains without labels"
        )
