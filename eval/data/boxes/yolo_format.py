"""A user's own set as Ultralytics lays it out: images/, labels/ and data.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, one_line
from eval.data.boxes.files import FileBoxes, read_text, refuse_missing
from eval.data.boxes.stored import Row, stack
from eval.data.inventory.image_files import has_image_suffix
from eval.data.inventory.junk import is_junk

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there is scored
MOST = 2.0  # a share beyond this is a number of pixels


def read_yolo(place: Path, subject: str) -> tuple[FileBoxes, FileBoxes]:
    """(train, test) of a folder or a data.yaml. Raises UserError for what is wrong."""
    root = place if place.is_dir() else place.parent
    facts = _yaml(place if place.is_file() else _only_yaml(root), subject)
    names = _names(facts, root, subject)
    parts = {}
    for part, keys in (("train", ("train",)), ("test", TEST_NAMES)):
        files = _listed(facts, keys, root, subject) or _laid_out(root, keys)
        if not files:
            raise BadInput(
                f"{subject}: {root} has no images of {part}: neither images/{keys[0]} nor "
                f"{keys[0]}/images, nor does data.yaml name them"
                + (" (val or valid would do)" if part == "test" else "")
            )
        parts[part] = files
    if both := sorted(set(parts["train"]) & set(parts["test"])):
        raise BadInput(
            f"{subject}: {len(both):,} images are in both train and test, such as {both[0]}"
        )
    found = [_part(files, names, subject) for files in parts.values()]
    return found[0], found[1]


def _only_yaml(root: Path) -> Path | None:
    for name in ("data.yaml", "data.yml"):
        if (root / name).is_file():
            return root / name
    several = sorted(root.glob("*.yaml"))
    return several[0] if len(several) == 1 else None


def _yaml(path: Path | None, subject: str) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        tree = yaml.safe_load(read_text(path, subject))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{subject}: {path} is not valid YAML: {one_line(error, 120)}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{subject}: {path} is not YAML with names, train and val")
    return tree


def _names(facts: dict[str, Any], root: Path, subject: str) -> tuple[str, ...]:
    """By label: data.yaml's names, a list or a number each; else the lines of classes.txt."""
    given = facts.get("names")
    if isinstance(given, dict):
        if sorted(map(str, given)) != sorted(map(str, range(len(given)))):
            raise BadInput(f"{subject}: names in data.yaml are not numbered from 0 without gaps")
        given = [value for _, value in sorted((int(k), v) for k, v in given.items())]
    if given is None:
        file = next(
            (f for f in (root / "classes.txt", root / "labels" / "classes.txt") if f.is_file()),
            None,
        )
        if file is None:
            raise BadInput(
                f"{subject}: {root} names no classes: neither data.yaml with names nor classes.txt"
            )
        given = [line.strip() for line in read_text(file, subject).splitlines() if line.strip()]
    if not isinstance(given, list) or not given:
        raise BadInput(f"{subject}: names in data.yaml are {str(given)[:80]}, not a list of names")
    names = tuple(str(name) for name in given)
    if len(set(names)) < len(names):
        raise BadInput(f"{subject}: the class names hold one twice: {', '.join(names)[:200]}")
    return names


def _listed(facts: dict[str, Any], keys: Sequence[str], root: Path, subject: str) -> list[Path]:
    """The images that data.yaml names for the first of ``keys`` it has: folders, or lists of files
    (.txt). Folders are looked for below its path, below its own folder, and, as Roboflow writes
    them, without a leading '../'."""
    given = next((facts[key] for key in keys if facts.get(key)), None)
    if given is None:
        return []
    tops = [root / str(facts["path"])] if facts.get("path") else []
    found: list[Path] = []
    for name in given if isinstance(given, list) else [given]:
        bare = str(name)
        while bare.startswith("../"):
            bare = bare[3:]
        tried = [top / n for n in dict.fromkeys((str(name), bare)) for top in (*tops, root)]
        place = next((p for p in tried if p.exists()), None)
        if place is None:
            raise NotFound(
                f"{subject}: data.yaml names {str(name)!r}, which is not there (looked for "
                f"{tried[0]})"
            )
        found += _below(place) if place.is_dir() else _in_list(place, (*tops, root), subject)
    return found


def _in_list(path: Path, tops: Sequence[Path], subject: str) -> list[Path]:
    lines = [line.strip() for line in read_text(path, subject).splitlines() if line.strip()]
    files, gone = [], []
    for line in lines:
        tried = [top / line for top in (path.parent, *tops)]
        file = next((p for p in tried if p.is_file()), None)
        files += [file] if file else []
        gone += [] if file else [tried[0]]
    refuse_missing(gone, len(lines), f"{subject}: {path}")
    return files


def _laid_out(root: Path, keys: Sequence[str]) -> list[Path]:
    for name in keys:
        for folder in (root / "images" / name, root / name / "images"):
            if found := _below(folder):
                return found
    return []


def _below(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if has_image_suffix(path.name) and not is_junk(path.name)
    )


def _label_file(image: Path) -> Path:
    """Beside the image, with the last folder 'images' of its path called 'labels'."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _part(files: Sequence[Path], names: tuple[str, ...], subject: str) -> FileBoxes:
    labels = [_label_file(image) for image in files]
    if not any(path.is_file() for path in labels):
        raise BadInput(
            f"{subject}: none of {len(files):,} images has a label file, such as {labels[0]}"
        )
    rows = [list(_rows(path, len(names), subject)) if path.is_file() else [] for path in labels]
    return FileBoxes(tuple(files), stack(rows), names, shares=True)


def _rows(path: Path, classes: int, subject: str) -> Iterator[Row]:
    """A label file's boxes: class, centre x, centre y, width, height, as shares of the image."""
    for number, line in enumerate(read_text(path, subject).splitlines(), 1):
        if not (fields := line.split()):
            continue
        where = f"{subject}: line {number} of {path}"
        if len(fields) > 5:
            raise BadInput(
                f"{where} has {len(fields)} numbers: it is a polygon, not a box (class, centre x, "
                "centre y, width, height)"
            )
        try:
            label, *box = map(float, fields)
        except ValueError:
            label, box = math.nan, []
        if len(box) != 4 or label != label // 1:
            raise BadInput(
                f"{where} is {line.strip()[:80]!r}, not class, centre x, centre y, width, height"
            )
        if not 0 <= label < classes:
            raise BadInput(f"{where} is of class {label:g}; there are {classes} names, from 0")
        if max(map(abs, box)) > MOST:
            raise BadInput(
                f"{where} has {max(box, key=abs):g} where shares of the image's size are expected "
                "(0 to 1)"
            )
        yield Row(box, int(label))
