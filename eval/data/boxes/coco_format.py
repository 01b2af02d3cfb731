"""A user's own set in COCO's JSON: as COCO itself lays it out, as Roboflow does, or by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.common.errors import BadInput, NotFound, one_line
from eval.data.boxes.files import FileBoxes, read_text, refuse_missing, safe_name
from eval.data.boxes.notation import without_outline
from eval.data.boxes.stored import Row, stack

LISTS = ("images", "annotations", "categories")
TEST_NAMES = ("test", "val", "valid")  # the first that is there is scored


def read_coco(
    root: Path, train: str, test: str, images: str, subject: str
) -> tuple[FileBoxes, FileBoxes]:
    """(train, test). ``train`` and ``test`` are JSON files and ``images`` a folder, all
    relative to ``root``; '' to find them. Raises UserError for what is wrong."""
    files = _files(root, train, test, subject)
    parts = [_Part.read(file, subject) for file in files]
    ours, theirs = (part.categories for part in parts)
    if ours != theirs:
        unlike = sorted({str(c) for c in set(ours.items()) ^ set(theirs.items())})
        raise BadInput(
            f"{subject}: {files[0].name} and {files[1].name} in {files[1].parent} have different "
            f"categories, such as {unlike[0]}; both need the same ids and names"
        )
    found = [part.boxes(_folders(root, part.file, images), subject) for part in parts]
    return found[0], found[1]


def _files(root: Path, train: str, test: str, subject: str) -> tuple[Path, Path]:
    """The two JSON files."""
    if train or test:
        if not (train and test):
            raise BadInput(
                f"{subject}: ?train= and ?test= go together, but only "
                f"?{'train' if train else 'test'}= is given"
            )
        return root / train, root / test
    if (ours := root / "train" / "_annotations.coco.json").is_file():  # Roboflow
        for name in TEST_NAMES:
            if (theirs := root / name / ours.name).is_file():
                return ours, theirs
    chosen: list[Path] = []
    for names in (("train",), TEST_NAMES):
        for name in names:
            several = sorted((root / "annotations").glob(f"instances_{name}*.json"))
            if len(several) > 1:
                raise BadInput(
                    f"{subject}: {root / 'annotations'} has {several[0].name} and "
                    f"{several[1].name}; say which with ?train=FILE&test=FILE"
                )
            if several:
                chosen += several
                break
    if len(chosen) < 2:
        raise BadInput(
            f"{subject}: {root} has neither annotations/instances_train*.json and "
            "instances_val*.json "
            "nor train/_annotations.coco.json and valid/_annotations.coco.json; name them with "
            "?train=FILE&test=FILE&images=DIR"
        )
    return chosen[0], chosen[1]


def _folders(root: Path, file: Path, images: str) -> list[Path]:
    """Where a JSON's images may lie, the likeliest first."""
    if images:
        return [root / images, file.parent]
    part = file.stem.removeprefix("instances_")
    return [root / part, root / "images" / part, file.parent, root / "images", root]


