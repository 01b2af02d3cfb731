"""Detection data of the user's own: COCO's JSON, PASCAL VOC's XML, YOLO's text files, Parquet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from eval.common.errors import UserError
from eval.data.boxes.assemble import assemble_boxes
from eval.data.boxes.box_data import BoxSplit, DetectionData
from eval.data.boxes.coco_format import read_coco
from eval.data.boxes.files import FileBoxes
from eval.data.boxes.parquet import ParquetBoxes
from eval.data.boxes.voc_format import read_voc
from eval.data.boxes.yolo_format import read_yolo
from eval.data.sources import ParquetSource
from eval.tasks.names import TaskName


def load_own_boxes(parsed: TaskName, text: str, cache: Path) -> DetectionData:
    """The data of coco:DIR, voc:DIR or yolo:DIR. Raises UserError for what is wrong."""
    what = f"task {text!r}"
    place = _place(parsed, what)
    options = {k: v for k in ("train", "test", "images", "classes") if (v := getattr(parsed, k))}
    try:
        if parsed.kind == "coco":
            train, test = read_coco(place, parsed.train, parsed.test, parsed.images, what)
        elif parsed.kind == "voc":
            train, test = read_voc(place, parsed.train, parsed.test, parsed.classes, what)
        else:
            train, test = read_yolo(place, what)
    except OSError as error:  # a folder that may not be looked into
        raise UserError(f"{what}: {error.filename!r} cannot be read: {error.strerror}") from None
    where = f"{parsed.kind}:{place}" + (f"?{urlencode(options)}" if options else "")
    name = place.parent.name if place.is_file() else place.name
    voc = parsed.kind == "voc"
    found = assemble_boxes(name, where, "", train, test, cache, what, voc=voc)
    sizes = _unlike(found.train, train), _unlike(found.test, test)
    return dataclasses.replace(found, notes=(*found.notes, *filter(None, sizes)))


def _unlike(split: BoxSplit, source: FileBoxes) -> str:
    """A note about images that are not as large as their annotations say; their boxes may be off.
    '' where there is none."""
    if source.claimed is None or split.sizes is None:
        return ""
    claimed = source.claimed[split.rows]
    wrong = np.flatnonzero((claimed > 0).all(axis=1) & (claimed != split.sizes).any(axis=1))
    if not len(wrong):
        return ""
    first = int(wrong[0])
    (height, width), (tall, wide) = split.sizes[first].tolist(), claimed[first].tolist()
    return (
        f"{split.name}: {len(wrong):,} of {len(split):,} images have another size than their "
        f"annotation says, such as {source.describe(int(split.rows[first]))} with {width} x "
        f"{height} pixels where {wide} x {tall} are annotated; their boxes may be off"
    )


def load_parquet_boxes(
    folder: Path, train: ParquetSource, test: ParquetSource, column: str, text: str, cache: Path
) -> DetectionData:
    """Parquet files with a column of objects. Raises UserError."""
    where = f"parquet:{folder.resolve()}?{urlencode({'image': train.image, 'objects': column})}"
    parts = ParquetBoxes(train, column), ParquetBoxes(test, column)
    return assemble_boxes(folder.resolve().name, where, "", *parts, cache, f"task {text!r}")


def _place(parsed: TaskName, what: str) -> Path:
    """The folder (of YOLO also a data.yaml), absolute."""
    try:
        place = Path(parsed.value).expanduser()
        file = parsed.kind == "yolo" and place.suffix in (".yaml", ".yml") and place.is_file()
        if file or place.is_dir():
            return place.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise UserError(f"{what}: {error}") from None
    raise UserError(f"{what}: {parsed.value!r} does not exist or is no directory")
