"""A user's own set as PASCAL VOC lays it out: JPEGImages, Annotations, ImageSets/Main."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.data.boxes.files import (
    FileBoxes,
    count_listed,
    images_below,
    read_text,
    refuse_missing,
    safe_name,
)
from eval.data.boxes.notation import voc_difficult, voc_place, xml_root
from eval.data.boxes.stored import Row, stack
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.image_files import has_image_suffix
from eval.data.inventory.split_words import choose, role_of

_FOLDERS = ("JPEGImages", "Annotations")


def read_voc(
    root: Path, train: str, test: str, classes: str, subject: str
) -> tuple[FileBoxes, FileBoxes, Inventory]:
    """(train, test, what was found). ``train`` and ``test`` name lists of ImageSets/Main,
    ``classes`` are names with commas between; '' to find them. Raises UserError for what is wrong.
    """
    base = _base(root, subject)
    tally = Tally("files")
    ours, theirs = _lists(base, train, test, subject, tally)
    files = images_below(base / "JPEGImages", tally)
    images = _by_stem(files, base / "JPEGImages")
    listed = [_ids(path, subject) for path in (ours, theirs)]
    if both := sorted(set(listed[0]) & set(listed[1])):
        raise BadInput(
            f"{subject}: {len(both):,} images are on both {ours.name} and {theirs.name}, such as "
            f"{both[0]!r}; name other lists with ?train=LIST&test=LIST"
        )
    found = []
    for ids in listed:
        gone = [base / "JPEGImages" / f"{number}.jpg" for number in ids if number not in images]
        refuse_missing(gone, len(ids), subject)
        found.append([_annotation(base, number, subject) for number in ids])
    seen = sorted({name for part in found for one in part for name, *_ in one.objects})
    names = tuple(name.strip() for name in classes.split(",")) if classes else tuple(seen)
    if "" in names or len(set(names)) < len(names):
        raise BadInput(f"{subject}: ?classes={classes} has an empty name, or one twice")
    if other := [name for name in seen if name not in names]:
        raise NotFound(
            f"{subject}: objects are of {other[0]!r}, none of the {len(names)} given classes"
            + did_you_mean(other[0], names, f"known: {', '.join(names[:20])}")
        )
    label = {name: place for place, name in enumerate(names)}
    parts = [
        FileBoxes(
            tuple(
                _image(images[x], one, x, base, subject) for x, one in zip(ids, part, strict=True)
            ),
            stack(
                (
                    [Row(place, label[name], difficult=hard) for name, place, hard in one.objects]
                    for one in part
                ),
                flagged=True,
            ),
            names,
            claimed=np.asarray([one.size for one in part], np.int64),
        )
        for ids, part in zip(listed, found, strict=True)
    ]
    taken = {file for part in parts for file in part.files}
    count_listed(files, taken, tally, "either list")
    return parts[0], parts[1], tally.done()


def _base(root: Path, subject: str) -> Path:
    """The folder that has JPEGImages: ``root``, or one of a year below it."""

    def has_all(folder: Path) -> bool:
        return all((folder / name).is_dir() for name in _FOLDERS)

    if has_all(root):
        return root
    below = [p for top in (root, root / "VOCdevkit") if top.is_dir() for p in sorted(top.iterdir())]
    found = [folder for folder in below if has_all(folder)]
    if len(found) > 1:
        raise BadInput(
            f"{subject}: {root} has {found[0].name} and {found[1].name}; name one, as "
            f"voc:{found[0]}"
        )
    if not found:
        raise BadInput(
            f"{subject}: {root} has no folders JPEGImages and Annotations, nor has a folder "
            "such as VOC2007 or VOCdevkit/VOC2007 below it"
        )
    return found[0]


def _lists(base: Path, train: str, test: str, subject: str, tally: Tally) -> tuple[Path, Path]:
    """The lists of train and test; a list that holds the other's images is not taken."""
    folder = base / "ImageSets" / "Main"
    if train or test:
        chosen = [folder / f"{(name or instead).removesuffix('.txt')}.txt"
                  for name, instead in ((train, "train"), (test, "test"))]  # fmt: skip
    else:
        chosen = [folder / f"{name}.txt" for name in _parts(folder, subject, tally)]
    for path in chosen:
        if not path.is_file():
            have = ", ".join(sorted(p.name for p in folder.glob("*.txt"))[:8])
            raise BadInput(
                f"{subject}: {folder} has no {path.name}; it holds {have or 'no lists'}; needed "
                "are train.txt or trainval.txt, and test.txt or (beside train.txt) val.txt"
            )
    return chosen[0], chosen[1]


