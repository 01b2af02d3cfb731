"""Segmentation data of the user's own: folders of images and masks, PASCAL VOC's, Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError
from eval.data.boxes.files import images_below, read_text
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.split_words import Given, choose, lost
from eval.data.located import Located
from eval.data.masks.assemble import MaskParts
from eval.data.masks.label_map import VOID
from eval.data.masks.stored import FileMasks, ParquetMasks
from eval.data.sources import ParquetSource, open_parquet
from eval.tasks.names import TaskName, query

MASK = "mask"  # the column of masks where a task string names none
SEQUENCE = "sequence"  # and that of groups, where there is one
CLASSES = b"classes"  # in a Parquet file's metadata: their names as a list of JSON
IMAGES, MASKS = "images", "masks"
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


def locate(parsed: TaskName, text: str, seed: int) -> Located:
    """The data of masks:DIR or voc-seg:DIR. Raises UserError for what is wrong; ``seed`` is that of
    a split made here, where the data have none."""
    subject = f"task {text!r}"
    root = _folder(parsed.value, subject)
    tally = Tally("files")
    try:
        if parsed.kind == "masks":
            train, test = _masks(root, Given(parsed.train, parsed.test), subject, tally)
        else:
            train, test = _voc(root, parsed, subject, tally)
    except OSError as error:  # a folder that may not be looked into
        raise BadInput(f"{subject}: {error.filename!r} cannot be read: {error.strerror}") from None
    names = class_names(parsed.classes, subject)
    if parsed.kind == "voc-seg" and not names:
        names = VOC_CLASSES
    parts = MaskParts(train, test, names, void_values(parsed.void, subject), seed)
    where = f"{parsed.kind}:{root}{query(_options(parsed, ('train', 'test')))}"
    return Located(
        root.name, where, "", subject, parts, kind=parsed.kind, inventory=tally.done()
    )  # fmt: skip


def locate_parquet(
    folder: Path,
    train: ParquetSource,
    test: ParquetSource,
    parsed: TaskName,
    text: str,
    parts: Mapping[str, str],
    inventory: Inventory,
) -> Located:
    """Parquet files with a column of masks. ``parts`` are those that the user named."""
    subject = f"task {text!r}"
    names, void = class_names(parsed.classes, subject), void_values(parsed.void, subject)
    names = names or _declared(train)
    images = parquet_parts(train, test, parsed.mask, parsed.group, names, void)
    options = {"image": train.image} | _options(parsed, ("mask", "group")) | dict(parts)
    where = f"parquet:{folder.resolve()}{query(options)}"
    name = folder.resolve().name
    return Located(name, where, "", subject, images, kind="parquet", inventory=inventory)


def parquet_parts(
    train: ParquetSource,
    test: ParquetSource,
    mask: str = MASK,
    group: str = "",
    names: tuple[str, ...] = (),
    void: tuple[int, ...] = (VOID,),
) -> MaskParts:
    """Where no column of groups is named, that called ``sequence`` is one if it is there."""
    both = []
    for source in (train, test):
        column = group or (SEQUENCE if SEQUENCE in _columns(source) else "")
        both.append(ParquetMasks(source, mask, column))
    return MaskParts(both[0], both[1], names, void)


def _declared(source: ParquetSource) -> tuple[str, ...]:
    """The names of the classes that the files themselves say, as `prepare` writes them."""
    try:
        names = json.loads((open_parquet(source.files[0]).schema_arrow.metadata or {})[CLASSES])
    except (KeyError, ValueError):
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def _columns(source: ParquetSource) -> Sequence[str]:
    columns: Sequence[str] = open_parquet(source.files[0]).schema_arrow.names
    return columns


def _options(parsed: TaskName, names: tuple[str, ...]) -> dict[str, str]:
    wanted = (*names, "classes", "void")
    return {name: value for name in wanted if (value := getattr(parsed, name))}


def class_names(text: str, subject: str) -> tuple[str, ...]:
    """Names with commas between. Raises UserError for an empty one or one twice."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if "" in names or len(set(names)) < len(names):
        raise BadInput(f"{subject}: ?classes={text} has an empty name, or one twice")
    return names


def void_values(text: str, subject: str) -> tuple[int, ...]:
    """Numbers with commas between; 255 where none is given. Raises UserError for another text."""
    if not text:
        return (VOID,)
    try:
        found = tuple(sorted({int(value) for value in text.split(",")}))
    except ValueError:
        found = (-1,)
    if found[0] < 0 or found[-1] > 65535:
        raise BadInput(f"{subject}: ?void={text} is no list of values from 0 to 65535, as in 0,255")
    return found


def _folder(path: str, subject: str) -> Path:
    try:
        place = Path(path).expanduser()
        if place.is_dir():
            return place.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise UserError(f"{subject}: {error}") from None
    raise NotFound(f"{subject}: {path!r} does not exist or is not a directory")


