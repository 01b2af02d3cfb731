"""Detection data of the user's own: COCO's JSON, PASCAL VOC's XML, YOLO's text files, Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError
from eval.data.boxes.assemble import BoxParts
from eval.data.boxes.coco_format import read_coco
from eval.data.boxes.parquet import ParquetBoxes
from eval.data.boxes.voc_format import read_voc
from eval.data.boxes.yolo_format import read_yolo
from eval.data.inventory.facts import Inventory
from eval.data.located import Located
from eval.data.sources import ParquetSource
from eval.tasks.names import TaskName, query


def locate(parsed: TaskName, text: str) -> Located:
    """The data of coco:DIR, voc:DIR or yolo:DIR. Raises UserError for what is wrong."""
    subject = f"task {text!r}"
    place = _place(parsed, subject)
    options = {k: v for k in ("train", "test", "images", "classes") if (v := getattr(parsed, k))}
    try:
        if parsed.kind == "coco":
            train, test, found = read_coco(place, parsed.train, parsed.test, parsed.images, subject)
        elif parsed.kind == "voc":
            train, test, found = read_voc(place, parsed.train, parsed.test, parsed.classes, subject)
        else:
            train, test, found = read_yolo(place, parsed.train, parsed.test, subject)
    except OSError as error:  # a folder that may not be looked into
        raise BadInput(f"{subject}: {error.filename!r} cannot be read: {error.strerror}") from None
    where = f"{parsed.kind}:{place}{query(options)}"
    name = place.parent.name if place.is_file() else place.name
    images = BoxParts(train, test, voc=parsed.kind == "voc")
    return Located(name, where, "", subject, images, kind=parsed.kind, inventory=found)


def locate_parquet(
    folder: Path,
    train: ParquetSource,
    test: ParquetSource,
    column: str,
    text: str,
    parts: Mapping[str, str],
    inventory: Inventory,
) -> Located:
    """Parquet files with a column of objects; none is opened. ``parts`` are those that the user
    named."""
    options = {"image": train.image, "objects": column, **parts}
    where = f"parquet:{folder.resolve()}{query(options)}"
    images = BoxParts(ParquetBoxes(train, column), ParquetBoxes(test, column))
    name, subject = folder.resolve().name, f"task {text!r}"
    return Located(name, where, "", subject, images, kind="parquet", inventory=inventory)


def _place(parsed: TaskName, subject: str) -> Path:
    """The folder (of YOLO also a data.yaml), absolute."""
    try:
        place = Path(parsed.value).expanduser()
        file = parsed.kind == "yolo" and place.suffix in (".yaml", ".yml") and place.is_file()
        if file or place.is_dir():
            return place.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise UserError(f"{subject}: {error}") from None
    raise NotFound(f"{subject}: {parsed.value!r} does not exist or is not a directory")
