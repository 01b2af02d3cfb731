"""A user's own set in COCO's JSON: as COCO itself lays it out, as Roboflow does, or by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.text import counted
from eval.data.boxes.files import (
    FileBoxes,
    count_listed,
    images_below,
    read_text,
    refuse_missing,
    safe_name,
)
from eval.data.boxes.notation import without_outline
from eval.data.boxes.stored import Row, stack
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.split_words import choose, lost, role_of

LISTS = ("images", "annotations", "categories")
ROBOFLOW = "_annotations.coco.json"


def read_coco(
    root: Path, train: str, test: str, images: str, subject: str
) -> tuple[FileBoxes, FileBoxes, Inventory]:
    """(train, test, what was found). ``train`` and ``test`` are JSON files and ``images`` a
    folder, all relative to ``root``; '' to find them. Raises UserError for what is wrong."""
    tally = Tally("files")
    files = _files(root, train, test, subject, tally)
    parts = [_Part.read(file, root, subject) for file in files]
    ours, theirs = (part.categories for part in parts)
    if ours != theirs:
        unlike = sorted({str(c) for c in set(ours.items()) ^ set(theirs.items())})
        raise BadInput(
            f"{subject}: {files[0].name} and {files[1].name} in {files[1].parent} have different "
            f"categories, such as {unlike[0]}; both need the same ids and names"
        )
    found = [part.boxes(_folders(root, part.file, images), subject, tally) for part in parts]
    taken = {file for part in found for file in part.files}
    above = {file.parent for file in taken}
    tops = [folder for folder in sorted(above) if not above & set(folder.parents)]
    below = [path for folder in tops for path in images_below(folder, tally)]
    count_listed(below, taken, tally, "either JSON file")
    return found[0], found[1], tally.done()


def _files(root: Path, train: str, test: str, subject: str, tally: Tally) -> tuple[Path, Path]:
    """The two JSON files."""
    if train or test:
        if not (train and test):
            raise BadInput(
                f"{subject}: ?train= and ?test= go together, but only "
                f"?{'train' if train else 'test'}= is given"
            )
        return root / train, root / test
    found: dict[str, Path] = {path.parent.name: path for path in root.glob(f"*/{ROBOFLOW}")}
    if not found:
        beginning = "instances_"
        several = (root / "annotations").glob(f"{beginning}*.json")
        found = {path.stem.removeprefix(beginning): path for path in several}
        ours = sorted(p.name for name, p in found.items() if (role_of(name) or ("",))[0] == "train")
        if len(ours) > 1:
            raise BadInput(
                f"{subject}: {root / 'annotations'} has {ours[0]} and {ours[1]}; say which with "
                "?train=FILE&test=FILE"
            )
    chosen = choose(found, f"{subject}: {root}", boxes=True)
    if chosen is None:
        raise BadInput(
            f"{subject}: {root} has neither annotations/instances_train*.json and "
            "instances_val*.json nor train/_annotations.coco.json and "
            "valid/_annotations.coco.json; name them with ?train=FILE&test=FILE&images=DIR"
        )
    for said in (*chosen.said, *lost(found, chosen)):
        tally.say(said)
    return found[chosen.train], found[chosen.test]


def _folders(root: Path, file: Path, images: str) -> list[Path]:
    """Where a JSON's images may lie, the likeliest first."""
    if images:
        return [root / images, file.parent, root]
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
    def read(cls, file: Path, root: Path, subject: str) -> _Part:
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
            images[number] = safe_name(_below_root(name, root), where)
            sizes.append((_size(image, "height"), _size(image, "width")))
        if not images:
            raise BadInput(f"{where} lists no images")
        if not tree["annotations"]:
            raise BadInput(f"{where} has no annotations (an empty list)")
        categories = _categories(tree["categories"], where)
        return cls(file, images, sizes, tree["annotations"], categories)

    def boxes(self, folders: Sequence[Path], subject: str, tally: Tally) -> FileBoxes:
        label = {number: place for place, number in enumerate(self.categories)}
        rows: dict[Any, list[Row]] = {number: [] for number in self.images}
        bare = [n for n in self.annotations if not _has_box(n) and not _outline(n)]
        if bare:
            raise BadInput(
                f"{subject}: {len(bare):,} of {len(self.annotations):,} annotations in {self.file} "
                f"have no bbox and no polygon, the first is {_named(bare[0])}; boxes are needed"
            )
        if outlined := sum(not _has_box(note) for note in self.annotations):
            tally.say(f"{counted(outlined, 'object')} of {self.file.name} without bbox: the box "
                      "around the polygons is taken")  # fmt: skip
        for note in self.annotations:
            where = f"{subject}: {self.file}: {_named(note)}"
            image, category = (_field(note, key, where) for key in ("image_id", "category_id"))
            image = _listed(image, rows, "image", where)
            category = _listed(category, label, "category", where)
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
    by_name: dict[str, int] = {}
    for place, category in enumerate(listed):
        number = _field(category, "id", f"{where}: category {place}")
        name = _field(category, "name", f"{where}: category {place}")
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if not isinstance(number, int) or not isinstance(name, str):
            raise BadInput(f"{where}: category {place} has id {number!r} and name {name!r}")
        if number in found:
            raise BadInput(f"{where} lists category id {number} twice")
        if by_name.setdefault(name, number) != number:
            raise BadInput(
                f"{where}: categories {by_name[name]} and {number} are both called {name!r}; give "
                "each a name of its own"
            )
        found[number] = name
    if not found:
        raise BadInput(f"{where} lists no categories")
    return dict(sorted(found.items()))