def _parts(folder: Path, subject: str, tally: Tally) -> tuple[str, str]:
    """The lists to train on and to score. trainval holds what val has, so that it is taken beside
    a test list alone; lists of one class, such as cat_train, are no parts."""
    names = [path.stem for path in folder.glob("*.txt")]
    plain = [name for name in names if (found := role_of(name)) and not found[1]]
    if "trainval" in names:
        scored = [name for name in plain if role_of(name) == ("test", ())]
        if len(scored) == 1:
            return "trainval", scored[0]
    chosen = choose(plain, f"{subject}: {folder}", boxes=True)
    if chosen is None:
        return "train", "test" if "test" in names else "val"
    for said in chosen.said:
        tally.say(said)
    return chosen.train, chosen.test


def _ids(path: Path, subject: str) -> list[str]:
    lines = [line.strip() for line in read_text(path, subject).splitlines() if line.strip()]
    found = []
    for line in lines:
        name = safe_name(line, f"{subject}: {path}")
        suffix = Path(name).suffix
        found.append(name.removesuffix(suffix) if has_image_suffix(name) else name)
    if not found:
        raise BadInput(f"{subject}: {path} lists no images")
    if len(set(found)) < len(found):
        twice = Counter(found).most_common(1)[0][0]
        raise BadInput(f"{subject}: {path} lists {twice!r} twice")
    return found


def _by_stem(files: Sequence[Path], folder: Path) -> dict[str, list[Path]]:
    """Image id -> its files; a mask may lie beside an image."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _image(
    files: Sequence[Path], annotation: _Annotation, number: str, base: Path, subject: str
) -> Path:
    """The file of an image; of several the one that its annotation names. Raises UserError where
    it names none of them."""
    named = [path for path in files if path.name == annotation.filename]
    if len(files) > 1 and len(named) != 1:
        raise BadInput(
            f"{subject}: {base / 'JPEGImages'} has {' and '.join(path.name for path in files)}, "
            f"and <filename> of Annotations/{number}.xml is {annotation.filename!r}, neither of "
            "them; take the one away that is not the picture"
        )
    return named[0] if len(files) > 1 else files[0]


@dataclass(frozen=True)
class _Annotation:
    objects: tuple[tuple[str, tuple[float, float, float, float], bool], ...]
    size: tuple[int, int]  # height, width; 0 where it is not said
    filename: str


def _annotation(base: Path, number: str, subject: str) -> _Annotation:
    """An image's objects: class name, (x, y, width, height), difficult."""
    path = base / "Annotations" / f"{number}.xml"
    where = f"{subject}: {path}"
    if not path.is_file():
        raise BadInput(
            f"{subject}: image {number!r} has no annotation {path}; one without objects needs a "
            "file that says so"
        )
    root = xml_root(read_text(path, subject), where)
    found = []
    for place, node in enumerate(root.findall("object"), 1):
        name = (node.findtext("name") or "").strip()
        if not name:
            raise BadInput(f"{where}: object {place} has no name")
        spot = voc_place(node, f"{where}: object {place} ({name})")
        found.append((name, spot, voc_difficult(node)))
    height, width = (root.findtext(f"size/{side}") or "" for side in ("height", "width"))
    said = height.isdecimal() and width.isdecimal() and len(height + width) < 18
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    return _Annotation(tuple(found), (int(height), int(width)) if said else (0, 0), name)