def _masks(
    root: Path, given: Given, subject: str, tally: Tally
) -> tuple[FileMasks, FileMasks | None]:
    """images/ and masks/, with parts within or around them; without parts there is no test."""
    both = root / IMAGES, root / MASKS
    around = [p.name for p in sorted(root.iterdir()) if (p / IMAGES).is_dir()]
    if not all(folder.is_dir() for folder in both) and not around:
        raise BadInput(
            f"{subject}: {root} has no folders {IMAGES} and {MASKS}, nor has a folder such as "
            "train below it"
        )
    names = around or [p.name for p in sorted(both[0].iterdir()) if p.is_dir()]
    chosen = choose(names, f"{subject}: {root}", given, boxes=True)
    if chosen is None:
        if around or given != Given():
            raise BadInput(
                f"{subject}: {root} has {', '.join(names[:8]) or 'no parts'}; needed are train and "
                "test (or val)"
            )
        return _paired(*both, subject, tally), None
    for said in (*chosen.said, *lost(names, chosen, given)):
        tally.say(said)

    def pairs(part: str) -> FileMasks:
        pictures, masks = (
            root / part / what if around else root / what / part for what in (IMAGES, MASKS)
        )
        return _paired(pictures, masks, subject, tally)

    return pairs(chosen.train), pairs(chosen.test)


def _paired(images: Path, masks: Path, subject: str, tally: Tally) -> FileMasks:
    """Each image with the mask of its path without suffix. Raises UserError for images without."""
    pictures = images_below(images, tally)
    theirs = {p.relative_to(masks).with_suffix(""): p for p in images_below(masks, tally)}
    own = {p.relative_to(images).with_suffix(""): p for p in pictures}
    if len(own) < len(pictures):
        raise BadInput(f"{subject}: {images} has two images of one name without suffix; rename one")
    if bare := [path for stem, path in own.items() if stem not in theirs]:
        raise BadInput(
            f"{subject}: {len(bare):,} of {len(own):,} images have no mask in {masks}, the first "
            f"is {bare[0].name!r}; give each one, as {bare[0].stem}.png, or take them out"
        )
    for stem, path in theirs.items():
        if stem not in own:
            tally.leave("masks without an image", path.name)
    tally.take(2 * len(own))
    stems = list(own)
    return FileMasks(tuple(own[s] for s in stems), tuple(theirs[s] for s in stems))


def _voc(
    root: Path, parsed: TaskName, subject: str, tally: Tally
) -> tuple[FileMasks, FileMasks]:  # fmt: skip
    """JPEGImages, SegmentationClass and two lists of ImageSets/Segmentation: train and val."""
    needed = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    below = [p for top in (root, root / "VOCdevkit") if top.is_dir() for p in sorted(top.iterdir())]
    bases = [p for p in (root, *below) if all((p / name).is_dir() for name in needed)]
    if not bases:
        raise BadInput(
            f"{subject}: {root} has no folders {', '.join(needed)}, nor has one below it"
        )
    if len(bases) > 1:
        raise BadInput(f"{subject}: {root} has {bases[0].name} and {bases[1].name}; name one")
    parts = []
    lists = [bases[0] / needed[2] / f"{name.removesuffix('.txt')}.txt"
             for name in (parsed.train or "train", parsed.test or "val")]  # fmt: skip
    listed: list[set[str]] = []
    for path in lists:
        if not path.is_file():
            have = ", ".join(sorted(p.name for p in path.parent.glob("*.txt"))[:8])
            raise NotFound(
                f"{subject}: {path.parent} has no {path.name}; it holds {have or 'no lists'}; name "
                "others with ?train=LIST&test=LIST"
            )
        numbers = [n for line in read_text(path, subject).splitlines() if (n := line.strip())]
        files = [
            (bases[0] / needed[0] / f"{n}.jpg", bases[0] / needed[1] / f"{n}.png") for n in numbers
        ]
        if bare := [mask for _, mask in files if not mask.is_file()]:
            raise BadInput(
                f"{subject}: {len(bare):,} of {len(files):,} images of {path.name} have no mask, "
                f"the first is {bare[0].name!r}"
            )
        if gone := [image for image, _ in files if not image.is_file()]:
            raise NotFound(
                f"{subject}: {len(gone):,} of {len(files):,} images are missing, the first is "
                f"{str(gone[0])!r}"
            )
        tally.take(2 * len(files))
        listed.append(set(numbers))
        parts.append(FileMasks(tuple(i for i, _ in files), tuple(m for _, m in files)))
    if both := sorted(listed[0] & listed[1]):
        raise BadInput(
            f"{subject}: {len(both):,} images are on both {lists[0].name} and {lists[1].name}, "
            f"such as {both[0]!r}; name other lists with ?train=LIST&test=LIST"
        )
    return parts[0], parts[1]