def _field(value: Any, key: str, where: str) -> Any:
    """A field that is a number or a text; 1.0 is 1. Raises UserError for anything else."""
    if not isinstance(value, dict) or value.get(key) is None:
        have = ", ".join(map(str, value)) if isinstance(value, dict) else repr(value)[:80]
        raise BadInput(f"{where} has no {key}; it has {have}")
    found = value[key]
    if isinstance(found, float) and found % 1 == 0:
        return int(found)
    if not isinstance(found, (int, str)):
        raise BadInput(f"{where} has {key} {str(found)[:80]}, not a whole number or a text")
    return found


def _listed(number: Any, known: Collection[Any], kind: str, where: str) -> Any:
    """An id as the list of its kind has it: 7 and '7' are the same where one of them is there."""
    if number in known:
        return number
    other: Any = str(number)
    if isinstance(number, str) and number.isdecimal():
        other = int(number)
    if other not in known:
        raise BadInput(f"{where} is of {kind} id {number!r}, which is not listed")
    return other


def _below_root(name: Any, root: Path) -> Any:
    """An absolute path that lies in the set's folder, from there; anything else as it is."""
    if isinstance(name, str) and Path(name).is_absolute() and ".." not in Path(name).parts:
        for top in (root, root.resolve()):
            if Path(name).is_relative_to(top):
                return Path(name).relative_to(top).as_posix()
    return name


def _size(image: dict[str, Any], key: str) -> int:
    value = image.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def _has_box(note: Any) -> bool:
    return not isinstance(note, dict) or bool(note.get("bbox"))


def _outline(note: Any) -> list[float]:
    """x, y, width, height of the box around an object's polygons; [] where it has none."""
    polygons = note.get("segmentation") if isinstance(note, dict) else None
    if not isinstance(polygons, list):  # a run-length mask, or nothing
        return []
    try:
        points = [float(v) for polygon in polygons if len(polygon) >= 6 for v in polygon]
    except (TypeError, ValueError):
        return []
    if not points or len(points) % 2:
        return []
    (left, right), (top, bottom) = ((min(v), max(v)) for v in (points[::2], points[1::2]))
    return [left, top, right - left, bottom - top]


def _flag(value: Any, where: str) -> bool:
    """0, 0.0, false and '0' say no. Raises UserError for what says neither."""
    plain = str(value).strip().lower()
    if value is None or plain in ("", "0", "0.0", "false"):
        return False
    if plain in ("1", "1.0", "true"):
        return True
    raise BadInput(f"{where} has iscrowd {str(value)[:40]!r}, not 0 or 1")


def _named(note: Any) -> str:
    return f"annotation {note.get('id')!r}" if isinstance(note, dict) else "an annotation"


def _row(note: dict[str, Any], label: int, where: str) -> Row:
    try:
        x, y, width, height = map(float, note.get("bbox") or _outline(note))
        area = note.get("area")
        size = None if area is None else float(area)
    except (TypeError, ValueError, OverflowError):
        bbox, area = note.get("bbox"), note.get("area")
        raise BadInput(
            f"{where} has bbox {str(bbox)[:80]} and area {str(area)[:40]}, not x, y, width, height "
            "and a number"
        ) from None
    return Row((x, y, width, height), label, size, crowd=_flag(note.get("iscrowd"), where))