@dataclass(frozen=True)
class _Part:
    file: Path
    images: dict[Any, str]  # id -> file_name
    sizes: list[tuple[int, int]]  # of each: height, width; 0 where it is not said
    annotations: list[Any]
    categories: dict[int, str]  # in id order

    @classmethod
    def read(cls, file: Path, subject: str) -> _Part:
        where = f"{subject}: {file}"
        try:
            tree = json.loads(read_text(file, subject), object_hook=without_outline)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where} is not valid JSON: {one_line(error, 120)}") from None
        _check_lists(tree, where)
        images, sizes = {}, []
        for place, image in enumerate(tree["images"]):
            number = _field(image, "id", f"{where}: image {place}")
            name = _field(image, "file_name", f"{where}: image {place}")
            if number in images:
                raise BadInput(f"{where} lists image id {number!r} twice")
            images[number] = safe_name(name, where)
            sizes.append((_size(image, "height"), _size(image, "width")))
        if not images:
            raise BadInput(f"{where} lists no images")
        if not tree["annotations"]:
            raise BadInput(f"{where} has no annotations (an empty list)")
        categories = _categories(tree["categories"], where)
        return cls(file, images, sizes, tree["annotations"], categories)

    def boxes(self, folders: Sequence[Path], subject: str) -> FileBoxes:
        label = {number: place for place, number in enumerate(self.categories)}
        rows: dict[Any, list[Row]] = {number: [] for number in self.images}
        bare = [note for note in self.annotations if not _has_box(note)]
        if bare:
            raise BadInput(
                f"{subject}: {len(bare):,} of {len(self.annotations):,} annotations in {self.file} "
                f"have no bbox, the first is {_named(bare[0])}; boxes are needed, outlines alone "
                "(segmentation) are not enough"
            )
        for note in self.annotations:
            where = f"{subject}: {self.file}: {_named(note)}"
            image, category = (_field(note, key, where) for key in ("image_id", "category_id"))
            for kind, number, known in (("image", image, rows), ("category", category, label)):
                if number not in known:
                    raise BadInput(f"{where} is of {kind} id {number!r}, which is not listed")
            rows[image].append(_row(note, label[category], where))
        paths, gone = [], []
        for name in self.images.values():
            path = next((p for f in folders if (p := f / name).is_file()), None)
            paths.append(path or folders[0] / name)
            gone += [paths[-1]] if path is None else []
        refuse_missing(gone, len(paths), f"{subject}: {self.file}")
        return FileBoxes(
            tuple(paths),
            stack(rows.values()),
            tuple(self.categories.values()),
            claimed=np.asarray(self.sizes, np.int64),
        )


def _check_lists(tree: Any, where: str) -> None:
    have = list(tree) if isinstance(tree, dict) else []
    missing = [key for key in LISTS if not (key in have and isinstance(tree[key], list))]
    if missing:
        said = f"its keys are {', '.join(map(str, have[:8]))}" if have else "it has no keys"
        raise NotFound(
            f"{where} is not COCO's JSON: it lacks the list{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; {said}"
        )


def _categories(listed: list[Any], where: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, category in enumerate(listed):
        number = _field(category, "id", f"{where}: category {place}")
        name = _field(category, "name", f"{where}: category {place}")
        if not isinstance(number, int) or not isinstance(name, str):
            raise BadInput(f"{where}: category {place} has id {number!r} and name {name!r}")
        if number in found or name in found.values():
            raise BadInput(f"{where} lists category {number} ({name!r}) twice")
        found[number] = name
    if not found:
        raise BadInput(f"{where} lists no categories")
    return dict(sorted(found.items()))


def _field(value: Any, key: str, where: str) -> Any:
    """A field that is a number or a text. Raises UserError where it is not there."""
    if not isinstance(value, dict) or not isinstance(value.get(key), (int, str)):
        have = ", ".join(map(str, value)) if isinstance(value, dict) else repr(value)[:80]
        raise BadInput(f"{where} has no {key}; it has {have}")
    return value[key]


def _size(image: dict[str, Any], key: str) -> int:
    value = image.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def _has_box(note: Any) -> bool:
    return not isinstance(note, dict) or bool(note.get("bbox"))


def _named(note: Any) -> str:
    return f"annotation {note.get('id')!r}" if isinstance(note, dict) else "an annotation"


def _row(note: dict[str, Any], label: int, where: str) -> Row:
    try:
        x, y, width, height = map(float, note["bbox"])
        area = note.get("area")
        size = None if area is None else float(area)
    except (TypeError, ValueError, OverflowError):
        bbox, area = note["bbox"], note.get("area")
        raise BadInput(
            f"{where} has bbox {str(bbox)[:80]} and area {str(area)[:40]}, not x, y, width, height "
            "and a number"
        ) from None
    return Row((x, y, width, height), label, size, crowd=bool(note.get("iscrowd")))
