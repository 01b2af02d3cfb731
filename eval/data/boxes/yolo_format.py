"""A user's own set as Ultralytics lays it out: images/, labels/ and data.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.text import counted
from eval.data.boxes.files import FileBoxes, images_below, read_text, refuse_missing
from eval.data.boxes.stored import Row, stack
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.split_words import Given, choose, is_told, role_of

MOST = 2.0  # a share beyond this is a number of pixels
BARE = 0.5  # of a part's pictures without a label file; more are labels that were not found


def read_yolo(
    place: Path, train: str, test: str, subject: str
) -> tuple[FileBoxes, FileBoxes, Inventory]:
    """(train, test, what was found) of a folder or a data.yaml. ``train`` and ``test`` name parts
    where the user does. Raises UserError for what is wrong."""
    root = place if place.is_dir() else place.parent
    facts = _yaml(place if place.is_file() else _only_yaml(root), subject)
    names = _names(facts, root, subject)
    tally = Tally("files")
    parts, gone = _parts(facts, root, subject, tally)
    given = Given(train, test)
    chosen = choose(parts, f"{subject}: {root}", given, boxes=True)
    told = [f"data.yaml names {name!r} for {key}, which is not there" for key, name in gone.items()]
    if gone and (chosen is None or any(role_of(key) == ("train", ()) for key in gone)):
        raise NotFound(f"{subject}: {told[0]}")
    if chosen is None:
        lacks = "test" if any((role_of(name) or ("",))[0] == "train" for name in parts) else "train"
        raise BadInput(
            f"{subject}: {root} has no images of {lacks}: neither images/{lacks} nor "
            f"{lacks}/images, nor does data.yaml name them"
            + (" (val or valid would do)" if lacks == "test" else "")
        )
    for said in (*told, *chosen.said):
        tally.say(said)
    files = [parts[name] for name in (chosen.train, chosen.test)]
    if both := sorted(set(files[0]) & set(files[1])):
        raise BadInput(
            f"{subject}: {len(both):,} images are in both train and test, such as {both[0]}"
        )
    tally.take(sum(map(len, files)))
    for name in sorted(parts.keys() - {chosen.train, chosen.test}):
        for path in parts[name]:
            tally.leave(f"of part {name}", path.name, expected=is_told(name, chosen, given))
    found = [_part(f, n, names, subject, tally) for n, f in zip(("train", "test"), files,
                                                                strict=True)]  # fmt: skip
    return found[0], found[1], tally.done()


def _parts(
    facts: dict[str, Any], root: Path, subject: str, tally: Tally
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """(part -> its images, part -> the place that data.yaml names and is not there). Parts that
    data.yaml does not name are looked for as images/PART and PART/images."""
    parts: dict[str, list[Path]] = {}
    gone: dict[str, str] = {}
    for key, given in facts.items():
        if (found := role_of(str(key))) and not found[1] and not _is_none(given):
            files, missing = _listed(given, facts, root, subject, tally)
            if missing:
                gone[str(key)] = missing
            elif files:
                parts[str(key)] = files
    known = {path for files in parts.values() for path in files}
    roles = {(role_of(name) or ("",))[0] for name in parts}
    laid_out = [p for p in (*root.glob("images/*"), *root.glob("*/images")) if p.is_dir()]
    for folder in sorted(laid_out):
        name = folder.name if folder.parent.name == "images" else folder.parent.name
        found = role_of(name)
        if found and found[0] not in roles:
            files = [path for path in images_below(folder, tally) if path not in known]
            parts |= {name: files} if files and name not in parts else {}
    return parts, gone


def _is_none(value: Any) -> bool:
    """Nothing, as YAML writes it; all texts are read as they stand."""
    return value in ("", "null", "Null", "NULL", "~") or not value


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
        # Texts alone: to YAML `yes` and `no` are true and false, and 010 is 8.
        tree = yaml.load(read_text(path, subject), yaml.BaseLoader)
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
    if _is_none(given):
        file = next(
            (f for f in (root / "classes.txt", root / "labels" / "classes.txt") if f.is_file()),
            None,
        )
        if file is None:
            raise BadInput(
                f"{subject}: {root} names no classes: neither data.yaml with names nor classes.txt"
            )
        given = [line.strip() for line in read_text(file, subject).splitlines() if line.strip()]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise BadInput(f"{subject}: names in data.yaml are {str(given)[:80]}, not a list of names")
    names = tuple(str(name) for name in given)
    if len(set(names)) < len(names):
        raise BadInput(f"{subject}: the class names hold one twice: {', '.join(names)[:200]}")
    return names


def _listed(
    given: Any, facts: dict[str, Any], root: Path, subject: str, tally: Tally
) -> tuple[list[Path], str]:
    """(the images that data.yaml names for a part, what is not there): folders, or lists of files
    (.txt). Folders are looked for below its path, below its own folder, and, as Roboflow writes
    them, without a leading '../'."""
    tops = [root / str(facts["path"])] if not _is_none(facts.get("path")) else []
    found: list[Path] = []
    for name in given if isinstance(given, list) else [given]:
        bare = str(name)
        while bare.startswith("../"):
            bare = bare[3:]
        tried = [top / n for n in dict.fromkeys((str(name), bare)) for top in (*tops, root)]
        place = next((p for p in tried if p.exists()), None)
        if place is None:
            return [], str(name)
        if place.is_dir():
            found += images_below(place, tally)
        else:
            found += _in_list(place, (*tops, root), subject)
    once = list(dict.fromkeys(found))
    if twice := len(found) - len(once):
        tally.say(f"{counted(twice, 'image')} listed twice in one part: taken once")
    return once, ""


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


def _label_files(image: Path) -> list[Path]:
    """Where an image's labels may lie: below the last folder 'images' of its path, called
    'labels', or beside it; as x.txt, or, some tools, as x.jpg.txt."""
    names = (image.with_suffix(".txt"), image.with_name(f"{image.name}.txt"))
    found = []
    for name in names:
        parts = list(name.parts)
        for place in range(len(parts) - 2, -1, -1):
            if parts[place] == "images":
                parts[place] = "labels"
                found.append(Path(*parts))
                break
    return [*found, *names]


def _part(
    files: Sequence[Path], part: str, names: tuple[str, ...], subject: str, tally: Tally
) -> FileBoxes:
    labels = [next((p for p in _label_files(f) if p.is_file()), None) for f in files]
    bare = [file for file, path in zip(files, labels, strict=True) if path is None]
    if len(bare) > BARE * len(files):
        count = "none" if len(bare) == len(files) else f"{len(files) - len(bare):,}"
        raise BadInput(
            f"{subject}: {count} of {len(files):,} images of {part} has a label file, such as "
            f"{_label_files(bare[0])[0]}; of a picture without objects it is empty"
        )
    if bare:
        tally.say(
            f"no label file for {len(bare):,} of {len(files):,} images of {part}, such as "
            f"{bare[0].name}: taken as pictures without objects"
        )
    outlined: list[Path] = []
    rows = [list(_rows(path, len(names), subject, outlined)) if path else [] for path in labels]
    if outlined:
        tally.say(
            f"{counted(len(outlined), 'polygon')} among the objects of {part}, as in "
            f"{outlined[0].name}: the boxes around them are taken"
        )
    return FileBoxes(tuple(files), stack(rows), names, shares=True)


def _rows(path: Path, classes: int, subject: str, outlined: list[Path]) -> Iterator[Row]:
    """A label file's boxes: class, centre x, centre y, width, height, as shares of the image; or a
    class and the corners of a polygon, which ``outlined`` notes."""
    for number, line in enumerate(read_text(path, subject).splitlines(), 1):
        if not (fields := line.split()):
            continue
        where = f"{subject}: line {number} of {path}"
        if "," in line:
            raise BadInput(f"{where} has commas; separate its numbers by spaces")
        try:
            label, *box = map(float, fields)
        except ValueError:
            label, box = math.nan, []
        if label != label // 1 or not all(map(math.isfinite, box)):
            raise BadInput(
                f"{where} is {line.strip()[:80]!r}, not class, centre x, centre y, width, height"
            )
        if len(box) != 4 and (len(box) < 6 or len(box) % 2):
            extra = ": is the last a confidence or a track?" if len(box) == 5 else ""
            raise BadInput(
                f"{where} has {len(fields)} numbers, neither a box (class, centre x, centre y, "
                f"width, height) nor a polygon (class and at least 3 corners){extra}"
            )
        if not 0 <= label < classes:
            raise BadInput(f"{where} is of class {label:g}; there are {classes} names, from 0")
        if max(map(abs, box)) > MOST:
            raise BadInput(
                f"{where} has {max(box, key=abs):g} where shares of the image's size are expected "
                "(0 to 1)"
            )
        if len(box) > 4:
            outlined.append(path)
            box = _around(box)
        yield Row(box, int(label))


def _around(corners: Sequence[float]) -> list[float]:
    """Centre x, centre y, width, height of the box around a polygon."""
    (left, right), (top, bottom) = ((min(v), max(v)) for v in (corners[::2], corners[1::2]))
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
